package provision

import (
	"encoding/binary"
	"strings"
	"testing"

	gocmp "github.com/google/go-cmp/cmp"
	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"

	"github.com/nodeprov/nodeprov/provision/host"
)

// options are attributes as the kernel tells them.
func attributes(pairs ...uint32) (b []byte) {
	for i := 0; i < len(pairs); i += 2 {
		value := binary.NativeEndian.AppendUint32(nil, pairs[i+1])
		if pairs[i] == 15 { // fq's horizon_drop has 8 bits
			value = value[:1]
		}
		b = append(b, nl.NewRtAttr(int(pairs[i]), value).Serialize()...)
	}
	return b
}

// What `tc qdisc show` would print, from what the kernel tells: options at their
// defaults are not there, and what is there makes the same options again.
func TestLeafText(t *testing.T) {
	const none = 1<<32 - 1
	fq := []uint32{1, 10000, 2, 100, 3, 3028, 4, 15140, 5, 1, 7, none, 8, 10, 9, 40000, 10, 1023, 11, 68750, 12, none, 13, 10000, 14, 10_000_000, 15, 1}
	ether := host.Link{Name: "eth0", MTU: 1500, TxQueueLen: 1000}
	for _, tc := range []struct {
		name string
		q    host.Qdisc
		l    host.Link
		want string
	}{
		{"fq", host.Qdisc{Kind: "fq", Options: attributes(fq...)}, ether, "fq"},
		{"fq of another kernel", host.Qdisc{Kind: "fq", Options: attributes(append(fq, 18, 7)...)}, ether, "fq"},
		{"fq made at another MTU", host.Qdisc{Kind: "fq", Options: attributes(fq...)}, host.Link{MTU: 9000}, "fq quantum=3028 initial_quantum=15140"},
		{"fq on a VLAN", host.Qdisc{Kind: "fq", Options: attributes(3, 3036, 4, 15180)}, ether, "fq"},
		{"fq with options", host.Qdisc{Kind: "fq", Options: attributes(1, 20000, 3, 9000, 5, 0, 7, 125_000_000, 15, 0)}, ether,
			"fq limit=20000 quantum=9000 pacing=off maxrate=1000000000 horizon_drop=off"},
		{"fq_codel", host.Qdisc{Kind: "fq_codel", Options: attributes(1, 4999, 2, 10240, 3, 99999, 4, 1, 5, 1024, 6, 1514, 8, 64, 9, 32<<20)}, ether, "fq_codel"},
		{"fq_codel with options", host.Qdisc{Kind: "fq_codel", Options: attributes(1, 1999, 3, 99999, 4, 0)}, ether, "fq_codel target=2000 ecn=off"},
		{"fq_codel that marks all", host.Qdisc{Kind: "fq_codel", Options: attributes(7, 0)}, ether, "fq_codel ce_threshold=0"},
		{"bfifo without a queue", host.Qdisc{Kind: "bfifo", Options: binary.NativeEndian.AppendUint32(nil, 0)}, host.Link{MTU: 1500}, "bfifo"},
		{"pfifo", host.Qdisc{Kind: "pfifo", Options: binary.NativeEndian.AppendUint32(nil, 1000)}, ether, "pfifo"},
		{"pfifo with a limit", host.Qdisc{Kind: "pfifo", Options: binary.NativeEndian.AppendUint32(nil, 7)}, ether, "pfifo limit=7"},
		{"bfifo", host.Qdisc{Kind: "bfifo", Options: binary.NativeEndian.AppendUint32(nil, 1514000)}, ether, "bfifo"},
		{"pfifo_fast", host.Qdisc{Kind: "pfifo_fast", Options: []byte{3, 0, 0, 0, 1, 2}}, ether, "pfifo_fast"},
		{"noqueue", host.Qdisc{Kind: "noqueue"}, ether, "noqueue"},
		{"another", host.Qdisc{Kind: "htb", Options: []byte{1, 2, 0xff}}, ether, "htb raw=0102ff"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			f, err := leafOf(tc.q)
			if got := f.text(tc.l); got != tc.want || err != nil {
				t.Fatalf("got %q, want %q (%v)", got, tc.want, err)
			}
			f, err = parseLeaf(tc.want)
			if got := f.text(tc.l); got != tc.want || err != nil {
				t.Errorf("again: %q %v", got, err)
			}
			// The kernel keeps what it is given, but for times.
			if tc.q.Kind == "fq_codel" {
				return
			}
			f, err = leafOf(f.qdisc(1))
			if got := f.text(tc.l); got != tc.want || err != nil {
				t.Errorf("from the kernel: %q %v", got, err)
			}
		})
	}
	for _, bad := range []string{"", "fq limits=3", "fq limit=x", "fq limit=4294967296", "fq pacing=1", "htb raw=x", "pfifo_fast limit=3"} {
		if q, err := parseLeaf(bad); err == nil {
			t.Errorf("%q is %+v", bad, q)
		}
	}
}

