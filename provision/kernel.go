package provision

// kernelKind is the kernel block, which is made of modules, sysfs keys and the command line.
func kernelKind() Kind {
	return Kind{Name: "kernel"}
}
