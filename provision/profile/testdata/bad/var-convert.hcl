# var count=many
# var list=[1
# var ref=host.arch
# var any=agent
# var obj={a="x"}
nodeprov { schema = 1 }
variable "count" { type = number }
variable "list"  { type = list(string) }
variable "ref"   { type = list(string) }
variable "any"   {}
variable "obj"   { type = object({ a = number }) }
sysctl = { "a" = var.count + 1 }
