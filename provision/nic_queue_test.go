package provision

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	gocmp "github.com/google/go-cmp/cmp"
	"k8s.io/utils/cpuset"

	"github.com/nodeprov/nodeprov/provision/host"
)

// Two nodes of two cores of two threads, the second threads numbered behind, as on
// most machines.
func twoNodes() host.CPUFacts {
	f := host.CPUFacts{Count: 8, Online: "0-7", NUMA: []host.NUMAFacts{{ID: 0, CPUs: "0-1,4-5"}, {ID: 1, CPUs: "2-3,6-7"}}}
	for id := range 8 {
		f.Threads = append(f.Threads, host.ThreadFacts{ID: id, Core: id % 2, Node: id / 2 % 2, Socket: id / 2 % 2, Siblings: fmt.Sprintf("%d,%d", id%4, id%4+4)})
	}
	return f
}

func TestOrderCPUs(t *testing.T) {
	for _, tc := range []struct {
		among string
		node  int
		want  []int
	}{
		{"0-7", 1, []int{2, 3, 6, 7, 0, 1, 4, 5}},
		{"0-7", 0, []int{0, 1, 4, 5, 2, 3, 6, 7}},
		{"0-7", -1, []int{0, 1, 2, 3, 4, 5, 6, 7}},
		// Alone in the set, a second thread is as good as a first.
		{"1,4,6", 0, []int{1, 4, 6}},
		{"0,4-5", 0, []int{0, 5, 4}},
		{"0,4", 3, []int{0, 4}},
	} {
		set, err := cpuset.Parse(tc.among)
		if err != nil {
			t.Fatal(err)
		}
		if d := gocmp.Diff(tc.want, orderCPUs(twoNodes(), set, tc.node)); d != "" {
			t.Errorf("%s on node %d: %s", tc.among, tc.node, d)
		}
	}
}

// What the block makes of the queues that a device has.
func TestQueueWants(t *testing.T) {
	f := &host.Facts{CPU: twoNodes(), NICs: []host.NICFacts{{Name: "eth0", MaxMTU: 9000, NUMANode: 1}}}
	const irqs = "input.0:0-7 output.0:0-7 input.1:0-7 output.1:0-7 input.2:0-7 output.2:0-7"
	const tx = "tx-0:- tx-1:- tx-2:-"
	for _, tc := range []struct{ text, key, live, want string }{
		{`irq = { policy = "spread" }`, "irq", irqs, "input.0:2 output.0:2 input.1:3 output.1:3 input.2:6 output.2:6"},
		{`irq = { cpus = "0,2" }`, "irq", irqs, "input.0:2 output.0:2 input.1:2 output.1:2 input.2:2 output.2:2"},
		{`irq = { cpus = "0,2", numa = "any" }`, "irq", irqs, "input.0:2 output.0:2 input.1:0 output.1:0 input.2:2 output.2:2"},
		{`irq = { policy = "single", numa = "any" }`, "irq", irqs, "input.0:2 output.0:2 input.1:2 output.1:2 input.2:2 output.2:2"},
		{`irq = { policy = "list", cpus = "7,0-1" }`, "irq", irqs, "input.0:7 output.0:7 input.1:0 output.1:0 input.2:1 output.2:1"},
		{`irq = {}`, "irq", "comp0:0-7 comp1:0-7", "comp0:2 comp1:3"},
		{`xps = "per-queue"`, "xps", tx, "tx-0:2,7,4 tx-1:0,3,5 tx-2:1,6"},
		{"irq = { policy = \"list\", cpus = \"7,0\" }\n xps = \"per-queue\"", "xps", tx, "tx-0:7,3,4 tx-1:0,6,5 tx-2:2,1"},
		{`xps = "off"`, "xps", "tx-0:1 tx-1:2", "tx-0:- tx-1:-"},
		{`xps = "0-3"`, "xps", tx, "tx-0:0-3 tx-1:0-3 tx-2:0-3"},
		{`xps = "per-queue"`, "xps", oneQueue, oneQueue},
		{`rps = "local"`, "rps", "rx-0:- rx-1:-", "rx-0:2-3,6-7 rx-1:2-3,6-7"},
		{`rps = "all"`, "rps", "rx-0:-", "rx-0:0-7"},
		{`rfs = 4096`, "rfs", "rx-0:0 rx-1:256", "rx-0:4096 rx-1:4096"},
		{`rss = { queues = 2 }`, "rss", "equal 4/4 size 8", "equal 2/4 size 8"},
		{`rss = { queues = 4 }`, "rss", "table/4 0*6 1*2", "equal 4/4 size 8"},
		{`rss = { weights = [3, 0, 1] }`, "rss", "equal 4/4 size 8", "table/4 0*6 2*2"},
	} {
		t.Run(tc.text, func(t *testing.T) {
			p := evaluate(t, "nic \"a\" {\n  name = \"eth0\"\n"+tc.text+"\n}", f.Value())
			ws, diags := (&Engine{Kinds: Kinds()}).Desired(p, f, PhaseAll)
			if diags.HasErrors() {
				t.Fatal(diags)
			}
			i := slices.IndexFunc(ws, func(w Wanted) bool { return w.Key() == "queue/eth0/"+tc.key })
			got, err := ws[i].Want(Value{Text: tc.live})
			// Sets are compared as such.
			want, err2 := parsePairs(tc.want)
			if err2 == nil && tc.key == "xps" {
				for i, p := range want {
					if set, err := cpuset.Parse(p.value); err == nil {
						want[i].value = set.String()
					}
				}
				tc.want = pairsText(want)
			}
			if got.Text != tc.want || err != nil {
				t.Errorf("%s: got %q, want %q (%v)", tc.live, got.Text, tc.want, err)
			}
		})
	}
	// What the table is too small for is told.
	for _, text := range []string{"rss = { queues = 9 }", "rss = { weights = [8, 1] }"} {
		p := evaluate(t, "nic \"a\" {\n  name = \"eth0\"\n"+text+"\n}", f.Value())
		ws, _ := (&Engine{Kinds: Kinds()}).Desired(p, f, PhaseAll)
		if v, err := ws[0].Want(Value{Text: "equal 4/4 size 8"}); err == nil {
			t.Errorf("%s: %v", text, v)
		}
	}
}

