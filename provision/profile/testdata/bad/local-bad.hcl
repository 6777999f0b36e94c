nodeprov { schema = 1 }
locals {
  uplinks = { eth0 = { mtu = 9000 } }
  uplinks = {}
  x { }
}
sysctl = {
  "a.a" = local.uplink
  "a.b" = local.uplinks.eth1.mtu
  "a.c" = local.uplinks.eth0.mut
  "a.d" = local.nothing
  "a.e" = local
  "a.f" = locals.uplinks
}
