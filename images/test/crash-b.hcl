nodeprov {
  schema = 1
}

kernel {
  thp = "never"
}

sysctl = {
  "net.core.somaxconn"            = 6000
  "net.core.netdev_max_backlog"   = 6000
  "net.ipv4.ip_forward"           = 0
  "net.ipv4.tcp_rmem"             = "4096 131072 6000000"
  "net.ipv4.tcp_wmem"             = "4096 16384 6000000"
  "net.ipv4.conf.eth0.arp_ignore" = 2
  "vm.max_map_count"              = 600000
  "vm.swappiness"                 = 6
  "vm.dirty_ratio"                = 36
  "kernel.pid_max"                = 600000
}

nic "uplink" {
  name = "eth0"
  mtu  = 1460
}

file "/etc/nodeprov-test.conf" {
  content = "b\n"
  mode    = "0600"
}

file "/etc/nodeprov-test-new.conf" {
  content = "b\n"
}

unit "nodeprov-example.service" {
  enabled = false
  state   = "stopped"
}
