package provision

// irqbalanceKind stops irqbalance, or tells it which CPUs to leave alone.
func irqbalanceKind() Kind {
	return Kind{Name: "irqbalance"}
}
