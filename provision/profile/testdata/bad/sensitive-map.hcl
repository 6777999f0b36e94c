# var m={"hunter2"=1}
nodeprov { schema = 1 }
variable "m" {
  type      = map(number)
  sensitive = true
}
sysctl = var.m
match { arch = keys(var.m) }
