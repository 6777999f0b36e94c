# k3s-agent: the tuning of a Kubernetes node that runs pods. Services are lbd's, not
# kube-proxy's.

nodeprov {
  schema  = 1
  include = ["builtin://base", "builtin://network-throughput"]
}

kernel {
  modules = [
    "overlay",      # containerd's snapshots
    "br_netfilter", # bridged pods' packets are seen by network policies
    "nf_conntrack", # before its sysctls
    best_effort("tcp_bbr"),
    best_effort("sch_fq"),
  ]
  thp = best_effort("madvise") # huge pages where a program asks for them
}

sysctl = {
  # Bridged traffic passes the network policies' chains.
  "net.bridge.bridge-nf-call-iptables"  = 1
  "net.bridge.bridge-nf-call-ip6tables" = 1

  # Congestion control and pacing. Pods inherit the first; a queueing discipline
  # comes with a new device, and existing ones are set below.
  "net.ipv4.tcp_congestion_control" = best_effort("bbr")
  "net.core.default_qdisc"          = best_effort("fq")

  # Connection tracking: kube-proxy's formula, 32768 for each CPU and 131072 at
  # least.
  "net.netfilter.nf_conntrack_max"                     = at_least(max(131072, 32768 * host.cpu.count))
  "net.netfilter.nf_conntrack_tcp_timeout_established" = 86400 # seconds
  "net.netfilter.nf_conntrack_tcp_timeout_close_wait"  = 3600  # seconds

  # Newer kernels allow more than tuned's 16 MiB by themselves.
  "net.ipv4.tcp_rmem" = null

  # rp_filter drops replies that take another way, as those of services do. The
  # effective value is the larger one of all and the device's own.
  "net.ipv4.conf.all.rp_filter"     = 0
  "net.ipv4.conf.default.rp_filter" = 0

  # Only root loads BPF programs. Once set it cannot be taken back before a reboot.
  "kernel.unprivileged_bpf_disabled" = best_effort(1)
  "net.core.bpf_jit_enable"          = 1
}

locals {
  # Hardware only. Default routes come too late at boot to decide here.
  uplinks = { for n in host.nics : n.name => n if !n.virtual }
}

nic "uplink" {
  for_each   = local.uplinks
  name       = each.key
  channels   = { combined = best_effort("max") }
  features   = { "rx-gro" = best_effort(true) }
  xps        = best_effort("per-queue")
  on_missing = "skip"

  qdisc "fq" {
    on         = "leaves"
    on_missing = "skip"
  }
}

lbd {}
