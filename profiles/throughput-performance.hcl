# throughput-performance: no power saving, and large write-back batches. The values
# are those of tuned's profile of the same name.
#
# A virtual machine mostly has no frequency control: what the hypervisor keeps to
# itself is reported as tolerated.

nodeprov {
  schema = 1
}

cpu {
  governor     = best_effort("performance")
  epp          = best_effort("performance")
  min_perf_pct = best_effort(100) # per cent of the highest frequency
  boost        = best_effort(true)
}

sysfs = {
  # Energy performance bias of Intel's CPUs: 0 is performance, 15 is power saving.
  "/sys/devices/system/cpu/cpu*/power/energy_perf_bias" = best_effort("0")
  "/sys/firmware/acpi/platform_profile"                 = best_effort("performance")

  # KiB that are read ahead of a sequential reader.
  "/sys/block/*/queue/read_ahead_kb" = best_effort(at_least(4096))
}

sysctl = {
  "vm.dirty_ratio"            = 40 # per cent of memory at which writers must write back themselves
  "vm.dirty_background_ratio" = 10 # per cent of memory at which writing back begins
  "vm.swappiness"             = 10
  "net.core.somaxconn"        = at_least(2048)
}