// The kernel silently leaves isolated CPUs out of RPS: asked for, they would never
// read back. No interrupt goes there either.
func TestIsolatedCPUs(t *testing.T) {
	h, _, _ := treeHost(t, map[string]string{"sys/devices/system/cpu/nohz_full": "6\n"})
	cpu := twoNodes()
	cpu.Isolated = "7"
	for _, tc := range []struct {
		text, key, live, want string
		node                  int
	}{
		{`rps = "all"`, "rps", "rx-0:-", "rx-0:0-5", 0},
		{`rps = "local"`, "rps", "rx-0:-", "rx-0:2-3", 1},
		{`rps = "0-5"`, "rps", "rx-0:-", "rx-0:0-5", 0},
		{`rps = "5-7"`, "rps", "", "Isolated CPU: The kernel lets no isolated CPU (isolcpus= or nohz_full=) work for others, and leaves out CPU 6-7. Do so too.", 0},
		{`irq = { numa = "any" }`, "irq", "q0:- q1:- q2:- q3:- q4:- q5:- q6:-", "q0:2 q1:3 q2:0 q3:1 q4:4 q5:5 q6:2", 1},
	} {
		f := &host.Facts{CPU: cpu, NICs: []host.NICFacts{{Name: "eth0", MaxMTU: 9000, NUMANode: tc.node}}}
		p := evaluate(t, "nic \"a\" {\n  name = \"eth0\"\n"+tc.text+"\n}", f.Value())
		ws, diags := (&Engine{Host: h, Kinds: Kinds()}).Desired(p, f, PhaseAll)
		if len(diags) > 0 {
			if got := diags[0].Summary + ": " + diags[0].Detail; got != tc.want {
				t.Errorf("%s: %s", tc.text, got)
			}
			continue
		}
		if v, err := ws[0].Want(Value{Text: tc.live}); v.Text != tc.want || err != nil {
			t.Errorf("%s: got %q, want %q (%v)", tc.text, v.Text, tc.want, err)
		}
	}
}

