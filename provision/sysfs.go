package provision

// sysfsKind sets keys below /sys.
func sysfsKind() Kind {
	return Kind{Name: "sysfs"}
}
