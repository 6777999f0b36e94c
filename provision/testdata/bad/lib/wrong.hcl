nodeprov {
  schema = 1
}
sysctl = {
  "net.core.somaxconn" = var.backlog
}
nic "uplink" {
  driver  = "virtio_net"
  mtu     = 1500
  on_eror = "fail"
}
