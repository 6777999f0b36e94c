package provision

// latencyKind limits the C-states by a PM-QoS request that nodeprov-watch holds.
func latencyKind() Kind {
	return Kind{Name: "latency"}
}
