# One machine of a cluster as text: what it runs when it boots, and what it may do. No resources, so it can be tried
# without a provider; ../../tests/node does.

variable "role" {
  description = "scheduler or executor."
  type        = string
  validation {
    condition     = contains(["scheduler", "executor"], var.role)
    error_message = "The role must be scheduler or executor."
  }
}

variable "env" {
  description = "Settings for the unit's environment file, besides addresses."
  type        = map(string)
}

variable "options" {
  description = "More options of the command."
  type        = list(string)
  default     = []
}

variable "node" {
  description = "What all machines of the cluster have in common; the root's variables say what each is."
  type = object({
    binary_s3_uri = string
    binary_sha256 = string
    data_s3_uri   = optional(string)
    efs = optional(object({
      file_system_id    = string
      access_point_id   = string
      security_group_id = string
    }))
    end_at          = optional(string)
    session_manager = optional(bool, false)
    partition       = string
    region          = string
    account_id      = string
  })
}
