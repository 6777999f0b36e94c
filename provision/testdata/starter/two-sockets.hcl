# Profile of db1: 8 CPUs on 2 NUMA nodes, 128808 MiB, debian 12, Linux 6.1.0-25-amd64, no hypervisor.
#
# nodeprov plan shows what it would change, and nodeprov apply changes it. Lines that
# begin with a # are suggestions which need your decision.

nodeprov {
  schema = 1
  include = [
    "builtin://base",
    # "builtin://network-throughput", # for bulk transfers: larger socket buffers, the CPU at full speed
    # "builtin://network-latency", # for quick answers: busy polling, shallow C-states; takes more power
  ]
}

match {
  arch   = ["amd64"]
  kernel = ">= 6.1"
}

kernel {
  modules = ["tcp_bbr", "sch_fq"]
  # cmdline { # fewer switches between tasks; takes a reboot, which nodeprov does by itself at boot only if told to
  #   set    = { preempt = "none" }
  #   reboot = "if-needed"
  # }
}

sysctl = {
  "net.core.default_qdisc"          = "fq"
  "net.ipv4.tcp_congestion_control" = "bbr"
}

# locals {
#   reserved = cpulist_first_cores(host.cpu, 1) # whole cores that are kept for the system, away from pods
# }

cpu {
  governor = "performance"
  # allowed_cpus = { "system.slice" = local.reserved, "user.slice" = local.reserved } # with locals above
}

# irqbalance {
#   mode = "disable" # together with irq in the nic block
# }

nic "mlx5_core" {
  driver  = "mlx5_core"                     # which has eth0 (pci 0000:3b:00.0), eth1 (pci 0000:3b:00.1)
  big_tcp = { ipv6 = 196608, clamp = true } # BIG TCP, as far as the device goes
  # mtu = 9000 # if the whole path takes it
  # rings = { rx = "max", tx = "max" } # fewer drops under bursts, a little more latency
  # irq = { policy = "spread", numa = "local" }
}

# lbd {} # replaces kube-proxy, which must be off then: disable-kube-proxy for K3s
