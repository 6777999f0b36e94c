nodeprov {
  schema = 1
}
kernel {
  modules    = ["tcp_bbr", "sch fq", "/lib/x.ko", "tcp-bbr"]
  thp        = "sometimes"
  thp_defrag = "on"
  hugepages "2 megs" {
    count = 4
  }
  hugepages "2M" {
    count = 4
    nodes = { "0" = 2 }
  }
  hugepages "1G" {
    nodes = { first = 2 }
  }
}
