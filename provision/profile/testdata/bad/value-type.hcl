nodeprov { schema = 1 }
nic "a" {
  mtu        = "jumbo"
  addresses  = [1, 2, "three"]
  on_missing = ["skip"]
  match = {
    name   = "eth0"
    driver = ["virtio_net"]
  }
}
nic "b" { mtu = at_least(9000) }
nic "c" { mtu = true }
