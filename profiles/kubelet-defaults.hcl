# kubelet-defaults: what kubelet --protect-kernel-defaults insists on, and nothing
# else. Set before K3s starts, or kubelet refuses to.

nodeprov {
  schema = 1
}

sysctl = {
  # kubelet --protect-kernel-defaults: it refuses to start, or sets these itself,
  # where they differ. Source: setupKernelTunables in Kubernetes,
  # pkg/kubelet/cm/container_manager_linux.go, with the values of
  # component-helpers/node/util/sysctl.
  "vm.overcommit_memory"      = 1        # always: requests and limits are the scheduler's
  "vm.panic_on_oom"           = 0        # kill a container, not the node
  "kernel.panic"              = 10       # seconds until a node that panicked reboots
  "kernel.panic_on_oops"      = 1        # an oops may have left locks held
  "kernel.keys.root_maxkeys"  = 1000000  # runc makes a keyring for each container
  "kernel.keys.root_maxbytes" = 25000000 # root_maxkeys times 25 bytes
}
