# var rol=agent
# var missing=1
# lenient other=1
nodeprov { schema = 1 }
variable "role" { type = string }
lbd { mode = var.roel }
