nodeprov {
  schema = 1
}
nic "uplinks" {
  for_each = { eth0 = { size = 9000 }, eth1 = { size = "jumbo" } }
  name     = each.name
  mtu      = each.value.siez
}
nic "others" {
  for_each = { eth2 = 9000, eth3 = "jumbo" }
  name     = each.key
  mtu      = each.value
}
