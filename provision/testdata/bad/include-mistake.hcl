nodeprov {
  schema  = 1
  include = ["lib/wrong.hcl"]
}
locals {
  size = "large"
}
nic "uplink" {
  mtu = local.size
}
