nodeprov { schema = 1 }

sysctl = { "vm.swappiness" = 10 }

nic "a" {
  mtu = 1500
  mtu = var.x
}

sysctl = { "vm.swappiness" = 20 }
