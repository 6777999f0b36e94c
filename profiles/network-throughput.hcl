# network-throughput: throughput-performance, and larger TCP buffers. The values are
# those of tuned's profile of the same name.

nodeprov {
  schema  = 1
  include = ["builtin://throughput-performance"]
}

sysctl = {
  # Bytes that may wait unsent in a socket; the rest stays in the application, which
  # can still change its mind.
  "net.ipv4.tcp_notsent_lowat" = 131072

  # Connections that are idle between requests start slowly after each pause
  # otherwise.
  "net.ipv4.tcp_slow_start_after_idle" = 0

  # Bytes: least, initial, most.
  "net.ipv4.tcp_rmem" = "4096 131072 16777216"
  "net.ipv4.tcp_wmem" = "4096 16384 16777216"
}
