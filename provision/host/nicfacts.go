package host

import (
	"errors"
	"fmt"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// nicFacts tells the network devices of this thread's network namespace, by name;
// loopback is none. A node may have hundreds of them, one for each pod: one dump of
// the links and two of the routes, and a few calls on one socket for each.
func (h *Host) nicFacts() ([]NICFacts, error) {
	if !h.Live() {
		return nil, fmt.Errorf("links: %w", ErrOffline)
	}
	e, err := openEthtool()
	if err != nil {
		return nil, fmt.Errorf("links: %w", err)
	}
	defer e.close()
	links, err := links(e)
	if err != nil {
		return nil, err
	}
	uplinks, err := defaultRoutes()
	if err != nil {
		return nil, err
	}
	nics := []NICFacts{}
	for _, l := range links {
		if l.Loopback {
			continue
		}
		n := NICFacts{
			Name: l.Name, Driver: l.Driver, MAC: l.MAC, MTU: l.MTU, MinMTU: l.MinMTU, MaxMTU: l.MaxMTU,
			Virtual: l.Virtual, Up: l.Up, NUMANode: -1, DefaultRoute: uplinks[l.Index], TSOMaxSize: l.TSOMax,
		}
		// Where /sys shows another network namespace, a virtual device might get the
		// bus of its namesake.
		if !l.Virtual {
			if b, err := h.linkBus(l.Name); err == nil {
				n.PCI, n.NUMANode = b.pci, h.numaNode(b)
			}
		}
		// A driver that has none answers with an error, and so does a device that
		// has just gone: zero tells both.
		n.Channels, _ = e.channels(l.Name)
		n.Rings, _ = e.rings(l.Name)
		nics = append(nics, n)
	}
	return nics, nil
}

// defaultRoutes are the indices of the devices that a default route of the main
// table leads through.
func defaultRoutes() (map[int]bool, error) {
	uplinks := map[int]bool{}
	for _, family := range []int{netlink.FAMILY_V4, netlink.FAMILY_V6} {
		filter := &netlink.Route{Table: unix.RT_TABLE_MAIN} // Dst nil: the default
		var routes []netlink.Route
		for try := 0; ; try++ {
			var err error
			routes, err = netlink.RouteListFiltered(family, filter, netlink.RT_FILTER_TABLE|netlink.RT_FILTER_DST)
			if err == nil {
				break
			}
			if errors.Is(err, netlink.ErrDumpInterrupted) && try < 10 {
				continue
			}
			// A kernel without IPv6.
			if family == netlink.FAMILY_V6 && (errors.Is(err, unix.EAFNOSUPPORT) || errors.Is(err, unix.EOPNOTSUPP)) {
				break
			}
			return nil, fmt.Errorf("routes: %w", err)
		}
		for _, r := range routes {
			// "unreachable default" leads nowhere, though it names loopback.
			if r.Type != unix.RTN_UNICAST {
				continue
			}
			if r.LinkIndex > 0 {
				uplinks[r.LinkIndex] = true
			}
			for _, hop := range r.MultiPath {
				uplinks[hop.LinkIndex] = true
			}
		}
	}
	return uplinks, nil
}
