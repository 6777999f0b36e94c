nodeprov { schema = 2 }
frobnicate {}
