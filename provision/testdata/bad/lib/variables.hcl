nodeprov {
  schema = 1
}
variable "mtu" {
  type    = number
  default = 1500
}
variable "role" {
  type    = string
  default = "server"
  validation {
    condition     = contains(["server", "agent"], var.role)
    error_message = "role must be server or agent."
  }
}
