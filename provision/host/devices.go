package host

import (
	"fmt"
	"net"
	"slices"
)

// Devices are the names of the network devices of this thread's network namespace,
// sorted. A tree of files has none.
func (h *Host) Devices() ([]string, error) {
	if !h.Live() {
		return nil, nil
	}
	ifs, err := net.Interfaces()
	if err != nil {
		return nil, fmt.Errorf("network devices: %w", err)
	}
	names := make([]string, 0, len(ifs))
	for _, i := range ifs {
		names = append(names, i.Name)
	}
	slices.Sort(names)
	return names, nil
}
