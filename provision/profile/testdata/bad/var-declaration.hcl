nodeprov { schema = 1 }
variable "a" {
  default     = host.arch
  description = 1
  sensitve    = true
  validation {
    condition = true
  }
  validations {}
}
variable "b" {
  default   = max(1, 2)
  sensitive = "perhaps"
}
variable "c" { default = text }
