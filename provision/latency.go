package provision

// LatencyFile holds the limit of the CPUs' wake-up latency that nodeprov-watch is
// to hold as a PM-QoS request: microseconds in decimal and a newline. Without the
// file there is no request.
const LatencyFile = "/run/nodeprov/cpu-latency"

// latencyKind limits the C-states by a PM-QoS request that nodeprov-watch holds.
func latencyKind() Kind {
	return Kind{Name: "latency"}
}
