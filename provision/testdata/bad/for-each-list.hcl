nodeprov {
  schema = 1
}
nic "uplinks" {
  for_each = ["eth0", "eth1"]
  name     = each.value
  mtu      = 9000
}
nic "spares" {
  for_each = null
  name     = each.key
  mtu      = 1500
}
