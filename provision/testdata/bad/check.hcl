nodeprov {
  schema = 1
}
check "shell" {
  command = ["systemctl is-active chrony"]
}
check "empty" {
  command = []
}
check "words" {
  command = ["./check.sh"]
  timeout = "soon"
}
check "none" {}
