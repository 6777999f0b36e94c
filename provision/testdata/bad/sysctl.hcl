nodeprov {
  schema = 1
}
sysctl = {
  "../etc/passwd"         = 1
  "net..core.somaxconn"   = 1
  "net.ipv4.tcp_rmem"     = "4096\n131072"
  "net.ipv4.tcp_wmem"     = [4096, 16384, 16777216]
  "net.core.somaxconn"    = 1.5
  "net/core/somaxconn"    = 8192
  "vm.swappiness"         = at_least(-0.5)
  "kernel.panic"          = { seconds = 10 }
}
