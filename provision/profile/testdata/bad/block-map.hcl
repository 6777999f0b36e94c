nodeprov { schema = 1 }
sysctl {
  swappiness = 10
}
