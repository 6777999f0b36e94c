nodeprov {
  schema = 1
}
locals {
  missing  = file("none.txt")
  template = templatefile("lib/motd.tmpl", { nam = "x" })
  outside  = path.module
}
