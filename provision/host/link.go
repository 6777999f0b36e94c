package host

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"slices"
	"syscall"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// MaxMTU is the largest MTU in bytes: IPv4's total length has 16 bits.
const MaxMTU = 65535

// Link is a network device, as the kernel tells over netlink and ethtool.
type Link struct {
	Name  string
	Index int
	// MTU is in bytes, and so are the limits. MinMTU is 0 where the device
	// states none, MaxMTU is the constant MaxMTU then.
	MTU, MinMTU, MaxMTU int
	// Driver is "virtio_net", "veth", "bridge"…, empty where none is told.
	Driver string
	// MAC is in lower case with colons, empty for a device without one.
	MAC string
	// Virtual devices have no hardware or bus behind them: veth, bridge, VLAN.
	Virtual bool
	// Up is the administrative state, not the carrier.
	Up       bool
	Loopback bool
}

// Links returns the devices of this thread's network namespace, by name.
func (h *Host) Links() ([]Link, error) {
	if !h.Live() {
		return nil, fmt.Errorf("links: %w", ErrOffline)
	}
	var msgs [][]byte
	for try := 0; ; try++ {
		req := nl.NewNetlinkRequest(unix.RTM_GETLINK, unix.NLM_F_DUMP)
		req.AddData(nl.NewIfInfomsg(unix.AF_UNSPEC))
		var err error
		msgs, err = req.Execute(unix.NETLINK_ROUTE, unix.RTM_NEWLINK)
		if err == nil {
			break
		}
		// A device came or went while the kernel was listing them.
		if errors.Is(err, nl.ErrDumpInterrupted) && try < 10 {
			continue
		}
		return nil, fmt.Errorf("links: %w", err)
	}
	sock, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("links: ethtool socket: %w", err)
	}
	defer unix.Close(sock)
	links := make([]Link, 0, len(msgs))
	for _, m := range msgs {
		l, kind, err := parseLink(m)
		if err != nil {
			return nil, fmt.Errorf("links: %w", err)
		}
		// Not all devices answer; the link's kind is the driver's name for
		// those that are software.
		l.Driver = kind
		if info, err := unix.IoctlGetEthtoolDrvinfo(sock, l.Name); err == nil {
			if d := unix.ByteSliceToString(info.Driver[:]); d != "" {
				l.Driver = d
			}
		}
		links = append(links, l)
	}
	slices.SortFunc(links, func(a, b Link) int { return cmp.Compare(a.Name, b.Name) })
	return links, nil
}

// Link returns the device of that name. The error is fs.ErrNotExist where there
// is none.
func (h *Host) Link(name string) (Link, error) {
	// The whole list: asking for one by name is told apart from its alternative
	// names by length only.
	links, err := h.Links()
	if err != nil {
		return Link{}, err
	}
	for _, l := range links {
		if l.Name == name {
			return l, nil
		}
	}
	return Link{}, fmt.Errorf("link %s: %w", name, fs.ErrNotExist)
}

// SetMTU sets the MTU of the device of that name, in bytes. On most drivers the
// link goes down and up again, so do not set what is set already.
func (h *Host) SetMTU(name string, mtu int) error {
	l, err := h.Link(name)
	if err != nil {
		return err
	}
	// By index: the name may be given to another device between the two calls.
	err = netlink.LinkSetMTU(&netlink.Device{LinkAttrs: netlink.LinkAttrs{Index: l.Index}}, mtu)
	switch {
	case errors.Is(err, syscall.ENODEV):
		return fmt.Errorf("link %s: it vanished: %w", name, fs.ErrNotExist)
	case errors.Is(err, syscall.EINVAL):
		return fmt.Errorf("link %s: MTU %d: %w (the device takes %d to %d)", name, mtu, err, l.MinMTU, l.MaxMTU)
	case errors.Is(err, syscall.EPERM):
		return fmt.Errorf("link %s: MTU %d: %w (run as root)", name, mtu, err)
	case err != nil:
		return fmt.Errorf("link %s: MTU %d: %w", name, mtu, err)
	}
	return nil
}

// parseLink reads an RTM_NEWLINK message; kind is rtnetlink's name for software
// devices. The netlink library's own parser leaves the limits of the MTU out.
func parseLink(m []byte) (l Link, kind string, err error) {
	if len(m) < unix.SizeofIfInfomsg {
		return Link{}, "", errors.New("netlink: short link message")
	}
	info := nl.DeserializeIfInfomsg(m)
	attrs, err := nl.ParseRouteAttr(m[info.Len():])
	if err != nil {
		return Link{}, "", fmt.Errorf("netlink: link message: %w", err)
	}
	l = Link{
		Index:    int(info.Index),
		Up:       info.Flags&unix.IFF_UP != 0,
		Loopback: info.Flags&unix.IFF_LOOPBACK != 0,
		Virtual:  true,
	}
	for _, a := range attrs {
		number := func() int {
			if len(a.Value) < 4 {
				return 0
			}
			return int(nl.NativeEndian().Uint32(a.Value))
		}
		switch a.Attr.Type {
		case unix.IFLA_IFNAME:
			l.Name = unix.ByteSliceToString(a.Value)
		case unix.IFLA_MTU:
			l.MTU = number()
		case unix.IFLA_MIN_MTU:
			l.MinMTU = number()
		case unix.IFLA_MAX_MTU:
			l.MaxMTU = number()
		case unix.IFLA_ADDRESS:
			l.MAC = net.HardwareAddr(a.Value).String()
		case unix.IFLA_PARENT_DEV_NAME: // since Linux 5.14
			l.Virtual = false
		case unix.IFLA_LINKINFO:
			nested, err := nl.ParseRouteAttr(a.Value)
			if err != nil {
				return Link{}, "", fmt.Errorf("netlink: link kind: %w", err)
			}
			for _, n := range nested {
				if n.Attr.Type == unix.IFLA_INFO_KIND {
					kind = unix.ByteSliceToString(n.Value)
				}
			}
		}
	}
	// 0 is the kernel's way to say that there is no limit, and more than MaxMTU
	// (loopback's and some tunnels') is of no use to IPv4.
	if l.MaxMTU == 0 || l.MaxMTU > MaxMTU {
		l.MaxMTU = MaxMTU
	}
	return l, kind, nil
}
