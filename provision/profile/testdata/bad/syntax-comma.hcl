nodeprov { schema = 1 }
sysctl = {
  "a" = 1 "b" = 2
  'c' = 3
}
