nodeprov {
  schema = 1
}
locals {
  backwards = cpulist_len("7-4")
  words     = cpulist_union("0-3", "all")
  huge      = cpulist_len("0-100000")
  few       = cpulist_first("0-3", 8)
  facts     = cpulist_first_cores(host.memory, 2)
  list      = cpulist_sub("0-7", [0, 1])
}
