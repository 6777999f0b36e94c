nodeprov {
  schema = 1
}

sysctl = {
  "net.core.somaxconn"                 = at_least(4096)
  "net.ipv4.ip_forward"                = 1
  "net.ipv6.conf.all.forwarding"       = 1
  "net.ipv4.tcp_slow_start_after_idle" = 0
  "net.ipv4.ip_local_port_range"       = "32768 60999"
}
