# host unknown
nodeprov { schema = 1 }
sysctl = {
  "a.a" = at_least(host.cpu.cuont)
  "a.b" = host.nics[0].max_mut
}
