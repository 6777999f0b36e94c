package host

import (
	"context"
	"errors"
	"fmt"
	"os"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"
)

// LinkMonitor hears of changes to the network devices of one network namespace:
// devices that appear, links that go down and up (as a reset does), and what
// ethtool can change, of which the kernel tells over generic netlink. Of what is in
// sysfs (RPS, XPS, IRQ affinity) the kernel tells nobody.
type LinkMonitor struct {
	route, ethtool *os.File // ethtool is nil where the kernel has no such group
}

// monitorBuffer is the size in bytes of a socket's queue: room for the events of
// some hundred devices. What does not fit is no loss, see Run.
const monitorBuffer = 1 << 20

// Generic netlink's header, and the attributes of ethtool's messages that name
// the device (linux/ethtool_netlink.h). Each message has its header in attribute 1.
const (
	genlHeader     = 4
	ethtoolHeader  = 1
	ethtoolDevName = 2
)

// MonitorLinks listens in this thread's network namespace. What changes after it
// has returned is told by Run. Close it.
func (h *Host) MonitorLinks() (*LinkMonitor, error) {
	if !h.Live() {
		return nil, fmt.Errorf("link monitor: %w", ErrOffline)
	}
	m := &LinkMonitor{}
	var err error
	if m.route, err = listen(unix.NETLINK_ROUTE, unix.RTNLGRP_LINK); err != nil {
		return nil, fmt.Errorf("link monitor: %w", err)
	}
	// Since Linux 5.6, where it was not left out of the build.
	family, err := netlink.GenlFamilyGet(unix.ETHTOOL_GENL_NAME)
	if errors.Is(err, unix.ENOENT) {
		return m, nil
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("link monitor: ethtool: %w", err), m.Close())
	}
	for _, g := range family.Groups {
		if g.Name == unix.ETHTOOL_MCGRP_MONITOR_NAME {
			if m.ethtool, err = listen(unix.NETLINK_GENERIC, int(g.ID)); err != nil {
				return nil, errors.Join(fmt.Errorf("link monitor: ethtool: %w", err), m.Close())
			}
		}
	}
	return m, nil
}

// listen joins a group. The descriptor is one that Close wakes readers of.
func listen(protocol, group int) (*os.File, error) {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, protocol)
	if err != nil {
		return nil, os.NewSyscallError("socket", err)
	}
	f := os.NewFile(uintptr(fd), "netlink")
	fail := func(what string, err error) (*os.File, error) {
		return nil, errors.Join(os.NewSyscallError(what, err), f.Close())
	}
	// Without CAP_NET_ADMIN the system's limit holds, which does for most.
	if err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, monitorBuffer); err != nil {
		if err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUF, monitorBuffer); err != nil {
			return fail("setsockopt", err)
		}
	}
	if err := unix.Bind(fd, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
		return fail("bind", err)
	}
	// Not by the bits of the address: a generic group's number may be above 32.
	if err := unix.SetsockoptInt(fd, unix.SOL_NETLINK, unix.NETLINK_ADD_MEMBERSHIP, group); err != nil {
		return fail("setsockopt", err)
	}
	return f, nil
}

// Close ends Run too.
func (m *LinkMonitor) Close() error {
	err := m.route.Close()
	if m.ethtool != nil {
		err = errors.Join(err, m.ethtool.Close())
	}
	return err
}

// Run calls changed with the name of a device of which something may have
// changed, and with an empty name when events were lost, so that it may be any
// device. Calls may come at the same time. It returns when ctx ends, and then
// closes the monitor, or with an error.
func (m *LinkMonitor) Run(ctx context.Context, changed func(device string)) error {
	g, ctx := errgroup.WithContext(ctx)
	defer context.AfterFunc(ctx, func() { _ = m.Close() })()
	g.Go(func() error { return receive(ctx, m.route, linkEvent, changed) })
	if m.ethtool != nil {
		g.Go(func() error { return receive(ctx, m.ethtool, ethtoolEvent, changed) })
	}
	if err := g.Wait(); err != nil {
		return fmt.Errorf("link monitor: %w", err)
	}
	return nil
}

// receive reads until ctx ends or f is closed.
func receive(ctx context.Context, f *os.File, device func(m []byte) string, changed func(string)) error {
	// A datagram holds several messages; the kernel makes none larger than this.
	buf := make([]byte, 64<<10)
	for {
		n, err := f.Read(buf)
		switch {
		case ctx.Err() != nil || errors.Is(err, os.ErrClosed):
			return nil //nolint:nilerr // it was asked to end
		case errors.Is(err, unix.ENOBUFS):
			changed("")
			continue
		case err != nil:
			return err
		}
		for rest := buf[:n]; len(rest) >= unix.SizeofNlMsghdr; {
			size := int(nl.NativeEndian().Uint32(rest))
			if size < unix.SizeofNlMsghdr || size > len(rest) {
				changed("") // not understood: look at everything
				break
			}
			if name := device(rest[:size]); name != "" {
				changed(name)
			}
			rest = rest[min(len(rest), (size+unix.NLMSG_ALIGNTO-1)&^(unix.NLMSG_ALIGNTO-1)):]
		}
	}
}

// linkEvent is the device of an rtnetlink message; empty for one that is of no
// interest: a device that went, or a bridge's port.
func linkEvent(m []byte) string {
	if nl.NativeEndian().Uint16(m[4:]) != unix.RTM_NEWLINK || len(m) < unix.SizeofNlMsghdr+unix.SizeofIfInfomsg {
		return ""
	}
	m = m[unix.SizeofNlMsghdr:]
	if m[0] != unix.AF_UNSPEC {
		return ""
	}
	return unix.ByteSliceToString(attribute(m[unix.SizeofIfInfomsg:], unix.IFLA_IFNAME))
}

// ethtoolEvent is the device of an ethtool notification.
func ethtoolEvent(m []byte) string {
	if len(m) < unix.SizeofNlMsghdr+genlHeader {
		return ""
	}
	return unix.ByteSliceToString(attribute(attribute(m[unix.SizeofNlMsghdr+genlHeader:], ethtoolHeader), ethtoolDevName))
}

// attribute is the value of the first attribute of that type; nil for none.
func attribute(b []byte, typ uint16) []byte {
	attrs, err := nl.ParseRouteAttr(b)
	if err != nil {
		return nil
	}
	for _, a := range attrs {
		// The upper two bits are flags: nested, byte order.
		if a.Attr.Type&nl.NLA_TYPE_MASK == typ {
			return a.Value
		}
	}
	return nil
}
