nodeprov "x" { schema = 1 }
nic { mtu = 1 }
nic "a" "b" { mtu = 1 }
nic "" { mtu = 1 }
lbd "x" {}
variable { default = 1 }
variable "a b" { default = 1 }
locals "x" {}
