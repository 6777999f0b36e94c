package host

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"slices"
	"syscall"

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
	// TxQueueLen is in packets; queueing disciplines that have a limit of their own
	// ignore it.
	TxQueueLen int
	// TXQueues is how many transmit queues the device was made with: as many as it
	// can ever use. More than one makes room for an mq.
	TXQueues int
	Segments
}

// Segments are the largest packets in bytes that a device's stack makes and
// takes: BIG TCP where they are more than 65536. A size is 0 where the kernel
// knows none: TSO since Linux 5.19, the IPv4 ones since 6.3.
type Segments struct {
	// TSOMax is the device's own limit of what it segments.
	TSOMax int
	// GSO and GRO are for IPv6, and before Linux 6.3 for IPv4 too.
	GSO, GRO int
	// GSOv4 and GROv4 are for IPv4.
	GSOv4, GROv4 int
}

// Links returns the devices of this thread's network namespace, by name.
func (h *Host) Links() ([]Link, error) {
	if !h.Live() {
		return nil, fmt.Errorf("links: %w", ErrOffline)
	}
	e, err := openEthtool()
	if err != nil {
		return nil, fmt.Errorf("links: %w", err)
	}
	defer e.close()
	return links(e)
}

func links(e *ethtool) ([]Link, error) {
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
	links := make([]Link, 0, len(msgs))
	for _, m := range msgs {
		l, kind, err := parseLink(m)
		if err != nil {
			return nil, fmt.Errorf("links: %w", err)
		}
		l.Driver = e.driver(l.Name, kind)
		links = append(links, l)
	}
	slices.SortFunc(links, func(a, b Link) int { return cmp.Compare(a.Name, b.Name) })
	return links, nil
}

// Link returns the device of that name. The error is fs.ErrNotExist where there
// is none.
func (h *Host) Link(name string) (Link, error) {
	if !h.Live() {
		return Link{}, fmt.Errorf("link %s: %w", name, ErrOffline)
	}
	if len(name) >= unix.IFNAMSIZ {
		return Link{}, fmt.Errorf("link %s: %w", name, fs.ErrNotExist)
	}
	req := nl.NewNetlinkRequest(unix.RTM_GETLINK, 0)
	req.AddData(nl.NewIfInfomsg(unix.AF_UNSPEC))
	req.AddData(nl.NewRtAttr(unix.IFLA_IFNAME, nl.ZeroTerminated(name)))
	msgs, err := req.Execute(unix.NETLINK_ROUTE, unix.RTM_NEWLINK)
	if errors.Is(err, syscall.ENODEV) {
		return Link{}, fmt.Errorf("link %s: %w", name, fs.ErrNotExist)
	}
	if err != nil {
		return Link{}, fmt.Errorf("link %s: %w", name, err)
	}
	if len(msgs) != 1 {
		return Link{}, fmt.Errorf("link %s: the kernel told of %d devices", name, len(msgs))
	}
	l, kind, err := parseLink(msgs[0])
	if err != nil {
		return Link{}, fmt.Errorf("link %s: %w", name, err)
	}
	// The kernel also looks among the alternative names.
	if l.Name != name {
		return Link{}, fmt.Errorf("link %s: %w (it is an alternative name of %s)", name, fs.ErrNotExist, l.Name)
	}
	e, err := openEthtool()
	if err != nil {
		return Link{}, fmt.Errorf("link %s: %w", name, err)
	}
	defer e.close()
	l.Driver = e.driver(name, kind)
	return l, nil
}

// SetMTU sets the MTU of the device of that name, in bytes. On most drivers the
// link goes down and up again, so do not set what is set already.
func (h *Host) SetMTU(name string, mtu int) error {
	l, err := h.Link(name)
	if err != nil {
		return err
	}
	return setLink(l, fmt.Sprintf("MTU %d", mtu), fmt.Sprintf("the device takes %d to %d", l.MinMTU, l.MaxMTU),
		linkNumber{unix.IFLA_MTU, mtu})
}

// SetTxQueueLen sets the length of the device's transmit queue in packets.
func (h *Host) SetTxQueueLen(name string, packets int) error {
	l, err := h.Link(name)
	if err != nil {
		return err
	}
	return setLink(l, fmt.Sprintf("transmit queue length %d", packets), "the kernel or the driver takes no such length",
		linkNumber{unix.IFLA_TXQLEN, packets})
}

// SetSegments sets the sizes of s that are not 0, but for TSOMax, which is the
// device's. Those left at 0 keep their values: a GSO or GRO size of 65536 or less
// makes the kernel set IPv4's too, which are put back in the same message.
func (h *Host) SetSegments(name string, s Segments) error {
	l, err := h.Link(name)
	if err != nil {
		return err
	}
	if s.GSO != 0 && s.GSOv4 == 0 {
		s.GSOv4 = l.GSOv4
	}
	if s.GRO != 0 && s.GROv4 == 0 {
		s.GROv4 = l.GROv4
	}
	var numbers []linkNumber
	// In this order the kernel takes them, whatever theirs in the message is.
	for _, n := range []linkNumber{
		{unix.IFLA_GSO_MAX_SIZE, s.GSO}, {unix.IFLA_GRO_MAX_SIZE, s.GRO},
		{unix.IFLA_GSO_IPV4_MAX_SIZE, s.GSOv4}, {unix.IFLA_GRO_IPV4_MAX_SIZE, s.GROv4},
	} {
		if n.value != 0 {
			numbers = append(numbers, n)
		}
	}
	remedy := "is it more than the kernel takes?"
	if l.TSOMax != 0 {
		remedy = fmt.Sprintf("the device segments at most %d bytes", l.TSOMax)
	}
	return setLink(l, "packet sizes", remedy, numbers...)
}

// linkNumber is a 32-bit attribute of a link.
type linkNumber struct{ attr, value int }

func setLink(l Link, what, invalid string, numbers ...linkNumber) error {
	req := nl.NewNetlinkRequest(unix.RTM_SETLINK, unix.NLM_F_ACK)
	msg := nl.NewIfInfomsg(unix.AF_UNSPEC)
	// By index: the name may be given to another device between the two calls.
	msg.Index = int32(l.Index)
	req.AddData(msg)
	for _, n := range numbers {
		req.AddData(nl.NewRtAttr(n.attr, nl.Uint32Attr(uint32(n.value))))
	}
	_, err := req.Execute(unix.NETLINK_ROUTE, 0)
	switch {
	case errors.Is(err, syscall.ENODEV):
		return fmt.Errorf("link %s: it vanished: %w", l.Name, fs.ErrNotExist)
	case errors.Is(err, syscall.EINVAL), errors.Is(err, syscall.ERANGE):
		return fmt.Errorf("link %s: %s: %w (%s)", l.Name, what, err, invalid)
	case errors.Is(err, syscall.EPERM):
		return fmt.Errorf("link %s: %s: %w (run as root)", l.Name, what, err)
	case err != nil:
		return fmt.Errorf("link %s: %s: %w", l.Name, what, err)
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
		case unix.IFLA_TXQLEN:
			l.TxQueueLen = number()
		case unix.IFLA_NUM_TX_QUEUES:
			l.TXQueues = number()
		case unix.IFLA_TSO_MAX_SIZE:
			l.TSOMax = number()
		case unix.IFLA_GSO_MAX_SIZE:
			l.GSO = number()
		case unix.IFLA_GRO_MAX_SIZE:
			l.GRO = number()
		case unix.IFLA_GSO_IPV4_MAX_SIZE:
			l.GSOv4 = number()
		case unix.IFLA_GRO_IPV4_MAX_SIZE:
			l.GROv4 = number()
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
