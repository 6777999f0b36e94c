nodeprov {
  schema = 1
}

nic "uplink" {
  name = "eth0"
  mtv  = 9000
}

sysctl = {
  "net.core.somaxconn" = at_most(4096)
}
