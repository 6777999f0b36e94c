nodeprov {
  schema  = 1
  include = ["first.hcl"]
}
