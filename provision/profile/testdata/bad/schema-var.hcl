nodeprov { schema = var.x }
