nodeprov {
  schema = 1
}
sysctl = {
  "kernel.hostname" = credential("name")
  (credential("k")) = 1
}
sysfs = {
  "/sys/kernel/mm/ksm/run" = tonumber(credential("run"))
}
