nodeprov { schema = 1 }