// What the kernel refuses, or makes something else of, is told at the value: it
// would never read back.
func TestQdiscOptionRange(t *testing.T) {
	f := &host.Facts{NICs: []host.NICFacts{{Name: "eth0", MaxMTU: 9000}}}
	for _, tc := range []struct{ kind, option, want string }{
		{"fq", "quantum = 0", "A whole number from 1 to 1048576 is needed, and 0 is not."},
		{"fq", "initial_quantum = 2147483648", "A whole number from 0 to 2147483647 is needed, and 2147483648 is not."},
		{"fq", "buckets_log = 19", "A whole number from 1 to 18 is needed, and 19 is not."},
		{"fq", "refill_delay = 50000", "The kernel counts it in its ticks and would round 50000: write a multiple of 20000, as 40000."},
		{"fq", "refill_delay = 60000", ""},
		{"fq", "maxrate = 34359738361", "A whole number from 0 to 34359738360 is needed, and 34359738361 is not."},
		{"fq_codel", "quantum = 255", "A whole number from 256 to 1048576 is needed, and 255 is not."},
		{"fq_codel", "flows = 65537", "A whole number from 1 to 65536 is needed, and 65537 is not."},
		{"fq_codel", "drop_batch = 0", "A whole number from 1 to 4294967295 is needed, and 0 is not."},
		{"fq_codel", "memory_limit = 2147483649", "A whole number from 0 to 2147483648 is needed, and 2147483649 is not."},
		{"fq_codel", "ce_threshold = 0", ""},
	} {
		p := evaluate(t, "nic \"a\" {\n  name = \"eth0\"\n  qdisc \""+tc.kind+"\" {\n    options = { "+tc.option+" }\n  }\n}", f.Value())
		_, diags := (&Engine{Kinds: Kinds()}).Desired(p, f, PhaseAll)
		got := ""
		for _, d := range diags {
			got += d.Detail
		}
		if got != tc.want {
			t.Errorf("%s %s: %q, want %q", tc.kind, tc.option, got, tc.want)
		}
	}
}

// Times that the kernel rounds read back as what it makes of them.
func TestCodelTime(t *testing.T) {
	for us := uint64(0); us < 200_000; us += 7 {
		told := (us * 1000 >> 10) << 10 / 1000 // codel_time_to_us of what us was made
		if got := codelMicroseconds((told*1000 + 1023) >> 10); got != codelTime(us) {
			t.Fatalf("%d us: told %d, read as %d, wanted as %d", us, told, got, codelTime(us))
		}
	}
	if got := codelTime(5000); got != 5000 {
		t.Errorf("5 ms is %d us", got)
	}
}

func TestSameQdiscs(t *testing.T) {
	l := host.Link{MTU: 1500, TxQueueLen: 1000}
	for _, tc := range []struct {
		live, want string
		same       bool
	}{
		{"mq [fq]", "mq [fq]", true},
		{"mq [fq]", "fq", false},
		{"mq [fq | pfifo]", "mq [fq]", false},
		{"mq [fq]", "mq [fq | pfifo]", false},
		{"mq [fq | pfifo | pfifo]", "mq [fq | pfifo]", true},
		{"mq [fq | pfifo]", "mq [fq | pfifo | pfifo | fq]", true},
		{"mq [pfifo]", "mq [pfifo limit=1000]", true},
		{"fq", "fq quantum=3028", true},
		{"fq", "fq quantum=3029", false},
	} {
		if got := sameQdiscs(tc.live, tc.want, l); got != tc.same {
			t.Errorf("%s, %s: %t", tc.live, tc.want, got)
		}
	}
}

// Roots and leaves on the kernel, made by others and put back.
func TestQdiscKernel(t *testing.T) {
	vethPair(t, func(h *host.Host) error {
		s := nicQdisc("np0")
		l, err := netlink.LinkByName("np0")
		if err != nil {
			return err
		}
		read := func() string {
			v, err := s.Read(t.Context(), h)
			if err != nil {
				t.Error(err)
			}
			return v.Text
		}
		write := func(text string) {
			t.Helper()
			if err := s.Write(t.Context(), h, Value{Text: text}); err != nil {
				t.Error(err)
			}
			if got := read(); got != text {
				t.Errorf("got %q, want %q", got, text)
			}
		}
		if got := read(); got != "noqueue" {
			t.Error(got)
		}
		write("mq [pfifo limit=9]")
		write("mq [pfifo limit=9 | bfifo | pfifo_fast | pfifo]")
		write("mq [bfifo]")
		write("pfifo limit=7")
		write("pfifo") // no option of before remains
		write("noqueue")

		htb := netlink.NewHtb(netlink.QdiscAttrs{LinkIndex: l.Attrs().Index, Handle: netlink.MakeHandle(1, 0), Parent: netlink.HANDLE_ROOT})
		if err := netlink.QdiscReplace(htb); err != nil {
			return err
		}
		foreign := read()
		if !strings.HasPrefix(foreign, "htb raw=") {
			t.Error(foreign)
		}
		if got, want := s.Inexact(Value{Text: foreign}, Value{Text: "mq [fq]"}), "classes and filters of htb are lost, if it has any"; got != want {
			t.Errorf("%q", got)
		}
		write("mq [pfifo]")
		// The kernel does not take htb's options as it tells them.
		if err := s.Write(t.Context(), h, Value{Text: foreign}); err != nil {
			t.Error(err)
		}
		if got := read(); got != "noqueue" {
			t.Error(got)
		}
		tbf := &netlink.Tbf{QdiscAttrs: htb.QdiscAttrs, Rate: 1 << 20, Limit: 1 << 16, Buffer: 1 << 20}
		if err := netlink.QdiscReplace(tbf); err != nil {
			return err
		}
		foreign = read()
		write("mq [pfifo]")
		write(foreign)
		write("noqueue")

		// What the kernel has not is told.
		err = s.Write(t.Context(), h, Value{Text: "mq [no_such]"})
		if err == nil || !strings.Contains(err.Error(), "no such kind") {
			t.Error(err)
		}
		if err := netlink.LinkSetDown(l); err != nil {
			return err
		}
		write("mq [pfifo]")
		if err := h.ResetQdisc("np0"); err != nil {
			return err
		}
		if d := gocmp.Diff(noDiscipline, read()); d != "" {
			t.Error(d)
		}
		return nil
	})
}
