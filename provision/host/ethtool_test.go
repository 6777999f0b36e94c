package host_test

import (
	"errors"
	"io/fs"
	"net"
	"os"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/nodeprov/nodeprov/internal/testbed"
	"github.com/nodeprov/nodeprov/provision/host"
)

// pair makes np0 and np1, with four queues, in a namespace with its own /sys.
func pair(t *testing.T, f func(*host.Host) error) {
	t.Helper()
	h := live(t)
	testbed.NewNetNS(t).DoWithSysfs(func() error {
		veth := netlink.NewVeth(netlink.LinkAttrs{Name: "np0", NumTxQueues: 4, NumRxQueues: 4, TxQLen: 1000})
		veth.PeerName = "np1"
		if err := netlink.LinkAdd(veth); err != nil {
			return err
		}
		return f(h)
	})
}

func TestEthtool(t *testing.T) {
	pair(t, func(h *host.Host) error {
		c, err := h.Channels("np0")
		if d := cmp.Diff(host.ChannelFacts{RX: 4, TX: 4, MaxRX: 4, MaxTX: 4}, c); d != "" || err != nil {
			t.Errorf("%v %s", err, d)
		}
		c.RX = 2
		if err := h.SetChannels("np0", c); err != nil {
			return err
		}
		if got, err := h.Channels("np0"); got != c || err != nil {
			t.Errorf("%+v %v", got, err)
		}
		if err := h.SetChannels("np0", host.ChannelFacts{RX: 9, TX: 4}); err == nil {
			t.Error("nine channels were set")
		}

		features, err := h.Features("np0")
		if err != nil {
			return err
		}
		if want := (host.Feature{On: false, Fixed: true}); features["rx-lro"] != want {
			t.Errorf("rx-lro: %+v of %d", features["rx-lro"], len(features))
		}
		if want := (host.Feature{On: true}); features["tx-tcp-segmentation"] != want {
			t.Errorf("TSO: %+v", features["tx-tcp-segmentation"])
		}
		if err := h.SetFeature("np0", "tx-tcp-segmentation", false); err != nil {
			return err
		}
		if features, err = h.Features("np0"); features["tx-tcp-segmentation"].On || err != nil {
			t.Errorf("TSO: %+v %v", features["tx-tcp-segmentation"], err)
		}

		for what, err := range map[string]error{
			"rings": second(h.Rings("np0")), "coalesce": second(h.Coalesce("np0")), "rss": second(h.RSS("np0")),
			"feature": h.SetFeature("np0", "rx-grow", true), "set rings": h.SetRings("np0", host.RingFacts{RX: 1}),
			"set rss": h.SetRSS("np0", nil),
		} {
			if !errors.Is(err, errors.ErrUnsupported) {
				t.Errorf("%s: %v", what, err)
			}
		}
		for what, err := range map[string]error{
			"channels": second(h.Channels("np2")), "features": second(h.Features("np2")), "long": second(h.Channels("a-name-of-16-byt")),
		} {
			if !errors.Is(err, fs.ErrNotExist) {
				t.Errorf("%s: %v", what, err)
			}
		}
		return nil
	})
}

// BIG TCP: what is not asked for stays, whatever the kernel makes of the other
// family's size.
func TestSegments(t *testing.T) {
	pair(t, func(h *host.Host) error {
		def := host.Segments{TSOMax: 524280, GSO: 65536, GRO: 65536, GSOv4: 65536, GROv4: 65536}
		for i, step := range []struct{ set, want host.Segments }{
			{host.Segments{}, def},
			{host.Segments{GSOv4: 196608, GROv4: 131072}, host.Segments{TSOMax: 524280, GSO: 65536, GRO: 65536, GSOv4: 196608, GROv4: 131072}},
			{host.Segments{GSO: 196608, GRO: 196608}, host.Segments{TSOMax: 524280, GSO: 196608, GRO: 196608, GSOv4: 196608, GROv4: 131072}},
			{host.Segments{GSO: 65536, GRO: 65536}, host.Segments{TSOMax: 524280, GSO: 65536, GRO: 65536, GSOv4: 196608, GROv4: 131072}},
			{def, def},
		} {
			step.set.TSOMax = 0
			if step.set != (host.Segments{}) {
				if err := h.SetSegments("np0", step.set); err != nil {
					return err
				}
			}
			l, err := h.Link("np0")
			if d := cmp.Diff(step.want, l.Segments); d != "" || err != nil {
				t.Errorf("%d: %v %s", i, err, d)
			}
		}
		err := h.SetSegments("np0", host.Segments{GSO: 600000})
		if err == nil {
			t.Error("600000 bytes were set")
		}
		return nil
	})
}

func TestQueueValues(t *testing.T) {
	pair(t, func(h *host.Host) error {
		for attr, value := range map[host.QueueAttr]string{host.RPSCPUs: "0-1", host.XPSCPUs: "1", host.RPSFlows: "256"} {
			before, err := h.QueueValues("np0", attr)
			if err != nil {
				return err
			}
			if err := h.SetQueueValue("np0", attr, 2, value); err != nil {
				return err
			}
			got, err := h.QueueValues("np0", attr)
			want := append(append(append([]string{}, before[:2]...), value), before[3])
			if d := cmp.Diff(want, got); d != "" || err != nil {
				t.Errorf("%v: %v %s", attr, err, d)
			}
		}
		if err := h.SetLinkAttr("np0", "gro_flush_timeout", "7"); err != nil {
			return err
		}
		if v, err := h.LinkAttr("np0", "gro_flush_timeout"); v != "7" || err != nil {
			t.Errorf("%q %v", v, err)
		}
		for what, err := range map[string]error{
			"attribute": second(h.LinkAttr("np0", "no_such")),
			"queue":     second(h.QueueValues("np0", host.QueueAttr{Dir: "rx", Name: "no_such"})),
		} {
			if !errors.Is(err, errors.ErrUnsupported) {
				t.Errorf("%s: %v", what, err)
			}
		}
		if _, err := h.LinkAttr("np2", "mtu"); !errors.Is(err, fs.ErrNotExist) {
			t.Error(err)
		}
		return nil
	})
}

