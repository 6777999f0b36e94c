nodeprov {
  schema  = 1
  include = ["lib/newer.hcl"]
}
