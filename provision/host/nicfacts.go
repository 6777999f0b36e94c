package host

// nicFacts tells the network devices of this thread's network namespace, by name;
// loopback is none.
func (h *Host) nicFacts() ([]NICFacts, error) {
	links, err := h.Links()
	if err != nil {
		return nil, err
	}
	nics := []NICFacts{}
	for _, l := range links {
		if l.Loopback {
			continue
		}
		nics = append(nics, NICFacts{
			Name: l.Name, Driver: l.Driver, MAC: l.MAC, MTU: l.MTU, MinMTU: l.MinMTU, MaxMTU: l.MaxMTU,
			Virtual: l.Virtual, Up: l.Up, NUMANode: -1,
		})
	}
	return nics, nil
}
