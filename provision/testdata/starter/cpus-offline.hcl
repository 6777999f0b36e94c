# Profile of ip-10-0-0-7: 3 CPUs, 31741 MiB, debian 12, Linux 6.12.8+bpo-cloud-amd64, aws.
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
  kernel = ">= 6.12"
}

# irqbalance {
#   mode = "ban" # together with irq in the nic block
# }

# nic "ena" {
#   driver = "ena"                      # which has ens5 (pci 0000:00:05.0)
#   mtu    = 9000                       # if the whole path takes it
#   rings  = { rx = "max", tx = "max" } # fewer drops under bursts, a little more latency
#   irq    = { policy = "spread", numa = "local" }
# }

# lbd {} # replaces kube-proxy, which must be off then: disable-kube-proxy for K3s

# What this host cannot have (nodeprov doctor has the whole list):
#   BBR for pods: the kernel has no BBR (module tcp_bbr)
#   no kernel preemption (preempt=none): the kernel runs with voluntary; nodeprov cannot write the configuration of the boot loader, which is systemd-boot
#   CPU in performance mode: the hypervisor decides on the CPUs' frequency
#   BIG TCP: segments of 64 KiB at most on ens5 (ena)
