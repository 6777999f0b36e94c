nodeprov {
  schema = 1
}
sysctl = {
  "net.core.somaxconn" = 4096
}
nic "uplink" {
  name = "eth0"
  mtu  = 9000
}
file "/etc/motd" {
  content = "one"
}
file "motd" {
  path    = "/etc/motd"
  content = "two"
}
