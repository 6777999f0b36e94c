nodeprov { schema = 1 }
variable "role" { default = "agent" }
locals { region = "eu" }
lbd {
  devices = [eth0]
  mode    = role
  token   = region
}
sysctl = { "net.core.default_qdisc" = fq }
