nodeprov {
  schema = 1
}
sysfs = {
  "/sys/../etc/passwd"        = "0"
  "/proc/sys/vm/swappiness"   = 10
  "kernel/mm/ksm/run"         = 0
  "/sys/kernel/mm/ksm/run"    = "0\n"
  "/sys//kernel/mm/ksm/sleep" = null
}
