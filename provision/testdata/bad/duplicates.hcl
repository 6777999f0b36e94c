nodeprov {
  schema = 1
}
sysctl = {
  "net.core.somaxconn" = 4096
  "vm.swappiness"      = 10
  "net.core.somaxconn" = 8192
}
nic "uplink" {
  name = "eth0"
  mtu  = 9000
}
nic "uplink" {
  name = "eth1"
  mtu  = 9000
}
kernel {}
kernel {}
