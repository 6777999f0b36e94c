nodeprov {
  schema = 1
}

sysctl = {
  "net.ipv4.ip_forward" = 1
  "net.core.somaxconn"  = 9999
}

cpu {
  force_latency = 10
}

irqbalance {
  mode = "disable"
}

nic "veth" {
  name = "np0"
  mtu  = 9000
}

file "/etc/nodeprov-test.conf" {
  content = "second\n"
  mode    = "0640"
}

unit "nodeprov-test-job.service" {
  content = "[Service]\nExecStart=/bin/sleep infinity\n[Install]\nWantedBy=multi-user.target\n"
  enabled = true
  state   = "started"
}

check "answers" {
  command = ["true"]
}
