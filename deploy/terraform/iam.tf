data "aws_partition" "this" {}
data "aws_caller_identity" "this" {}

resource "aws_iam_role" "role" {
  for_each = local.machines
  name     = "${var.name}-${each.key}"
  assume_role_policy = jsonencode({
    Version = "2012-10-17"
    Statement = [{
      Effect    = "Allow"
      Action    = "sts:AssumeRole"
      Principal = { Service = "ec2.${data.aws_partition.this.dns_suffix}" }
    }]
  })
}

# What each may do is in node/policy.tf.
resource "aws_iam_role_policy" "role" {
  for_each = { scheduler = module.scheduler.policy, executor = module.executor.policy }
  name     = "cluster"
  role     = aws_iam_role.role[each.key].id
  policy   = each.value
}

resource "aws_iam_instance_profile" "role" {
  for_each = local.machines
  name     = "${var.name}-${each.key}"
  role     = aws_iam_role.role[each.key].name
}
