nodeprov {
  schema  = 1
  include = ["lib/variables.hcl"]
}
variable "mtu" {
  type = string
}
variable "role" {
  default = "controller"
}
