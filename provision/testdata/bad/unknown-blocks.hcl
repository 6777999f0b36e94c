nodeprov {
  schema = 1
}
nics "uplink" {
  name = "eth0"
}
sysctl {
  swappiness = 10
}
cpu "all" {
  govenor = "performance"
}
sysfs "ksm" {}
kernel = {}
