locals {
  # While it replaces machines that EC2 is about to take, a group may be a tenth larger than its maximum.
  machines_max = var.executors_max + ceil(var.executors_max / 10)

  scheduler_volume_gb = 20
  hours_per_month     = 730

  # Machines and volumes only: not traffic between zones, NAT gateways, endpoints, EFS, S3.
  ceiling_usd_per_hour = ceil(1000 * (
    local.machines_max * var.spot_max_price_usd
    + var.scheduler_usd_per_hour
    + (local.machines_max * var.executor_volume_gb + local.scheduler_volume_gb) * var.volume_usd_per_gb_month / local.hours_per_month
  )) / 1000
}
