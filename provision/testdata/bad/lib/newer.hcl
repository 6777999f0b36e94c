nodeprov {
  schema = 2
}
quantum "tunnel" {}
