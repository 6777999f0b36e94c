# network-latency: latency-performance, busy polling, and no housekeeping that
# interrupts. The values are those of tuned's profile of the same name.
#
# On a Kubernetes node set kernel.timer_migration to 1 again, as builtin://k3s-server
# does: with 0 the timers of a pinned pod stay on CPUs that it may not use.

nodeprov {
  schema  = 1
  include = ["builtin://latency-performance"]
}

kernel {
  thp = best_effort("never")

  # Holds after a reboot, which is yours to do; with reboot = "if-needed" nodeprov
  # does it at boot.
  cmdline {
    set = merge(
      {
        skew_tick                          = "1"    # ticks of the CPUs apart from each other
        "rcupdate.rcu_normal_after_boot"   = "1"    # no expedited grace periods: they interrupt all CPUs
        "rcutree.nohz_full_patience_delay" = "1000" # ms
      },
      host.arch == "amd64" ? { tsc = "reliable" } : {}, # no watchdog of the clock
    )
    on_missing = "skip"
  }
}

sysctl = {
  # Microseconds that a socket polls its device's queue before it sleeps.
  "net.core.busy_read" = 50
  "net.core.busy_poll" = 50

  "net.ipv4.tcp_fastopen"         = 3                # bits: 1 as client, 2 as server
  "kernel.numa_balancing"         = best_effort(0)   # it unmaps pages to see who uses them
  "kernel.hung_task_timeout_secs" = best_effort(600) # seconds
  "kernel.nmi_watchdog"           = best_effort(0)
  "vm.stat_interval"              = 10 # seconds
  "kernel.timer_migration"        = best_effort(0)
}
