# var token=hunter2
# var tokens=["hunter2"]
nodeprov { schema = 1 }
variable "token" {
  type      = string
  sensitive = true
}
variable "tokens" {
  type      = list(string)
  sensitive = true
}
locals {
  wrapped = { t = var.token }
}
sysctl = {
  "a.a" = tonumber(var.token)
  "a.b" = [for t in var.tokens : tonumber(t)]
  "a.c" = { for t in concat(var.tokens, var.tokens) : t => 1 }
  "a.d" = local.wrapped.tt
  "a.e" = {}[var.token]
  "a.f" = regex("^x", local.wrapped.t)
  "a.g" = try(tonumber(var.token), tobool(var.token))
  "a.h" = [for t in var.tokens : host[t]]
  "a.i" = var.token + 1
  "a.j" = parseint(var.token, 10)
  (var.token) = 1
}
nic "a" { mtu = var.token }
