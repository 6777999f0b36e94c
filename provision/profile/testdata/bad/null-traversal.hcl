nodeprov { schema = 1 }
variable "a" {
  type    = object({ b = number })
  default = null
}
sysctl = {
  a = var.a.b
  b = 1 + null
  c = 1 / 0
  d = [for x in null : x]
  e = -"x"
}
