nodeprov { schema = 1 }
variable "none" { default = null }
nic "a" {}
nic "b" { mtu = var.none }
