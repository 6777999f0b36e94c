nodeprov { schema = 1 }
sysctl = {
  "a.a" = host.cpu.cuont
  "a.b" = host.kernel.colour
  "a.c" = host.cpus.count
  "a.d" = [for n in host.nics : n.nmae if !n.virtual]
  "a.e" = host.nics[0].max_mut
  "a.f" = host.nics[7].max_mtu
  "a.g" = host.nics.name
}
