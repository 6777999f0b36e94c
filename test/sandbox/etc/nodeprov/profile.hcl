# A small node profile. `nodeprov init` writes one for your machine.
nodeprov {
  schema  = 1
  include = ["network.hcl"]
}

variable "mtu" {
  type    = number
  default = 9000
}

match {
  kernel = ">= 5.15"
}

locals {
  housekeeping = cpulist_first_cores(host.cpu, 1)
  uplinks      = { for n in host.nics : n.name => n if n.name == "eth0" }
}

sysctl = {
  "net.core.somaxconn"              = at_least(8192)     # raise, never lower; the include says 4096
  "net.ipv4.conf.*.rp_filter"       = 0                  # of devices that come later, too
  "net.ipv4.tcp_congestion_control" = best_effort("bbr") # reported where the kernel has none
}

nic "uplink" {
  for_each = local.uplinks
  name     = each.key
  mtu      = min(var.mtu, each.value.max_mtu)
  big_tcp  = { ipv6 = 196608, ipv4 = best_effort(196608), clamp = true }
  xps      = "per-queue"
  rps      = local.housekeeping

  qdisc "pfifo" {
    options = { limit = 2000 }
  }
}

file "/etc/motd.d/nodeprov" {
  content = "tuned by nodeprov\n"
}

check "backends" {
  command = ["ip", "route", "get", "10.42.0.10"]
}

lbd {
  manifests     = "/etc/lbd/manifests" # no Kubernetes here
  service       = false                # and no systemd: this sandbox starts it
  service_cidrs = ["10.43.0.0/16", "fd43::/112"]
}
