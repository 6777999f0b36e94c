# k3s-server: the tuning of a node that runs the control plane. A K3s server runs
# pods as well, so it is an agent's.

nodeprov {
  schema  = 1
  include = ["builtin://k3s-agent"]
}
