output "cluster" {
  description = "For `featurectl run --cluster`, and for `cluster =` in a profile."
  value       = "df://${aws_instance.scheduler.private_dns}:${local.ports.scheduler}"
}

output "driver_security_group_id" {
  description = "The machine that runs `featurectl run --cluster` needs this group, besides its own."
  value       = aws_security_group.role["driver"].id
}

output "ceiling_usd_per_hour" {
  description = "What machines and volumes can cost an hour at most: (executors_max + a tenth, while machines are replaced) × (spot_max_price_usd + volume) + scheduler."
  value       = local.ceiling_usd_per_hour
}

output "end_executors" {
  description = "Ends the executors and keeps the scheduler."
  value       = "terraform apply -var executors=0"
}

output "end_all" {
  description = "Ends everything that this folder made."
  value       = "terraform destroy"
}

output "end_without_state" {
  description = "Ends all machines without Terraform's state."
  value       = <<-EOT
    aws autoscaling delete-auto-scaling-group --region ${var.region} --force-delete --auto-scaling-group-name ${aws_autoscaling_group.executor.name}
    aws ec2 terminate-instances --region ${var.region} --instance-ids ${aws_instance.scheduler.id}
  EOT
}

output "find_all" {
  description = "Lists everything that has the cluster's tag."
  value       = "aws resourcegroupstaggingapi get-resources --region ${var.region} --tag-filters Key=featurectl:cluster,Values=${var.name}"
}
