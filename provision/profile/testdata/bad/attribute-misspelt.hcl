nodeprov { schema = 1 }

nic "uplink" {
  mtuu       = 9000
  mtu        = 1500
  onmissing  = "skip"
  zzz        = 1
}
