nodeprov {
  schema = 1
}
irqbalance {
  mode        = "stop"
  banned_cpus = "all"
}
