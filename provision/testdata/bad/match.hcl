nodeprov {
  schema = 1
}
match {
  arch   = ["x86_64"]
  kernel = "5.15 or later"
  distro = "debian"
}
