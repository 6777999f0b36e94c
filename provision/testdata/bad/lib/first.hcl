nodeprov {
  schema  = 1
  include = ["second.hcl"]
}
