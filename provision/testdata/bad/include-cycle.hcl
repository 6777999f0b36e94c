nodeprov {
  schema  = 1
  include = ["lib/first.hcl"]
}
