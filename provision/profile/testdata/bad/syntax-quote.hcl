nodeprov { schema = 1 }
nic "a {
  mtu = 9000
}
