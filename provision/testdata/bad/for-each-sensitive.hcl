# var names=["hunter2"]
nodeprov {
  schema = 1
}
variable "names" {
  type      = list(string)
  sensitive = true
}
nic "uplinks" {
  for_each = toset(var.names)
  name     = each.key
  mtu      = 9000
}