// Values that were journaled with other channels are put back as far as they go.
func TestSamePairs(t *testing.T) {
	for _, tc := range []struct {
		live, want string
		same       bool
		fit        string
	}{
		{"rx-0:1 rx-1:1", "rx-0:1 rx-1:1", true, "rx-0:1 rx-1:1"},
		{"rx-0:1 rx-1:1 rx-2:2", "rx-0:1 rx-1:1", false, "rx-0:1 rx-1:1 rx-2:1"},
		{"rx-0:1 rx-1:2 rx-2:2", "rx-0:1 rx-1:2", true, "rx-0:1 rx-1:2"},
		{"rx-0:1", "rx-0:1 rx-1:2", true, "rx-0:1"},
		{"rx-0:2", "rx-0:1 rx-1:2", false, "rx-0:1"},
		{oneQueue, "tx-0:1 tx-1:2", true, ""},
		{"tx-0:1 tx-1:-", oneQueue, false, "tx-0:- tx-1:-"},
		{"tx-0:- tx-1:-", oneQueue, true, "tx-0:- tx-1:-"},
	} {
		if got := samePairs(tc.live, tc.want); got != tc.same {
			t.Errorf("%s, %s: %t", tc.live, tc.want, got)
		}
		if tc.live == oneQueue {
			continue
		}
		now, err := parsePairs(tc.live)
		if err != nil {
			t.Fatal(err)
		}
		if fit, err := fitPairs(now, tc.want); pairsText(fit) != tc.fit || err != nil {
			t.Errorf("%s, %s: %s %v", tc.live, tc.want, pairsText(fit), err)
		}
	}
	for _, bad := range []string{"rx-0", "rx-0:", ":1"} {
		if p, err := parsePairs(bad); err == nil {
			t.Errorf("%q is %v", bad, p)
		}
	}
}

// Interrupts, on a tree of files: applied, and put back.
func TestIRQ(t *testing.T) {
	const dev = "sys/devices/pci0000:00/0000:00:03.0/"
	h, root, _ := treeHost(t, map[string]string{
		dev + "msi_irqs/24": "msix\n", dev + "msi_irqs/25": "msix\n", dev + "msi_irqs/26": "msix\n",
		dev + "virtio0/net/eth0/address": "52:54:00:12:34:56\n",
		"proc/interrupts":                "  CPU0\n 24: 0 PCI-MSIX 0-edge virtio0-config\n 25: 0 PCI-MSIX 1-edge virtio0-input.0\n 26: 0 PCI-MSIX 2-edge virtio0-output.0\n",
		"proc/irq/24/smp_affinity_list":  "0-1\n", "proc/irq/25/smp_affinity_list": "0-1\n", "proc/irq/26/smp_affinity_list": "1\n",
	})
	for name, to := range map[string]string{
		"sys/class/net/eth0":            "../../devices/pci0000:00/0000:00:03.0/virtio0/net/eth0",
		dev + "virtio0/net/eth0/device": "../../../virtio0",
	} {
		p := filepath.Join(root, name)
		if err := errors.Join(os.MkdirAll(filepath.Dir(p), 0o755), os.Symlink(to, p)); err != nil {
			t.Fatal(err)
		}
	}
	s := nicIRQ("eth0")
	before, err := s.Read(t.Context(), h)
	if before.Text != "input.0:0-1 output.0:1" || err != nil {
		t.Fatalf("%s %v", before, err)
	}
	files := func() (out string) {
		for _, irq := range []string{"24", "25", "26"} {
			b, err := os.ReadFile(filepath.Join(root, "proc/irq", irq, "smp_affinity_list"))
			if err != nil {
				t.Error(err)
			}
			out += fmt.Sprintf("%s=%q ", irq, b)
		}
		return out
	}
	for _, step := range []struct{ value, want string }{
		{"input.0:0 output.0:0", `24="0-1\n" 25="0\n" 26="0\n" `},
		{before.Text, `24="0-1\n" 25="0-1\n" 26="1\n" `},
	} {
		if err := s.Write(t.Context(), h, Value{Text: step.value}); err != nil {
			t.Error(err)
		}
		if got := files(); got != step.want {
			t.Errorf("%s: %s", step.value, got)
		}
	}
	if v, err := nicIRQ("eth1").Read(t.Context(), h); !v.Absent || err != nil {
		t.Errorf("%s %v", v, err)
	}
}

// fakeNIC has what no device of a test machine has.
type fakeNIC struct {
	channels host.ChannelFacts
	rings    host.RingFacts
	coalesce host.Coalesce
	rss      []uint32
	// own says that the table is the driver's.
	own bool
	err error
}

