nodeprov {}
