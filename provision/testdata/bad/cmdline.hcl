nodeprov {
  schema = 1
}
kernel {
  cmdline {
    set          = { preempt = "none", "bad name" = 1, quiet = false, isolcpus = "2-3 4", "tsc=" = "x" }
    remove       = ["preempt", "a b"]
    reboot       = "always"
    max_attempts = 0
  }
}