func (n *fakeNIC) Channels(string) (host.ChannelFacts, error)  { return n.channels, n.err }
func (n *fakeNIC) Rings(string) (host.RingFacts, error)        { return n.rings, n.err }
func (n *fakeNIC) Coalesce(string) (host.Coalesce, error)      { return n.coalesce, n.err }
func (n *fakeNIC) RSS(string) ([]uint32, error)                { return n.rss, n.err }
func (n *fakeNIC) SetCoalesce(_ string, c host.Coalesce) error { n.coalesce = c; return n.err }
func (n *fakeNIC) SetRings(_ string, r host.RingFacts) error {
	if r.RX > n.rings.MaxRX || r.TX > n.rings.MaxTX {
		return errors.New("too large")
	}
	n.rings.RX, n.rings.TX = r.RX, r.TX
	return n.err
}

func (n *fakeNIC) SetRSS(_ string, table []uint32) error {
	if n.own = len(table) == 0; n.own {
		table = equalRSS(n.channels.Combined, len(n.rss))
	}
	n.rss = slices.Clone(table)
	return n.err
}

func TestHardware(t *testing.T) {
	fake := &fakeNIC{
		channels: host.ChannelFacts{Combined: 4, MaxCombined: 8},
		rings:    host.RingFacts{RX: 256, TX: 256, MaxRX: 4096, MaxTX: 1024},
		coalesce: host.Coalesce{RxCoalesceUsecs: 3, TxCoalesceUsecs: 5},
		rss:      equalRSS(4, 8), own: true,
	}
	hw := func(*host.Host) hardware { return fake }
	for _, tc := range []struct {
		s              *nicSetting
		before, wanted string
	}{
		{nicRings("eth0", hw), "rx 256 tx 256", "rx 4096 tx 512"},
		{nicCoalesce("eth0", "rx_usecs", hw), "3", "50"},
		{nicCoalesce("eth0", "adaptive_rx", hw), "off", "on"},
		{nicRSS("eth0", hw), "equal 4/4 size 8", "equal 2/4 size 8"},
		{nicRSS("eth0", hw), "equal 4/4 size 8", "table/4 0*6 2*2"},
	} {
		for _, want := range []string{tc.wanted, tc.before} {
			if v, err := tc.s.Read(t.Context(), nil); v.Text == want || err != nil {
				t.Errorf("%s is %s already, or %v", tc.s.Key(), v, err)
			}
			if err := tc.s.Write(t.Context(), nil, Value{Text: want}); err != nil {
				t.Error(err)
			}
			if v, err := tc.s.Read(t.Context(), nil); v.Text != want || err != nil {
				t.Errorf("%s: %s after %s (%v)", tc.s.Key(), v, want, err)
			}
		}
	}
	if want := (host.Coalesce{RxCoalesceUsecs: 3, TxCoalesceUsecs: 5}); fake.coalesce != want {
		t.Errorf("coalesce: %+v", fake.coalesce)
	}
	if !fake.own {
		t.Error("the RSS table is not the driver's again, so that fewer channels would be refused")
	}
	// With other channels, a driver's table is the same as a driver's.
	s := nicRSS("eth0", hw)
	if !s.Same(Value{Text: "equal 8/8 size 128"}, Value{Text: "equal 4/4 size 128"}) || s.Same(Value{Text: "equal 4/8 size 128"}, Value{Text: "equal 4/4 size 128"}) {
		t.Error("tables are compared wrongly")
	}
	if err := nicRings("eth0", hw).Write(t.Context(), nil, Value{Text: "rx 256"}); err != nil && !strings.Contains(err.Error(), "form") {
		t.Error(err)
	}
	for _, bad := range []string{"", "rx", "rx x", "rx 1 tx"} {
		if err := nicRings("eth0", hw).Write(t.Context(), nil, Value{Text: bad}); err == nil {
			t.Errorf("rings %q were written", bad)
		}
	}
	for _, bad := range []string{"", "equal", "equal 0/4 size 8", "table/4", "table/4 0*x", "x 0*4"} {
		if table, err := parseRSS(bad); err == nil {
			t.Errorf("%q is %v", bad, table)
		}
	}

	fake.err = fmt.Errorf("%w: no such setting", errors.ErrUnsupported)
	for _, s := range []*nicSetting{nicRings("eth0", hw), nicCoalesce("eth0", "rx_usecs", hw), nicRSS("eth0", hw)} {
		if v, err := s.Read(t.Context(), nil); !v.Absent || err != nil {
			t.Errorf("%s: %s %v", s.Key(), v, err)
		}
	}
}
