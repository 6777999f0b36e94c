nodeprov {
  schema = 1
}
net.core.somaxconn = 4096
sysctl = {
  "vm.swappiness" = 10, "kernel.panic" 10
}
