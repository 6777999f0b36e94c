nodeprov { schema = 1 }
sysctl = {
  "net.core.somaxconn" = host.cpu.count > 4 ? at_least(4096) : 1024
  "vm.swappiness"      = host.cpu.count ? 1 : 2
}
