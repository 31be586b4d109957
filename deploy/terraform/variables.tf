# Where ------------------------------------------------------------------------------------------------------------

variable "region" {
  description = "Region of the subnets."
  type        = string
}

variable "name" {
  description = "Name of the cluster: prefix of all resources, and value of the tag featurectl:cluster."
  type        = string
  default     = "featurectl"
  validation {
    condition     = can(regex("^[a-z][a-z0-9-]{1,30}$", var.name))
    error_message = "The name must be 2 to 31 lower-case letters, digits and hyphens, and start with a letter."
  }
}

variable "subnet_ids" {
  description = "Private subnets. The scheduler is in the first; executors are in all. One subnet keeps shuffles within a zone, which costs nothing; several find spot machines more easily."
  type        = list(string)
  validation {
    condition     = length(var.subnet_ids) > 0 && alltrue([for id in var.subnet_ids : can(regex("^subnet-[0-9a-f]+$", id))])
    error_message = "Give at least one subnet, as subnet-0123abcd."
  }
}

variable "scheduler_private_ip" {
  description = "Fixed address of the scheduler in the first subnet, so that executors find a replaced scheduler. Without one, replacing the scheduler replaces the executors too."
  type        = string
  default     = null
  validation {
    condition     = var.scheduler_private_ip == null || can(cidrhost("${var.scheduler_private_ip}/32", 0))
    error_message = "The address must be an IPv4 address, such as 10.0.1.10."
  }
}

variable "https_egress_cidrs" {
  description = "Where the machines may open HTTPS connections to, besides S3: addresses of interface endpoints (Session Manager), or 0.0.0.0/0 behind a NAT gateway."
  type        = list(string)
  default     = []
  validation {
    condition     = alltrue([for cidr in var.https_egress_cidrs : can(cidrhost(cidr, 0))])
    error_message = "Each entry must be a range such as 10.0.0.0/16."
  }
}

variable "session_manager" {
  description = "Whether a shell on the machines can be opened by AWS Systems Manager. There is no SSH."
  type        = bool
  default     = false
}

variable "tags" {
  description = "More tags for all resources."
  type        = map(string)
  default     = {}
}

# Machines ---------------------------------------------------------------------------------------------------------

variable "architecture" {
  description = "That of the binary and of all instance types."
  type        = string
  default     = "x86_64"
  validation {
    condition     = contains(["x86_64", "arm64"], var.architecture)
    error_message = "The architecture must be x86_64 or arm64."
  }
}

variable "ami_id" {
  description = "Image of the machines, with systemd, the AWS CLI and /dev/xvda as its root. By default the newest Amazon Linux 2023: a newer image replaces the machines at the next apply."
  type        = string
  default     = null
}

variable "scheduler_instance_type" {
  description = "On-demand. It plans, and holds no rows."
  type        = string
  default     = "m6i.large"
}

variable "executor_instance_types" {
  description = "Spot, from the pools with most capacity. All of one size in vCPUs and memory, x86-64 types with AVX2; the more types, the fewer interruptions."
  type        = list(string)
  default     = ["m5.2xlarge", "m5a.2xlarge", "m6a.2xlarge", "m6i.2xlarge", "m7i.2xlarge"]
  validation {
    condition     = length(var.executor_instance_types) > 0 && length(distinct(var.executor_instance_types)) == length(var.executor_instance_types)
    error_message = "Give at least one instance type, each once."
  }
}

variable "executors" {
  description = "How many executors there are. 0 keeps the scheduler only."
  type        = number
  default     = 2
  validation {
    condition     = var.executors >= 0 && floor(var.executors) == var.executors && var.executors <= var.executors_max
    error_message = "The number of executors must be whole, and at most executors_max."
  }
}

variable "executors_max" {
  description = "How many there may be, also by hand. The ceiling of the costs counts with it."
  type        = number
  default     = 4
  validation {
    condition     = var.executors_max >= 1 && var.executors_max <= 200 && floor(var.executors_max) == var.executors_max
    error_message = "executors_max must be a whole number from 1 to 200."
  }
}

variable "executor_threads" {
  description = "Tasks at once on an executor. Without it, featurectl's own default."
  type        = number
  default     = null
  validation {
    condition     = var.executor_threads == null || try(var.executor_threads >= 1, false)
    error_message = "An executor needs at least one thread."
  }
}

variable "executor_memory_mb" {
  description = "Memory for all tasks of an executor, in MB; leave a quarter of the machine to the rest. Without it, featurectl's own default."
  type        = number
  default     = null
  validation {
    condition     = var.executor_memory_mb == null || try(var.executor_memory_mb >= 512, false)
    error_message = "An executor needs at least 512 MB."
  }
}

