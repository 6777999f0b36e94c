nodeprov {
  schema = 1
}
sysctl = best_effort({ "net.core.somaxconn" = 4096 })
