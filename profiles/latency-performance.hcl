# latency-performance: CPUs that wake up at once, and small write-back batches. The
# values are those of tuned's profile of the same name.
#
# It costs power, and on a busy machine the higher frequencies of single cores.

nodeprov {
  schema = 1
}

cpu {
  governor     = best_effort("performance")
  epp          = best_effort("performance")
  min_perf_pct = best_effort(100) # per cent of the highest frequency
  boost        = best_effort(true)

  # No deeper sleep than this; nodeprov-watch.service holds the request.
  force_latency = best_effort("C1")
}

sysfs = {
  # Energy performance bias of Intel's CPUs: 0 is performance, 15 is power saving.
  "/sys/devices/system/cpu/cpu*/power/energy_perf_bias" = best_effort("0")
  "/sys/firmware/acpi/platform_profile"                 = best_effort("performance")
}

sysctl = {
  "vm.dirty_ratio"            = 10 # per cent of memory at which writers must write back themselves
  "vm.dirty_background_ratio" = 3  # per cent of memory at which writing back begins
  "vm.swappiness"             = 10
}
