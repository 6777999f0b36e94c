nodeprov { schema = 1 }
lbd { mod = "a[31m" }
