# Profile of web1: 1 CPU, 1917 MiB, ubuntu 24.04, Linux 6.8.0-45-generic, hetzner.
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
  kernel = ">= 6.8"
}

sysctl = {
  "net.core.default_qdisc"          = "fq"
  "net.ipv4.tcp_congestion_control" = "bbr"
}

# lbd {} # replaces kube-proxy, which must be off then: disable-kube-proxy for K3s

# What this host cannot have (nodeprov doctor has the whole list):
#   CPU in performance mode: the hypervisor decides on the CPUs' frequency
#   irqbalance stopped, IRQs of NICs pinned: there is one CPU, which takes them all
#   BIG TCP: segments of 64 KiB at most on eth0 (virtio_net)
#   jumbo MTU: eth0 takes 1450
