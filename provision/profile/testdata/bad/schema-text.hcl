nodeprov { schema = "1" }
