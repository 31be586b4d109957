locals {
  ports = { scheduler = 50050, shuffle = 50051, tasks = 50052 }

  # Who opens connections to whom: all that is open between the roles.
  flows = {
    driver_to_scheduler   = { from = "driver", to = "scheduler", port = local.ports.scheduler, why = "jobs and their state" }
    driver_to_executor    = { from = "driver", to = "executor", port = local.ports.shuffle, why = "results" }
    executor_to_scheduler = { from = "executor", to = "scheduler", port = local.ports.scheduler, why = "heartbeats and states of tasks" }
    executor_to_executor  = { from = "executor", to = "executor", port = local.ports.shuffle, why = "shuffle files" }
    scheduler_to_executor = { from = "scheduler", to = "executor", port = local.ports.tasks, why = "tasks" }
  }

  machines = toset(["scheduler", "executor"])
}

data "aws_subnet" "first" {
  id = var.subnet_ids[0]
}

data "aws_ec2_managed_prefix_list" "s3" {
  name = "com.amazonaws.${var.region}.s3"
}

# The group `driver` is for the machine on which `featurectl run --cluster` runs.
resource "aws_security_group" "role" {
  for_each    = setunion(local.machines, ["driver"])
  name        = "${var.name}-${each.key}"
  description = "featurectl cluster ${var.name}: ${each.key}"
  vpc_id      = data.aws_subnet.first.vpc_id
  tags        = { Name = "${var.name}-${each.key}" }
}

resource "aws_vpc_security_group_ingress_rule" "flow" {
  for_each                     = local.flows
  security_group_id            = aws_security_group.role[each.value.to].id
  referenced_security_group_id = aws_security_group.role[each.value.from].id
  ip_protocol                  = "tcp"
  from_port                    = each.value.port
  to_port                      = each.value.port
  description                  = "${each.value.from}: ${each.value.why}"
}

resource "aws_vpc_security_group_egress_rule" "flow" {
  for_each                     = local.flows
  security_group_id            = aws_security_group.role[each.value.from].id
  referenced_security_group_id = aws_security_group.role[each.value.to].id
  ip_protocol                  = "tcp"
  from_port                    = each.value.port
  to_port                      = each.value.port
  description                  = "${each.value.to}: ${each.value.why}"
}

resource "aws_vpc_security_group_egress_rule" "s3" {
  for_each          = local.machines
  security_group_id = aws_security_group.role[each.key].id
  prefix_list_id    = data.aws_ec2_managed_prefix_list.s3.id
  ip_protocol       = "tcp"
  from_port         = 443
  to_port           = 443
  description       = "S3"
}

resource "aws_vpc_security_group_egress_rule" "https" {
  for_each          = { for pair in setproduct(local.machines, var.https_egress_cidrs) : join(" ", pair) => { role = pair[0], cidr = pair[1] } }
  security_group_id = aws_security_group.role[each.value.role].id
  cidr_ipv4         = each.value.cidr
  ip_protocol       = "tcp"
  from_port         = 443
  to_port           = 443
  description       = "HTTPS"
}

resource "aws_vpc_security_group_egress_rule" "efs" {
  for_each                     = var.efs == null ? [] : local.machines
  security_group_id            = aws_security_group.role[each.key].id
  referenced_security_group_id = var.efs.security_group_id
  ip_protocol                  = "tcp"
  from_port                    = 2049
  to_port                      = 2049
  description                  = "shared files"
}

resource "aws_vpc_security_group_ingress_rule" "efs" {
  for_each                     = var.efs == null ? [] : local.machines
  security_group_id            = var.efs.security_group_id
  referenced_security_group_id = aws_security_group.role[each.key].id
  ip_protocol                  = "tcp"
  from_port                    = 2049
  to_port                      = 2049
  description                  = "featurectl cluster ${var.name}: ${each.key}"
}
