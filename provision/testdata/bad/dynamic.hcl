nodeprov {
  schema = 1
}
nic "uplink" {
  name = "eth0"
  dynamic "qdsic" {
    for_each = ["fq"]
    labels   = [qdsic.value]
    content {}
  }
  dynamic "qdisc" {
    for_each = ["fq"]
  }
  dynamic "qdisc" {
    for_each = ["fq"]
    iterator = "item"
    labels   = ["fq", "fq_codel"]
    content {}
  }
}
dynamic "nic" {
  for_each = ["eth0"]
  content {}
}
