nodeprov:
  schema: 1
