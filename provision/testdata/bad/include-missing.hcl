nodeprov {
  schema  = 1
  include = ["common.hcl", "builtin://bass"]
}
