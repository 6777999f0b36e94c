nodeprov {
  schema = 1
}
variable "backlog" {
  default = 4096
}
locals {
  a    = local.b
  b    = local.a
  cpus = host.cpu.cout
}
sysctl = {
  "net.core.somaxconn" = var.backlogs
  "vm.swappiness"      = backlog
  "kernel.panic"       = local.cpu
}
