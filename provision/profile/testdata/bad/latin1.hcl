nodeprov { schema = 1 }
# café
