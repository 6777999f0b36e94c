nodeprov { schema = 1 }
sysctl = {
  net.core.somaxconn = 4096
  vm.swappiness      = 10
}
