# var role=master
nodeprov { schema = 1 }
variable "role" {
  type = string
  validation {
    condition     = contains(["server", "agent"], var.role)
    error_message = "role must be server or agent."
  }
}
variable "b" {
  default = 0
  validation {
    condition     = true
    error_message = "never"
  }
  validation {
    condition     = var.b
    error_message = "b is false"
  }
  validation {
    condition     = var.b > local.x
    error_message = "b is small"
  }
  validation {
    condition     = var.b > 1 ? true : null
    error_message = "b is null"
  }
}
locals { x = 1 }
sysctl = { "a" = lookup({ server = 1 }, var.role) }
