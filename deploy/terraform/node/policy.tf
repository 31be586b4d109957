locals {
  writes     = var.role == "executor"
  s3         = "arn:${var.node.partition}:s3:::"
  efs        = "arn:${var.node.partition}:elasticfilesystem:${var.node.region}:${var.node.account_id}"
  data       = trimprefix(coalesce(var.node.data_s3_uri, "s3://"), "s3://")
  bucket     = split("/", local.data)[0]
  prefix     = trimprefix(local.data, "${local.bucket}/")
  may_write  = ["s3:PutObject", "s3:AbortMultipartUpload"]
  statements = concat(local.binary, local.objects, local.files, local.session)

  binary = [{
    Sid      = "Binary"
    Effect   = "Allow"
    Action   = ["s3:GetObject"]
    Resource = "${local.s3}${trimprefix(var.node.binary_s3_uri, "s3://")}"
  }]

  # Executors write files and never delete: the driver commits, and `featurectl vacuum` removes.
  objects = [for statement in [
    {
      Sid       = "List"
      Effect    = "Allow"
      Action    = ["s3:ListBucket"]
      Resource  = "${local.s3}${local.bucket}"
      Condition = { StringLike = { "s3:prefix" = [local.prefix, "${local.prefix}/*"] } }
    },
    {
      Sid       = "Objects"
      Effect    = "Allow"
      Action    = concat(["s3:GetObject"], local.writes ? local.may_write : [])
      Resource  = "${local.s3}${local.data}/*"
      Condition = {}
    },
  ] : { for key, value in statement : key => value if key != "Condition" || length(value) > 0 } if var.node.data_s3_uri != null]

  files = [for efs in var.node.efs == null ? [] : [var.node.efs] : {
    Sid       = "Files"
    Effect    = "Allow"
    Action    = concat(["elasticfilesystem:ClientMount"], local.writes ? ["elasticfilesystem:ClientWrite"] : [])
    Resource  = "${local.efs}:file-system/${efs.file_system_id}"
    Condition = { StringEquals = { "elasticfilesystem:AccessPointArn" = "${local.efs}:access-point/${efs.access_point_id}" } }
  }]

  # What Session Manager's agent needs; these actions know no narrower resource.
  session = [for _ in var.node.session_manager ? [1] : [] : {
    Sid    = "Session"
    Effect = "Allow"
    Action = [
      "ssm:UpdateInstanceInformation",
      "ssmmessages:CreateControlChannel",
      "ssmmessages:CreateDataChannel",
      "ssmmessages:OpenControlChannel",
      "ssmmessages:OpenDataChannel",
    ]
    Resource = "*"
  }]
}
