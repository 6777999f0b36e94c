nodeprov { schema = 1 }
locals {
  z = local.b + 1
  a = local.c
  b = local.a
  c = local.b
  self = [local.self]
  uses = local.a
}
sysctl = { "vm.swappiness" = local.a }
