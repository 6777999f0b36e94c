nodeprov { schema = 1 }
variable "a" { default = 1 }
sysctl = {
  a = var
  b = var[0]
  c = vars.a
  d = variable.a
  e = each.key
}
