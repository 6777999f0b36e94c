nodeprov {
  schema = 1
}
kernel {
  modules = "tcp_bbr"
}
nic "uplink" {
  name     = ["eth0"]
  mtu      = "jumbo"
  channels = 4
}
cpu {
  allowed_cpus = ["0-1"]
  boost        = "maybe"
}
irqbalance {}
