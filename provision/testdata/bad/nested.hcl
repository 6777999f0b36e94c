nodeprov {
  schema = 1
}
kernel {
  cmdlin {
    set = { preempt = "none" }
  }
  cmdline {
    sett = { preempt = "none" }
  }
}
nic "uplink" {
  name = "eth0"
  qdisc {}
  qdisc "fq" {}
  qdisc "fq_codel" {}
  sysctl {}
}
