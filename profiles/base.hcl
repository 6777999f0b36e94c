# base: what a Kubernetes node needs of its kernel, and what costs nothing.
#
# It holds for every kernel from 5.15 on, in a virtual machine as on metal, and
# needs no module that a distribution's kernel does not load by itself: no
# connection tracking, no BBR, no fq. Values are numbers of the kernel's own unit,
# which is named where it is not a count.

nodeprov {
  schema  = 1
  include = ["builtin://kubelet-defaults"]
}

match {
  kernel = ">= 5.15" # what lbd's socket hooks are built for
}

sysctl = {
  # Forwarding between pods, and to them. Source: Kubernetes documentation,
  # "Container Runtimes", "Enable IPv4 packet forwarding". IPv6 is left alone: with
  # net.ipv6.conf.all.forwarding the kernel drops the default route of a node that
  # gets it from router advertisements, unless its uplink's accept_ra is 2
  # (Documentation/networking/ip-sysctl.rst), and K3s sets it where a cluster is
  # dual-stack.
  "net.ipv4.ip_forward" = 1

  # A listener's queue. Source: the kernel's own default since 5.4
  # (Documentation/networking/ip-sysctl.rst); this undoes what lowered it.
  "net.core.somaxconn" = at_least(4096)

  # TCP. Source: tuned, profile network-throughput. The last is the most that a
  # socket may use, if its connection fills the window. tcp_rmem is left alone:
  # newer kernels (6.18 for one) allow 32 MiB by themselves, more than tuned does.
  "net.ipv4.tcp_wmem" = "4096 16384 16777216" # bytes: least, initial, most
  # Source: tuned, profile network-latency. Bits: 1 as client, 2 as server.
  "net.ipv4.tcp_fastopen" = 3
  # Source: tuned, profile network-throughput. Connections between services are
  # idle between requests; without this they start slowly after each pause.
  "net.ipv4.tcp_slow_start_after_idle" = 0
  # Source: tuned, profile network-throughput. Bytes that may wait unsent in a
  # socket; the rest stays in the application, which can still change its mind.
  "net.ipv4.tcp_notsent_lowat" = 131072

  # Neighbours: one entry for each pod and node that is talked to; the kernel's
  # 128, 512 and 1024 are for an office network. Source: tuned, profile openshift.
  # Those of IPv6 do not exist on a node that was booted with ipv6.disable=1.
  "net.ipv4.neigh.default.gc_thresh1" = at_least(8192)
  "net.ipv4.neigh.default.gc_thresh2" = at_least(32768)
  "net.ipv4.neigh.default.gc_thresh3" = at_least(65536)

  # Many containers share one user's limits. Source: tuned, profiles openshift
  # (pid_max, aio-max-nr, max_map_count) and openshift-node (inotify).
  "fs.inotify.max_user_instances" = at_least(8192)
  "fs.inotify.max_user_watches"   = at_least(65536)
  "fs.aio-max-nr"                 = at_least(1048576)
  "kernel.pid_max"                = at_least(4194304)
  "vm.max_map_count"              = at_least(262144)
}
