nodeprov { schema = 1 }
sysctl = {
  a = "${[1]}"
  b = "%{ if 1 }x%{ endif }"
  c = "$${literal} ${missing}"
}
