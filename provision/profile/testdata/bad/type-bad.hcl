nodeprov { schema = 1 }
variable "a" { type = strnig }
variable "b" { type = "string" }
variable "c" { type = list }
variable "d" { type = map(object({ a = int })) }
variable "e" {
  type    = number
  default = "many"
}
variable "f" {
  type    = object({ a = optional(number, "x") })
  default = {}
}
variable "g" {
  type    = list(number)
  default = [1, "x"]
}
