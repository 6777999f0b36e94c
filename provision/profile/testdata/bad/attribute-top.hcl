nodeprov { schema = 1 }
sysctls = {}
nic     = { mtu = 1500 }
locals  = { a = 1 }
foobar  = 3