variable "executor_volume_gb" {
  description = "Volume of an executor, encrypted: shuffle files and what does not fit into memory."
  type        = number
  default     = 200
  validation {
    condition     = var.executor_volume_gb >= 20 && var.executor_volume_gb <= 16384
    error_message = "The volume must have 20 to 16384 GB."
  }
}

variable "drain_seconds" {
  description = "How long running tasks may take to end when a machine goes. EC2 gives 120 s; noticing takes 5, leaving 15."
  type        = number
  default     = 90
  validation {
    condition     = var.drain_seconds >= 10 && var.drain_seconds <= 90
    error_message = "drain_seconds must be 10 to 90."
  }
}

# What they run, and on what -----------------------------------------------------------------------------------------

variable "binary_s3_uri" {
  description = "The featurectl binary, as s3://bucket/key. All machines and the driver must have the same."
  type        = string
  validation {
    condition     = can(regex("^s3://[a-z0-9][a-z0-9.-]+/[A-Za-z0-9/_.+=-]+$", var.binary_s3_uri))
    error_message = "The binary must be an s3://bucket/key of letters, digits and / _ . + = - only."
  }
}

variable "binary_sha256" {
  description = "Its SHA-256, in hexadecimal. A machine whose download has another one does not start the service."
  type        = string
  validation {
    condition     = can(regex("^[0-9a-f]{64}$", var.binary_sha256))
    error_message = "The SHA-256 must be 64 lower-case hexadecimal digits, as sha256sum prints them."
  }
}

variable "efs" {
  description = "File system that all machines and the driver see, mounted at /srv/featurectl through an access point, which gives all of them one user. security_group_id: that of its mount targets, which is opened to the machines."
  type = object({
    file_system_id    = string
    access_point_id   = string
    security_group_id = string
  })
  default = null
  validation {
    condition = var.efs == null || try(
      can(regex("^fs-[0-9a-f]+$", var.efs.file_system_id)) &&
      can(regex("^fsap-[0-9a-f]+$", var.efs.access_point_id)) &&
      can(regex("^sg-[0-9a-f]+$", var.efs.security_group_id)), false
    )
    error_message = "efs needs file_system_id (fs-…), access_point_id (fsap-…) and security_group_id (sg-…)."
  }
}

variable "data_s3_uri" {
  description = "Prefix with inputs and offline store, as s3://bucket/prefix: executors may read and write there, the scheduler may read. For when featurectl's cluster reads object stores."
  type        = string
  default     = null
  validation {
    condition     = var.data_s3_uri == null || can(regex("^s3://[a-z0-9][a-z0-9.-]+/[A-Za-z0-9/_.+=-]*[A-Za-z0-9_.+=-]$", var.data_s3_uri))
    error_message = "The prefix must be s3://bucket/prefix, without a slash at its end. A whole bucket can't be given."
  }
}

# What it may cost ---------------------------------------------------------------------------------------------------

variable "spot_max_price_usd" {
  description = "Most that an hour of one executor may cost. EC2 takes machines away while spot prices are above; at the on-demand price of the dearest type, that is rare."
  type        = number
  validation {
    condition     = var.spot_max_price_usd > 0
    error_message = "The price must be above 0."
  }
}

variable "scheduler_usd_per_hour" {
  description = "On-demand price of scheduler_instance_type in the region, from the price list."
  type        = number
  validation {
    condition     = var.scheduler_usd_per_hour > 0
    error_message = "The price must be above 0."
  }
}

variable "volume_usd_per_gb_month" {
  description = "Price of gp3 volumes in the region, from the price list."
  type        = number
  validation {
    condition     = var.volume_usd_per_gb_month > 0
    error_message = "The price must be above 0."
  }
}

variable "max_hourly_usd" {
  description = "What the machines and their volumes may cost an hour at most. A plan that could cost more is refused."
  type        = number
  validation {
    condition     = local.ceiling_usd_per_hour <= var.max_hourly_usd
    error_message = "With ${local.machines_max} executors at their highest price, the cluster could cost ${local.ceiling_usd_per_hour} USD an hour. Lower executors_max or spot_max_price_usd, or raise max_hourly_usd."
  }
}

variable "end_at" {
  description = "When all machines end by themselves, such as 2026-01-31T18:00:00Z. Never, without it."
  type        = string
  default     = null
  validation {
    condition     = var.end_at == null || (can(formatdate("YYYY", var.end_at)) && endswith(coalesce(var.end_at, "-"), "Z"))
    error_message = "end_at must be a time in UTC, such as 2026-01-31T18:00:00Z."
  }
}
