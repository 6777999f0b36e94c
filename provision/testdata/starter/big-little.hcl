# Profile of board: 8 CPUs, 7872 MiB, debian 11, Linux 5.10.160, no hypervisor.
#
# nodeprov plan shows what it would change, and nodeprov apply changes it. Lines that
# begin with a # are suggestions which need your decision.

nodeprov {
  schema = 1
  include = [
    # "builtin://base", # left out, as it does not plan here: Host does not match: This profile is for kernels >= 5.15, and this host runs 5.10.160. Boot such a kernel, or use a profile that is written for 5.10.160
    # "builtin://network-throughput", # for bulk transfers: larger socket buffers, the CPU at full speed
    # "builtin://network-latency", # for quick answers: busy polling, shallow C-states; takes more power
  ]
}

match {
  arch   = ["arm64"]
  kernel = ">= 5.10"
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

# nic "st_gmac" {
#   driver = "st_gmac" # which has end0
#   mtu    = 9000      # if the whole path takes it
# }

# What this host cannot have (nodeprov doctor has the whole list):
#   BBR for pods: for pods it needs Linux 5.18, and this is 5.10.160: packets lose their time stamps on the way out of a pod
#   no kernel preemption (preempt=none): this kernel was built with full and cannot choose at boot
#   BIG TCP: needs Linux 5.19, and this is 5.10.160
#   full kube-proxy replacement: needs Linux 5.15, and this is 5.10.160
