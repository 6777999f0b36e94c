nodeprov { schema = 1 }
match {}
