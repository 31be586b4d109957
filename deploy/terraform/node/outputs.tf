locals {
  systemd = "${path.module}/../../systemd"
}

output "user_data" {
  description = "Script for the machine's first boot."
  value = templatefile("${path.module}/user-data.sh.tftpl", {
    role          = var.role
    binary_s3_uri = var.node.binary_s3_uri
    binary_sha256 = var.node.binary_sha256
    region        = var.node.region
    efs           = var.node.efs
    end_at        = var.node.end_at == null || var.role == "executor" ? null : formatdate("YYYY-MM-DD hh:mm:ss 'UTC'", var.node.end_at)
    env           = merge(var.env, { OPTIONS = join(" ", var.options) })
    unit          = file("${local.systemd}/featurectl-${var.role}.service")
    watch_unit    = file("${local.systemd}/featurectl-spot-watch.service")
    watch         = file("${local.systemd}/featurectl-spot-watch")
  })
}

output "policy" {
  description = "What the machine's role may do, as JSON."
  value       = jsonencode({ Version = "2012-10-17", Statement = local.statements })
}
