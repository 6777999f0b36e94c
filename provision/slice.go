package provision

// sliceKind confines slices to CPUs.
func sliceKind() Kind {
	return Kind{Name: "slice"}
}
