nodeprov { schema = 1 }
match {
  arch   = ["arm64", "riscv64"]
  kernel = ">= 6.6, < 7.0"
}
