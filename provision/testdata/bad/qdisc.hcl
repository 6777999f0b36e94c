nodeprov {
  schema = 1
}
nic "uplink" {
  name = "eth0"
  qdisc "fq" {
    on      = "leafs"
    options = { flowlimit = 100 }
  }
}
nic "other" {
  name = "eth1"
  qdisc "sfqq" {}
}
nic "third" {
  name = "eth2"
  qdisc "fq" {
    options = [100]
  }
}
