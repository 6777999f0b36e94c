nodeprov {
  schema = 1
}
cpu {
  governor      = "Performance"
  epp           = "fast!"
  epb           = 16
  min_perf_pct  = 101
  force_latency = "deep"
  allowed_cpus  = { "system" = "0-1", "user.slice" = "1-0", "machine.slice" = "" }
}
