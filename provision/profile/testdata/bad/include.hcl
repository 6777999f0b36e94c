nodeprov {
  schema  = 1
  include = ["builtin://base"]
}
