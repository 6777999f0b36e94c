# cpu-partitioning: network-latency, and CPUs that nothing runs on but what is put
# there. The values are those of tuned's profile of the same name; in place of
# systemd's CPUAffinity=, which containers would inherit, slices are confined.

nodeprov {
  schema  = 1
  include = ["builtin://network-latency"]
}

variable "isolated" {
  type        = string
  default     = "auto"
  description = "CPUs to isolate, as in \"2-7\"; auto is all but the first core of each socket"

  validation {
    condition     = var.isolated == "auto" || can(cpulist_len(var.isolated))
    error_message = "isolated is auto or a list of CPUs, as in 2-7,10."
  }
  validation {
    condition     = try(cpulist_len(cpulist_sub(var.isolated, host.cpu.online)) == 0, true)
    error_message = "isolated names CPUs that are not online; nodeprov facts shows host.cpu.online."
  }
  validation {
    condition     = try(cpulist_len(cpulist_sub(host.cpu.online, var.isolated)) > 0, true)
    error_message = "isolated leaves no CPU for the rest of the system."
  }
}

locals {
  # The first core of each socket, with its siblings.
  first_cores = cpulist_union([
    for s in distinct([for t in host.cpu.threads : t.socket]) :
    [for t in host.cpu.threads : t.siblings if t.socket == s][0]
  ]...)
  housekeeping = var.isolated == "auto" ? local.first_cores : cpulist_sub(host.cpu.online, var.isolated)
  isolated     = cpulist_sub(host.cpu.online, local.housekeeping)
}

kernel {
  cmdline {
    set = merge(
      {
        skew_tick                          = "1"
        "rcupdate.rcu_normal_after_boot"   = "1"
        "rcutree.nohz_full_patience_delay" = "1000"
      },
      host.arch == "amd64" ? { tsc = "reliable" } : {},
      # Nothing to isolate on a machine of one core.
      local.isolated == "" ? {} : {
        nohz         = "on"
        nohz_full    = local.isolated # no ticks while one task runs
        rcu_nocbs    = local.isolated # RCU's callbacks run elsewhere
        nosoftlockup = true
      },
    )
    on_missing = "skip"
  }
}

cpu {
  allowed_cpus = {
    "system.slice" = best_effort(local.housekeeping)
    "user.slice"   = best_effort(local.housekeeping)
    "init.scope"   = best_effort(local.housekeeping)
  }
}

irqbalance {
  mode        = "ban"
  banned_cpus = local.isolated
  on_missing  = "skip"
}

sysfs = {
  # Work of the kernel that is bound to no CPU.
  "/sys/devices/virtual/workqueue/cpumask"           = best_effort(cpulist_mask(local.housekeeping))
  "/sys/devices/virtual/workqueue/writeback/cpumask" = best_effort(cpulist_mask(local.housekeeping))

  # No polling for corrected machine checks.
  "/sys/devices/system/machinecheck/machinecheck*/ignore_ce" = best_effort("1")

  # Kernel same-page merging scans memory on any CPU.
  "/sys/kernel/mm/ksm/run" = best_effort("0")
}
