package host

import (
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"syscall"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// Qdisc is a queueing discipline that a device sends through.
type Qdisc struct {
	// Kind is "fq", "mq", "noqueue"…
	Kind string
	// Handle is 0 for one that the kernel attached by itself: its leaves cannot be
	// named, and so not be replaced.
	Handle uint32
	// Parent is netlink.HANDLE_ROOT, or the class of another one.
	Parent uint32
	// Options are the kernel's for the kind, as it tells and takes them: attributes
	// for most, a struct for some.
	Options []byte
}

// Qdiscs returns the disciplines that the device of that name sends through: the
// root first, then by parent. A device that never was up has none. What it
// receives through (ingress, clsact) is left out.
func (h *Host) Qdiscs(name string) ([]Qdisc, error) {
	l, err := h.Link(name)
	if err != nil {
		return nil, err
	}
	var msgs [][]byte
	for try := 0; ; try++ {
		req := nl.NewNetlinkRequest(unix.RTM_GETQDISC, unix.NLM_F_DUMP)
		req.AddData(&nl.TcMsg{Family: nl.FAMILY_ALL, Ifindex: int32(l.Index)})
		msgs, err = req.Execute(unix.NETLINK_ROUTE, unix.RTM_NEWQDISC)
		if err == nil {
			break
		}
		if errors.Is(err, nl.ErrDumpInterrupted) && try < 10 {
			continue
		}
		return nil, fmt.Errorf("qdiscs of %s: %w", name, err)
	}
	var qdiscs []Qdisc
	for _, m := range msgs {
		if len(m) < nl.SizeofTcMsg {
			return nil, fmt.Errorf("qdiscs of %s: netlink: short message", name)
		}
		msg := nl.DeserializeTcMsg(m)
		if int(msg.Ifindex) != l.Index || msg.Parent == netlink.HANDLE_INGRESS {
			continue
		}
		attrs, err := nl.ParseRouteAttr(m[nl.SizeofTcMsg:])
		if err != nil {
			return nil, fmt.Errorf("qdiscs of %s: netlink: %w", name, err)
		}
		q := Qdisc{Handle: msg.Handle, Parent: msg.Parent}
		for _, a := range attrs {
			switch a.Attr.Type &^ unix.NLA_F_NESTED {
			case nl.TCA_KIND:
				q.Kind = unix.ByteSliceToString(a.Value)
			case nl.TCA_OPTIONS:
				q.Options = slices.Clone(a.Value)
			}
		}
		qdiscs = append(qdiscs, q)
	}
	slices.SortStableFunc(qdiscs, func(a, b Qdisc) int {
		// The root's parent is the largest number, and the first here.
		if ra, rb := a.Parent == netlink.HANDLE_ROOT, b.Parent == netlink.HANDLE_ROOT; ra != rb {
			if ra {
				return -1
			}
			return 1
		}
		return int(int64(a.Parent) - int64(b.Parent))
	})
	return qdiscs, nil
}

// ReplaceQdisc puts a new q at its parent, with the kernel's values for what its
// options leave out; its Handle does not matter. Packets that wait in the old one
// are lost.
func (h *Host) ReplaceQdisc(name string, q Qdisc) error {
	l, err := h.Link(name)
	if err != nil {
		return err
	}
	qdiscs, err := h.Qdiscs(name)
	if err != nil {
		return err
	}
	// With a handle that no other one has, the kernel makes a new one. Without, it
	// would change one of the same kind that is there, which keeps what options it
	// has from its life before.
	handle := netlink.MakeHandle(1, 0)
	for slices.ContainsFunc(qdiscs, func(q Qdisc) bool { return q.Handle == handle }) {
		handle += netlink.MakeHandle(1, 0)
	}
	req := nl.NewNetlinkRequest(unix.RTM_NEWQDISC, unix.NLM_F_ACK|unix.NLM_F_CREATE|unix.NLM_F_REPLACE)
	req.AddData(&nl.TcMsg{Family: nl.FAMILY_ALL, Ifindex: int32(l.Index), Handle: handle, Parent: q.Parent})
	req.AddData(nl.NewRtAttr(nl.TCA_KIND, nl.ZeroTerminated(q.Kind)))
	if len(q.Options) > 0 {
		req.AddData(nl.NewRtAttr(nl.TCA_OPTIONS, q.Options))
	}
	_, err = req.Execute(unix.NETLINK_ROUTE, 0)
	switch {
	case errors.Is(err, syscall.ENODEV):
		return fmt.Errorf("qdisc %s on %s: the device vanished: %w", q.Kind, name, fs.ErrNotExist)
	case errors.Is(err, syscall.ENOENT):
		return fmt.Errorf("qdisc %s on %s: %w: the kernel has no such kind (its module sch_%[1]s is not there, or not allowed to load)", q.Kind, name, errors.ErrUnsupported)
	case errors.Is(err, syscall.EOPNOTSUPP):
		return fmt.Errorf("qdisc %s on %s: %w (the device has one transmit queue only)", q.Kind, name, err)
	case errors.Is(err, syscall.EINVAL):
		return fmt.Errorf("qdisc %s on %s: %w (an option is out of its range, or this kernel does not have it)", q.Kind, name, err)
	case errors.Is(err, syscall.EPERM):
		return fmt.Errorf("qdisc %s on %s: %w (run as root)", q.Kind, name, err)
	case err != nil:
		return fmt.Errorf("qdisc %s on %s: %w", q.Kind, name, err)
	}
	return nil
}

// ResetQdisc takes away what was put at the device's root, so that the kernel
// attaches what it would have attached by itself. That there was nothing is no error.
func (h *Host) ResetQdisc(name string) error {
	l, err := h.Link(name)
	if err != nil {
		return err
	}
	req := nl.NewNetlinkRequest(unix.RTM_DELQDISC, unix.NLM_F_ACK)
	req.AddData(&nl.TcMsg{Family: nl.FAMILY_ALL, Ifindex: int32(l.Index), Parent: netlink.HANDLE_ROOT})
	_, err = req.Execute(unix.NETLINK_ROUTE, 0)
	// ENOENT: the kernel's own is there, which cannot be deleted.
	if err != nil && !errors.Is(err, syscall.ENOENT) {
		return fmt.Errorf("qdisc of %s: %w", name, err)
	}
	return nil
}
