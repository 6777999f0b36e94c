nodeprov { schema = 1 }
lbd {}
lbd { mode = "snat" }
nic "a" { mtu = 1 }
nic "b" { mtu = 1 }
nic "a" { mtu = 2 }
nodeprov { schema = 1 }
match { arch = ["amd64"] }
match { arch = ["amd64"] }
variable "x" { default = 1 }
variable "x" { default = 2 }
