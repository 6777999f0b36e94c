nodeprov {
  schema = 1
}
unit "chrony" {
  enabled = true
}
unit "idle.service" {}
unit "masked.service" {
  masked  = true
  enabled = true
}
unit "own.service" {
  content = "ExecStart=/bin/true"
  enabled = true
}
unit "other.service" {
  state = "running"
  dropin "a/b" {
    content = "[Service]\n"
  }
}
