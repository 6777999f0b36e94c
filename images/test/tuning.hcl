# Every kind of setting that an emulated machine of two NUMA nodes has something
# for. Each value differs from the kernel's own.
nodeprov {
  schema = 1
}

match {
  kernel = ">= 5.15"
}

locals {
  reserved = cpulist_first_cores(host.cpu, 1)             # 0-1: a core with both of its threads
  isolated = cpulist_sub(host.cpu.online, local.reserved) # 2-3
}

kernel {
  modules = ["nf_conntrack", "sch_fq", "tcp_bbr"]
  thp     = "madvise"

  hugepages "2M" {
    nodes = { "0" = 4, "1" = 6 }
  }

  cmdline {
    set          = { skew_tick = 1, nosoftlockup = true }
    reboot       = "if-needed"
    max_attempts = 1
  }
}

sysctl = {
  "net.core.default_qdisc"          = "fq"
  "net.ipv4.tcp_congestion_control" = "bbr"
  "net.core.somaxconn"              = at_least(8192)
  "net.netfilter.nf_conntrack_max"  = 200000
  "net.ipv4.conf.*.rp_filter"       = 0
  "net.ipv4.conf.eth0.arp_announce" = 2
  "net.ipv4.tcp_rmem"               = "4096 131072 16777216"
  "kernel.numa_balancing"           = 0
  "vm.swappiness"                   = 10
  "net.core.no_such_key"            = best_effort(1)
}

sysfs = {
  "/sys/kernel/mm/ksm/run"           = "1"
  "/sys/kernel/mm/ksm/pages_to_scan" = "200"
}

cpu {
  governor      = best_effort("performance") # there is no cpufreq here
  force_latency = 20
  allowed_cpus  = { "system.slice" = local.reserved, "user.slice" = local.reserved }
}

irqbalance {
  mode = "disable"
}

nic "uplink" {
  driver   = "virtio_net"
  mtu      = 1400
  channels = { combined = 4 }
  rings    = { rx = 256, tx = 128 }
  features = { "tx-nocache-copy" = true, "tx-tcp-mangleid-segmentation" = true, "rx-fcs" = best_effort(true) }
  irq      = { policy = "spread", cpus = "0-3", numa = "local" }
  rps      = "0-3"
  xps      = "per-queue"

  qdisc "fq" {
    on      = "leaves"
    options = { limit = 20000, flow_limit = 200 }
  }
}

file "/etc/motd.d/nodeprov" {
  content = "tuned by nodeprov\n"
  mode    = "0640"
}

unit "nodeprov-example.service" {
  content = <<-U
    [Unit]
    Description=A unit of the profile

    [Service]
    ExecStart=/bin/sleep infinity

    [Install]
    WantedBy=multi-user.target
  U
  enabled = true
  state   = "started"
}

unit "systemd-logind.service" {
  dropin "50-nodeprov" {
    content = "[Service]\nOOMScoreAdjust=-500\n"
  }
}

check "watch" {
  command = ["systemctl", "is-active", "nodeprov-watch.service"]
  timeout = "10s"
}
