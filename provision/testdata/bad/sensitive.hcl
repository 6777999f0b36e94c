# var secret=hunter2
nodeprov {
  schema = 1
}
variable "secret" {
  type      = string
  sensitive = true
}
sysctl = {
  "kernel.hostname" = var.secret
  "kernel.${var.secret}" = 1
}
nic "uplink" {
  name = var.secret
  mtu  = 9000
}
kernel {
  modules = [var.secret]
}
check "it" {
  command = ["echo", var.secret]
}
