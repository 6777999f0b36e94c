nodeprov { schema = 1 }
sysctl {
  "vm.swappiness" = 10
}
