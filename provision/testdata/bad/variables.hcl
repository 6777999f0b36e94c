# var role=controller
# var mtu=big
nodeprov {
  schema = 1
}
variable "role" {
  type = string
  validation {
    condition     = contains(["server", "agent"], var.role)
    error_message = "role must be server or agent."
  }
}
variable "mtu" {
  type = number
}
variable "site" {
  type = strng
}
variable "zone" {}
