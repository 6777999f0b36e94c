nodeprov {
  schema = 1
}
nic "uplink" {
  name       = "eth0"
  mtu        = 20
  channels   = { combined = 4, rx = 2 }
  rings      = { rx = "most", txx = 512 }
  coalesce   = { adaptive-rx = true, rx_usecs = "8us" }
  features   = { gro = true, "rx gro" = true }
  big_tcp    = { ipv6 = 1000, clamped = true }
  irq        = { policy = "spred", cpus = "0-x", numa = 1 }
  rps        = "some"
  rfs        = 1000
  rss        = { queues = 0 }
  on_missing = "ignore"
  on_error   = "stop"
}
