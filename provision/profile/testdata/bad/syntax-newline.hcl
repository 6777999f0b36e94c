nodeprov { schema = 1 include = [] }
