nodeprov {
  schema = 1
}
sysctl = {
  "net.core.somaxconn" = at_least(best_effort(4096))
  "vm.swappiness"      = [best_effort(10)]
}
nic "uplink" {
  name = best_effort("eth0")
  mtu  = 9000
}
