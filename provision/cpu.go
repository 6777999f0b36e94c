package provision

// cpuKind is the cpu block, which is made of sysfs keys, the latency request and slices.
func cpuKind() Kind {
	return Kind{Name: "cpu"}
}
