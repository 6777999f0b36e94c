nodeprov { schema = 1 }
locals {
  key = "vm.swappiness"
  m   = { a = 1, a = 2 }
}
sysctl = {
  "vm.swappiness" = 10
  "vm.dirty_ratio" = 3
  (local.key)     = 20
  "vm.dirty_ratio" = 4
}
