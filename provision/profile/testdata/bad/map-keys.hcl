nodeprov { schema = 1 }
sysctl = {
  (null)   = 1
  ([1])    = 1
  (var.x)  = 1
  "a${host.missing}" = 1
}
