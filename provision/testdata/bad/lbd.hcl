nodeprov {
  schema = 1
}
lbd {
  service_cidrs = ["10.43.0.0", "10.42.1.0/24"]
  log_level     = "verbose"
}
