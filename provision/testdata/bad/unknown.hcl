nodeprov {
  schema = 1
}
sysctls = { "vm.swappiness" = 10 }
sysctl {
  "vm.swappiness" = 10
}
