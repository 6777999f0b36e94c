package provision

// moduleKind loads kernel modules.
func moduleKind() Kind {
	return Kind{Name: "module"}
}
