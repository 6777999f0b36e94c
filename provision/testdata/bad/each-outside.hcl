nodeprov {
  schema = 1
}
locals {
  name = each.key
}
nic "uplink" {
  name = each.key
  mtu  = 9000
}
irqbalance {
  for_each = toset(["a"])
  mode     = "ban"
}
