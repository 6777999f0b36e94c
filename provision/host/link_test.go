package host_test

import (
	"errors"
	"fmt"
	"io/fs"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"github.com/vishvananda/netlink"

	"github.com/nodeprov/nodeprov/provision/host"
)

func TestLinks(t *testing.T) {
	h := live(t)
	inNetNS(t, func() error {
		attrs := netlink.NewLinkAttrs()
		attrs.Name, attrs.MTU = "np0", 1400
		if err := netlink.LinkAdd(&netlink.Veth{LinkAttrs: attrs, PeerName: "np1"}); err != nil {
			return err
		}
		if err := netlink.LinkSetUp(&netlink.Device{LinkAttrs: attrs}); err != nil {
			return err
		}
		links, err := h.Links()
		if err != nil {
			return err
		}
		want := []host.Link{
			{Name: "lo", MTU: 65536, MaxMTU: host.MaxMTU, MAC: "00:00:00:00:00:00", Virtual: true, Loopback: true},
			{Name: "np0", MTU: 1400, MinMTU: 68, MaxMTU: 65535, Driver: "veth", Virtual: true, Up: true},
			{Name: "np1", MTU: 1400, MinMTU: 68, MaxMTU: 65535, Driver: "veth", Virtual: true},
		}
		// The kernel makes veths' addresses up, and may have devices of its own
		// in every namespace.
		var got []host.Link
		for _, l := range links {
			if l.Name == "lo" || l.Driver == "veth" {
				if l.Driver == "veth" && len(l.MAC) != len("00:00:00:00:00:00") {
					return fmt.Errorf("%s: MAC %q", l.Name, l.MAC)
				}
				if l.Driver == "veth" {
					l.MAC = ""
				}
				got = append(got, l)
			}
		}
		if d := cmp.Diff(want, got, cmpopts.IgnoreFields(host.Link{}, "Index", "TXQueues", "TxQueueLen", "Segments")); d != "" {
			return errors.New(d)
		}

		for _, mtu := range []int{9000, 68, 1400} {
			if err := h.SetMTU("np0", mtu); err != nil {
				return err
			}
			if l, err := h.Link("np0"); err != nil || l.MTU != mtu {
				return fmt.Errorf("MTU %d, want %d: %w", l.MTU, mtu, err)
			}
		}
		err = h.SetMTU("np0", 10)
		if got, want := text(err), "link np0: MTU 10: invalid argument (the device takes 68 to 65535)"; got != want {
			return fmt.Errorf("got %q, want %q", got, want)
		}
		for _, err := range []error{second(h.Link("np2")), h.SetMTU("np2", 1500)} {
			if !errors.Is(err, fs.ErrNotExist) || err.Error() != "link np2: file does not exist" {
				return fmt.Errorf("np2: %w", err)
			}
		}
		return nil
	})
}

func TestLinksOffline(t *testing.T) {
	h, _ := tree(t, nil)
	for what, err := range map[string]error{
		"links":   second(h.Links()),
		"link":    second(h.Link("lo")),
		"mtu":     h.SetMTU("lo", 1500),
		"facts":   second(h.Facts(t.Context())),
		"systemd": second(h.Systemd(t.Context())),
	} {
		if !errors.Is(err, host.ErrOffline) {
			t.Errorf("%s: %v", what, err)
		}
	}
}
