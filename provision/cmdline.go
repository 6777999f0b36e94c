package provision

// cmdlineKind sets arguments of the kernel command line.
func cmdlineKind() Kind {
	return Kind{Name: "cmdline"}
}