// A /sys of another network namespace is noticed, not written to.
func TestSysfsOfAnother(t *testing.T) {
	pair(t, func(h *host.Host) error {
		before, err := h.LinkAttr("np0", "gro_flush_timeout")
		if err != nil {
			return err
		}
		// From here, /sys shows the namespace that was ours.
		if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
			return err
		}
		for name, want := range map[string]string{
			"np0": "link np0: the one in /sys is another network namespace's",
			"np9": "link np9: it is not in /sys, which shows another network namespace",
		} {
			veth := netlink.NewVeth(netlink.LinkAttrs{Name: name})
			veth.PeerName = "peer" + name
			if err := netlink.LinkAdd(veth); err != nil {
				return err
			}
			for _, err := range []error{h.SetLinkAttr(name, "gro_flush_timeout", "9"), second(h.QueueValues(name, host.RPSCPUs)), second(h.QueueIRQs(name))} {
				if !strings.HasPrefix(text(err), want) {
					t.Errorf("%s: %v", name, err)
				}
			}
		}
		if b, err := os.ReadFile("/sys/class/net/np0/gro_flush_timeout"); strings.TrimSpace(string(b)) != before || err != nil {
			t.Errorf("%q %v", b, err)
		}
		return nil
	})
}

func TestQdiscs(t *testing.T) {
	pair(t, func(h *host.Host) error {
		text := func() (s []string) {
			qs, err := h.Qdiscs("np0")
			if err != nil {
				t.Error(err)
			}
			for _, q := range qs {
				s = append(s, q.Kind)
			}
			return s
		}
		if got := text(); got != nil {
			t.Errorf("a device that never was up has %v", got)
		}
		if err := netlink.LinkSetUp(&netlink.Device{LinkAttrs: netlink.LinkAttrs{Name: "np0"}}); err != nil {
			return err
		}
		if d := cmp.Diff([]string{"noqueue"}, text()); d != "" {
			t.Error(d)
		}
		if err := h.ReplaceQdisc("np0", host.Qdisc{Kind: "mq", Parent: netlink.HANDLE_ROOT}); err != nil {
			return err
		}
		qs, err := h.Qdiscs("np0")
		if err != nil || len(qs) != 5 || qs[0].Handle == 0 {
			t.Fatalf("%+v %v", qs, err)
		}
		if err := h.ReplaceQdisc("np0", host.Qdisc{Kind: "pfifo", Parent: qs[2].Parent, Options: []byte{7, 0, 0, 0}}); err != nil {
			return err
		}
		if got, err := h.Qdiscs("np0"); err != nil || got[2].Kind != "pfifo" || cmp.Diff([]byte{7, 0, 0, 0}, got[2].Options) != "" {
			t.Errorf("%+v %v", got, err)
		}
		// Of the same kind, it is a new one and not the old one changed.
		if err := h.ReplaceQdisc("np0", host.Qdisc{Kind: "pfifo", Parent: qs[2].Parent}); err != nil {
			return err
		}
		if got, err := h.Qdiscs("np0"); err != nil || cmp.Diff([]byte{0xe8, 3, 0, 0}, got[2].Options) != "" {
			t.Errorf("%+v %v", got, err)
		}
		if err := h.ReplaceQdisc("np0", host.Qdisc{Kind: "no_such", Parent: qs[2].Parent}); !errors.Is(err, errors.ErrUnsupported) {
			t.Error(err)
		}
		// Twice: the second time, there is only the kernel's.
		for range 2 {
			if err := h.ResetQdisc("np0"); err != nil {
				return err
			}
			if d := cmp.Diff([]string{"noqueue"}, text()); d != "" {
				t.Error(d)
			}
		}
		return nil
	})
}

func TestNICFacts(t *testing.T) {
	pair(t, func(h *host.Host) error {
		l, err := netlink.LinkByName("np0")
		if err != nil {
			return err
		}
		if err := netlink.LinkSetUp(l); err != nil {
			return err
		}
		if err := netlink.RouteAdd(&netlink.Route{LinkIndex: l.Attrs().Index, Scope: netlink.SCOPE_LINK, Dst: &net.IPNet{IP: net.IPv4zero, Mask: net.CIDRMask(0, 32)}}); err != nil {
			return err
		}
		f, err := h.Facts(t.Context())
		if err != nil {
			return err
		}
		got := map[string]host.NICFacts{}
		for _, n := range f.NICs {
			n.MAC, n.MTU, n.MinMTU, n.MaxMTU = "", 0, 0, 0
			got[n.Name] = n
		}
		want := host.NICFacts{
			Name: "np0", Driver: "veth", Virtual: true, Up: true, NUMANode: -1, DefaultRoute: true, TSOMaxSize: 524280,
			Channels: host.ChannelFacts{RX: 4, TX: 4, MaxRX: 4, MaxTX: 4},
		}
		if d := cmp.Diff(want, got["np0"]); d != "" {
			t.Error(d)
		}
		if got["np1"].DefaultRoute || got["np1"].Name != "np1" {
			t.Errorf("%+v", got["np1"])
		}
		return nil
	})
}
