nodeprov { schema = 1 }
match {
  arch   = ["x86_64"]
  kernel = "newer than 5.15"
  distro = "debian"
}
