# var token=hunter2
# var number=hunter2
nodeprov { schema = 1 }
variable "token" {
  type      = string
  sensitive = true
  validation {
    condition     = length(var.token) > 20
    error_message = "${var.token} is too short."
  }
  validation {
    condition     = startswith(var.token, "K")
    error_message = "It must start with K."
  }
}
variable "number" {
  type      = number
  sensitive = true
}
