# A small node profile. `nodeprov init` will write one for your machine.
nodeprov {
  schema = 1
}

variable "mtu" {
  type    = number
  default = 9000
}

match {
  kernel = ">= 5.15"
}

sysctl = {
  "net.core.somaxconn"                 = at_least(4096) # raise, never lower
  "net.ipv4.ip_forward"                = 1
  "net.ipv6.conf.all.forwarding"       = 1
  "net.ipv4.tcp_slow_start_after_idle" = 0
  "net.ipv4.ip_local_port_range"       = "32768 60999"
}

nic "uplink" {
  name = "eth0"
  mtu  = var.mtu
}

lbd {
  manifests     = "/etc/lbd/manifests" # no Kubernetes here
  service       = false                # and no systemd: this sandbox starts it
  service_cidrs = ["10.43.0.0/16", "fd43::/112"]
}
