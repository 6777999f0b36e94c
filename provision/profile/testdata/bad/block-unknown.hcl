nodeprov { schema = 1 }
variabel "x" {}
nick "a" {}
kernel {
  thp = "madvise"
}
nic "a" {
  mtu = 1
  qdisc "fq" {}
  mtu {}
}
