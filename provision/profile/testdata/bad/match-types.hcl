nodeprov { schema = 1 }
match {
  arch   = "amd64"
  kernel = [5.15]
}
