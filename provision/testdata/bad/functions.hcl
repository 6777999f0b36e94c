nodeprov {
  schema = 1
}
sysctl = {
  "net.core.somaxconn"     = atleast(4096)
  "net.core.busy_poll"     = max()
  "net.core.busy_read"     = cidrhost("10.42.0.0", 1)
  "vm.max_map_count"       = timestamp()
  "net.core.netdev_budget" = at_least("many")
}
