sysctl = { "vm.swappiness" = 10 }
lbd { devises = [] }
