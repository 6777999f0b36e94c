nodeprov {
  schema = 1
}

kernel {
  thp = "madvise"
}

sysctl = {
  "net.core.somaxconn"            = 5000
  "net.core.netdev_max_backlog"   = 5000
  "net.ipv4.ip_forward"           = 1
  "net.ipv4.tcp_rmem"             = "4096 131072 5000000"
  "net.ipv4.tcp_wmem"             = "4096 16384 5000000"
  "net.ipv4.conf.eth0.arp_ignore" = 1
  "vm.max_map_count"              = 500000
  "vm.swappiness"                 = 5
  "vm.dirty_ratio"                = 35
  "kernel.pid_max"                = 500000
}

nic "uplink" {
  name = "eth0"
  mtu  = 1450
}

file "/etc/nodeprov-test.conf" {
  content = "a\n"
  mode    = "0640"
}

file "/etc/nodeprov-test-new.conf" {
  content = "a\n"
}

unit "nodeprov-example.service" {
  enabled = true
  state   = "started"
}
