nodeprov { schema = 1 }
sysctl = { "a.a" = frobnicate(1) }
