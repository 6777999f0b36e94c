nodeprov {
  schema = 1
}
nic "none" {
  mtu = 9000
}
nic "both" {
  name   = "eth0"
  driver = "virtio_net"
  mtu    = 9000
}
nic "long" {
  name = "a-name-that-is-too-long"
  mtu  = 9000
}
nic "mac" {
  mac = "52:54:00:12:34"
  mtu = 9000
}
nic "pci" {
  pci = "00:03"
  mtu = 9000
}
