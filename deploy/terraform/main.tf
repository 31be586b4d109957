locals {
  tags = merge(var.tags, { "featurectl:cluster" = var.name })

  # What both kinds of machines need to know.
  node = {
    binary_s3_uri   = var.binary_s3_uri
    binary_sha256   = var.binary_sha256
    data_s3_uri     = var.data_s3_uri
    efs             = var.efs
    end_at          = var.end_at
    session_manager = var.session_manager
    partition       = data.aws_partition.this.partition
    region          = var.region
    account_id      = data.aws_caller_identity.this.account_id
  }

  image = coalesce(var.ami_id, nonsensitive(data.aws_ssm_parameter.image.value))
}

data "aws_ssm_parameter" "image" {
  name = "/aws/service/ami-amazon-linux-latest/al2023-ami-kernel-default-${var.architecture}"
}

# Scheduler: on-demand ---------------------------------------------------------------------------------------------

module "scheduler" {
  source = "./node"
  role   = "scheduler"
  node   = local.node
  env    = { PORT = local.ports.scheduler }
}

resource "aws_instance" "scheduler" {
  ami                                  = local.image
  instance_type                        = var.scheduler_instance_type
  subnet_id                            = var.subnet_ids[0]
  private_ip                           = var.scheduler_private_ip
  associate_public_ip_address          = false
  vpc_security_group_ids               = [aws_security_group.role["scheduler"].id]
  iam_instance_profile                 = aws_iam_instance_profile.role["scheduler"].name
  instance_initiated_shutdown_behavior = "terminate"
  user_data                            = module.scheduler.user_data
  user_data_replace_on_change          = true

  metadata_options {
    http_endpoint               = "enabled"
    http_tokens                 = "required"
    http_put_response_hop_limit = 1
  }

  root_block_device {
    encrypted   = true
    volume_type = "gp3"
    volume_size = local.scheduler_volume_gb
    tags        = local.tags
  }

  tags = { Name = "${var.name}-scheduler" }

  # The machine reads the binary when it boots: its permission and its way out must be there.
  depends_on = [
    aws_iam_role_policy.role,
    aws_vpc_security_group_egress_rule.s3,
    aws_vpc_security_group_egress_rule.https,
    aws_vpc_security_group_egress_rule.efs,
    aws_vpc_security_group_ingress_rule.efs,
  ]
}

# Executors: spot --------------------------------------------------------------------------------------------------

module "executor" {
  source = "./node"
  role   = "executor"
  node   = local.node
  env = {
    SCHEDULER     = "${aws_instance.scheduler.private_dns}:${local.ports.scheduler}"
    PORT          = local.ports.shuffle
    GRPC_PORT     = local.ports.tasks
    DRAIN_SECONDS = var.drain_seconds
  }
  options = concat(
    var.executor_threads == null ? [] : ["--threads", tostring(var.executor_threads)],
    var.executor_memory_mb == null ? [] : ["--memory-mb", tostring(var.executor_memory_mb)],
  )
}

resource "aws_launch_template" "executor" {
  name                                 = "${var.name}-executor"
  image_id                             = local.image
  instance_type                        = var.executor_instance_types[0]
  instance_initiated_shutdown_behavior = "terminate"
  user_data                            = base64encode(module.executor.user_data)
  update_default_version               = true

  iam_instance_profile {
    name = aws_iam_instance_profile.role["executor"].name
  }

  network_interfaces {
    device_index                = 0
    associate_public_ip_address = false
    delete_on_termination       = true
    security_groups             = [aws_security_group.role["executor"].id]
  }

  metadata_options {
    http_endpoint               = "enabled"
    http_tokens                 = "required"
    http_put_response_hop_limit = 1
  }

  block_device_mappings {
    device_name = "/dev/xvda"
    ebs {
      encrypted             = true
      volume_type           = "gp3"
      volume_size           = var.executor_volume_gb
      delete_on_termination = true
    }
  }

  dynamic "tag_specifications" {
    for_each = ["instance", "volume", "network-interface"]
    content {
      resource_type = tag_specifications.value
      tags          = merge(local.tags, { Name = "${var.name}-executor" })
    }
  }
}

resource "aws_autoscaling_group" "executor" {
  name                = "${var.name}-executor"
  min_size            = 0
  desired_capacity    = var.executors
  max_size            = var.executors_max
  vpc_zone_identifier = var.subnet_ids
  capacity_rebalance  = true

  mixed_instances_policy {
    instances_distribution {
      on_demand_base_capacity                  = 0
      on_demand_percentage_above_base_capacity = 0
      spot_allocation_strategy                 = "capacity-optimized"
      spot_max_price                           = tostring(var.spot_max_price_usd)
    }
    launch_template {
      launch_template_specification {
        launch_template_id = aws_launch_template.executor.id
        version            = aws_launch_template.executor.latest_version
      }
      dynamic "override" {
        for_each = var.executor_instance_types
        content {
          instance_type = override.value
        }
      }
    }
  }

  # Keeps a machine while featurectl-spot-watch drains it. Nobody answers the hook: it ends by time.
  initial_lifecycle_hook {
    name                 = "drain"
    lifecycle_transition = "autoscaling:EC2_INSTANCE_TERMINATING"
    heartbeat_timeout    = max(30, var.drain_seconds + 20)
    default_result       = "CONTINUE"
  }

  # All at once: executors of another version than the scheduler's are of no use.
  instance_refresh {
    strategy = "Rolling"
    preferences {
      min_healthy_percentage = 0
    }
  }

  dynamic "tag" {
    for_each = local.tags
    content {
      key                 = tag.key
      value               = tag.value
      propagate_at_launch = false # the launch template has them, for volumes too
    }
  }

  # As the scheduler's; and what tasks need to end is there until the last machine is gone.
  depends_on = [
    aws_iam_role_policy.role,
    aws_vpc_security_group_egress_rule.flow,
    aws_vpc_security_group_ingress_rule.flow,
    aws_vpc_security_group_egress_rule.s3,
    aws_vpc_security_group_egress_rule.https,
    aws_vpc_security_group_egress_rule.efs,
    aws_vpc_security_group_ingress_rule.efs,
  ]
}

# The scheduler ends itself at this time; see node/user-data.sh.tftpl.
resource "aws_autoscaling_schedule" "end" {
  count                  = var.end_at == null ? 0 : 1
  scheduled_action_name  = "end"
  autoscaling_group_name = aws_autoscaling_group.executor.name
  start_time             = var.end_at
  min_size               = 0
  max_size               = 0
  desired_capacity       = 0
}
