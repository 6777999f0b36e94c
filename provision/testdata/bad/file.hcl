nodeprov {
  schema = 1
}
file "etc/motd" {
  content = "x"
}
file "/etc/../root/.profile" {
  content = "x"
}
file "/etc/empty" {}
file "/etc/both" {
  content        = "x"
  content_base64 = "eA=="
  mode           = "rw-r--r--"
}
file "/etc/gone" {
  state   = "absent"
  content = "x"
}
file "/etc/secret" {
  content = credential("secret")
}
