package provision

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	gocmp "github.com/google/go-cmp/cmp"
	"github.com/hashicorp/hcl/v2"
	"github.com/safchain/ethtool"
	"github.com/vishvananda/netlink"

	"github.com/nodeprov/nodeprov/internal/testbed"
	"github.com/nodeprov/nodeprov/provision/host"
)

func TestNICWanted(t *testing.T) {
	facts := &host.Facts{NICs: []host.NICFacts{
		{Name: "eth0", Driver: "virtio_net", MTU: 1500, MinMTU: 68, MaxMTU: 9000},
		{Name: "eth1", Driver: "virtio_net", MTU: 1500, MinMTU: 68, MaxMTU: 65535},
		{Name: "tun0", MTU: 1500, MaxMTU: 65535},
	}}
	for _, tc := range []struct {
		name, text string
		facts      *host.Facts
		want       string
	}{
		{"by name", `nic "a" {
  name = "eth0"
  mtu  = 9000
}`, facts, "nic/eth0/mtu = 9000"},
		{"by driver", `nic "a" {
  driver = "virtio_net"
  mtu    = host.nics[0].max_mtu
}`, facts, "nic/eth0/mtu = 9000\nnic/eth1/mtu = 9000"},
		{"host unknown", `nic "a" {
  name = "eth7"
  mtu  = 9000
}
nic "b" {
  driver = host.nics[0].driver
  mtu    = host.nics[0].max_mtu
}
nic "c" {
  driver = host.nics[0].driver
  mtu    = 1
}`, nil, `11,12: error: Invalid mtu: An MTU is a whole number of bytes from 68 to 65535, and 1 is not.`},
		{"missing", `nic "a" {
  name = "eth7"
  mtu  = 9000
}
nic "b" {
  driver     = "ixgbe"
  mtu        = 9000
  on_missing = "skip"
}`, facts, `
2,10: error: No such network device: No device has the name "eth7". There are: eth0 (virtio_net), eth1 (virtio_net), tun0. Correct it, or say on_missing = "skip" to go on without.
6,16: warning: No such network device: No device has the driver "ixgbe". There are: eth0 (virtio_net), eth1 (virtio_net), tun0. The block is skipped, as its on_missing says.`},
		{"no device at all", `nic "a" {
  name = "eth0"
  mtu  = 9000
}`, &host.Facts{}, `2,10: error: No such network device: No device has the name "eth0". This machine has no network device but loopback. Correct it, or say on_missing = "skip" to go on without.`},
		{"matching", `nic "a" {
  name   = "eth0"
  driver = "virtio_net"
  mtu    = 9000
}
nic "b" {
  mtu = 9000
}
nic "c" {
  name = "et/h0"
  mtu  = 9000
}
nic "d" {
  name = "a-name-of-16-byt"
  mtu  = 9000
}
nic "e" {
  driver = ""
  mtu    = 9000
}
nic "f" {
  name       = "eth0"
  mtu        = 9000
  on_missing = "ignore"
  on_error   = "maybe"
}
nic "g" {
  name   = null
  driver = "virtio_net"
  mtu    = 1500
}`, facts, `
nic/eth0/mtu = 1500
nic/eth1/mtu = 1500
3,12: error: Both name and driver: A nic block matches by one of name, driver, mac and pci, and this one has name and driver. Keep one of them.
6,1: error: No device named: A nic block needs what it matches by, one of name = "eth0", driver = "virtio_net", mac = "52:54:00:12:34:56" and pci = "0000:00:03.0".
10,10: error: Invalid name of a device: "et/h0" is no name that a device can have.
14,10: error: Invalid name of a device: "a-name-of-16-byt" is longer than 15 bytes, which no device's name is.
18,12: error: Invalid driver: The driver is empty. nodeprov facts shows the drivers of this machine's devices.
24,16: error: Invalid value of on_missing: Write "fail" or "skip".
25,16: error: Invalid value of on_error: Write "warn" or "fail".`},
		{"loopback", `nic "a" {
  name = "lo"
  mtu  = 1500
}`, &host.Facts{}, `2,10: error: Loopback is left alone: nodeprov sets no loopback device. This machine has no network device but loopback. Correct it, or say on_missing = "skip" to go on without.`},
		{"mtu", `nic "a" {
  driver = "virtio_net"
  mtu    = 9001
}
nic "b" {
  name = "tun0"
  mtu  = 65536
}
nic "c" {
  name = "tun0"
  mtu  = 1500.5
}
nic "d" {
  name = "tun0"
  mtu  = 67
}`, facts, `
nic/eth1/mtu = 9001
3,12: error: MTU out of the device's range: eth0 (virtio_net) takes an MTU of 68 to 9000, not 9001.
7,10: error: Invalid mtu: An MTU is a whole number of bytes from 68 to 65535, and 65536 is not.
11,10: error: Invalid mtu: An MTU is a whole number of bytes from 68 to 65535, and 1500.5 is not.
15,10: error: Invalid mtu: An MTU is a whole number of bytes from 68 to 65535, and 67 is not.`},
		{"two blocks", `nic "a" {
  name = "eth1"
  mtu  = 9000
}
nic "b" {
  driver = "virtio_net"
  mtu    = 1500
}`, facts, `
nic/eth1/mtu = 9000
nic/eth0/mtu = 1500
7,12: error: Setting asked for twice: nic/eth1/mtu is already set at p.hcl:6:10. Remove one of the two.`},
		{"secret", `variable "m" {
  type      = number
  default   = 9000
  sensitive = true
}
nic "a" {
  name = "eth0"
  mtu  = var.m
}`, facts, `8,10: error: Sensitive value: mtu cannot be set from a sensitive value: everybody can read it from the device, and plan and journal hold it. Use a value that is not secret.`},
	} {
		t.Run(tc.name, func(t *testing.T) { sameText(t, tc.want, wantedText(t, tc.text, tc.facts)) })
	}
}

// While the machine comes up, a device that is not there yet keeps nothing else from
// being applied.
func TestNICBooting(t *testing.T) {
	p := evaluate(t, `nic "a" {
  name = "eth7"
  mtu  = 9000
}
nic "b" {
  name = "lo"
  mtu  = 9000
}`, (host.Facts{}).Value())
	for booting, want := range map[bool][]hcl.DiagnosticSeverity{
		false: {hcl.DiagError, hcl.DiagError},
		true:  {hcl.DiagWarning, hcl.DiagError}, // lo never comes
	} {
		_, diags := (&Engine{Kinds: Kinds(), Booting: booting}).Desired(p, &host.Facts{}, PhaseAll)
		var got []hcl.DiagnosticSeverity
		for _, d := range diags {
			got = append(got, d.Severity)
		}
		if d := gocmp.Diff(want, got); d != "" {
			t.Errorf("booting %v: %s\n%v", booting, d, diags)
		}
	}
}

// All devices at once are the same as each by itself; only blocks that are wrong for
// one of them are missing with it.
func TestDesiredByDevice(t *testing.T) {
	f := &host.Facts{CPU: twoNodes()}
	for i := range 3 {
		f.NICs = append(f.NICs, host.NICFacts{Name: fmt.Sprintf("veth%d", i), Driver: "veth", MaxMTU: 65535 - i})
	}
	p := evaluate(t, `nic "pods" {
  driver = "veth"
  rps    = "all"
  mtu    = 65534
  qdisc "fq" {}
}
nic "one" {
  name       = "veth1"
  txqueuelen = 500
}
nic "none" {
  name = "eth0"
  mtu  = 1400
}
sysctl = { "net.core.somaxconn" = 4096 }`, f.Value())
	e := &Engine{Kinds: Kinds()}
	keys := func(ws []Wanted) (keys []string) {
		for _, w := range ws {
			keys = append(keys, w.Key())
		}
		return keys
	}
	got, want := map[string][]string{}, map[string][]string{}
	for d, ws := range e.DesiredByDevice(p, f) {
		got[d] = keys(ws)
	}
	for _, n := range f.NICs {
		ws, _ := e.Desired(p, f, PhaseNIC(n.Name))
		want[n.Name] = keys(ws)
	}
	if d := gocmp.Diff(want, got); d != "" {
		t.Error(d)
	}
	if w := []string{"nic/veth1/mtu", "nic/veth1/txqueuelen", "queue/veth1/rps", "qdisc/veth1"}; !slices.Equal(got["veth1"], w) {
		t.Error(got["veth1"])
	}
}

func TestNICOnError(t *testing.T) {
	f := &host.Facts{NICs: []host.NICFacts{{Name: "eth0", MaxMTU: 65535}}}
	for text, want := range map[string]Class{"": Warn, `on_error = "fail"`: Fail, `on_error = "warn"`: Warn} {
		p := evaluate(t, "nic \"a\" {\n  name = \"eth0\"\n  mtu = 1500\n"+text+"\n}", f.Value())
		ws, diags := (&Engine{Kinds: Kinds()}).Desired(p, f, PhaseAll)
		if diags.HasErrors() || len(ws) != 1 || ws[0].OnError != want {
			t.Errorf("%q: %v %v", text, ws, diags)
		}
	}
}

// Which devices a block is about.
func TestNICMatch(t *testing.T) {
	facts := &host.Facts{NICs: []host.NICFacts{
		{Name: "br0", Driver: "bridge", MAC: "52:54:00:00:00:01", Virtual: true, MaxMTU: 65535},
		{Name: "ens3", Driver: "virtio_net", MAC: "52:54:00:00:00:01", PCI: "0000:00:03.0", MaxMTU: 65535},
		{Name: "ens4", Driver: "virtio_net", MAC: "52:54:00:00:00:02", PCI: "0000:00:04.0", MaxMTU: 65535},
		{Name: "wg0", Virtual: true, MaxMTU: 65535},
	}}
	for by, want := range map[string]string{
		`name = "ens*"`:             "nic/ens3/mtu = 1400\nnic/ens4/mtu = 1400",
		`name = "*0"`:               "nic/br0/mtu = 1400\nnic/wg0/mtu = 1400",
		`mac = "52-54-00-00-00-01"`: "nic/ens3/mtu = 1400",
		`pci = "00:04.0"`:           "nic/ens4/mtu = 1400",
		`pci = "0000:00:03.0"`:      "nic/ens3/mtu = 1400",
		`name = "eth*"`:             `2,8: error: No such network device: No device has a name like "eth*". There are: ens3 (virtio_net), ens4 (virtio_net), br0 (bridge), wg0. Correct it, or say on_missing = "skip" to go on without.`,
		`name = "e/*"`:              `2,8: error: Invalid name of a device: "e/*" is no name that a device can have.`,
		`mac = "52:54"`:             `2,7: error: Invalid mac: "52:54" is no hardware address, as "52:54:00:12:34:56" is.`,
		`pci = "3"`:                 `2,7: error: Invalid pci: "3" is no PCI address, as "0000:00:03.0" is.`,
		`pci = "0000:00:05.0"`:      `2,7: error: No such network device: No device has the PCI address 0000:00:05.0. There are: ens3 (virtio_net), ens4 (virtio_net), br0 (bridge), wg0. Correct it, or say on_missing = "skip" to go on without.`,
		"name = \"ens3\"\nmac = \"52:54:00:00:00:01\"": `3,7: error: Both name and mac: A nic block matches by one of name, driver, mac and pci, and this one has name and mac. Keep one of them.`,
	} {
		t.Run(by, func(t *testing.T) {
			sameText(t, want, wantedText(t, "nic \"a\" {\n"+by+"\nmtu = 1400\n}", facts))
		})
	}
}

// The order of settings, and what each attribute says that is wrong.
func TestNICPipelineWanted(t *testing.T) {
	cpu := host.CPUFacts{Count: 4, Online: "0-3", Threads: []host.ThreadFacts{
		{ID: 0, Siblings: "0-1"}, {ID: 1, Siblings: "0-1"}, {ID: 2, Core: 1, Node: 1, Siblings: "2-3"}, {ID: 3, Core: 1, Node: 1, Siblings: "2-3"},
	}, NUMA: []host.NUMAFacts{{ID: 0, CPUs: "0-1"}, {ID: 1, CPUs: "2-3"}}}
	facts := &host.Facts{CPU: cpu, Kernel: host.KernelFacts{Release: "6.1.0-25", Version: "6.1.0"}, NICs: []host.NICFacts{
		{Name: "eth0", Driver: "virtio_net", MTU: 1500, MaxMTU: 9000, NUMANode: 1, TSOMaxSize: 65536,
			Channels: host.ChannelFacts{Combined: 1, MaxCombined: 4}, Rings: host.RingFacts{RX: 256, TX: 256, MaxRX: 256, MaxTX: 1024}},
		{Name: "veth0", Driver: "veth", MTU: 1500, MaxMTU: 65535, NUMANode: -1, TSOMaxSize: 524280, Virtual: true,
			Channels: host.ChannelFacts{RX: 1, TX: 1, MaxRX: 4, MaxTX: 2}},
	}}
	for _, tc := range []struct{ name, text, want string }{
		{"order", `nic "a" {
  name = "eth0"
  qdisc "fq" {}
  rps        = "all"
  xps        = "per-queue"
  irq        = { cpus = "0-3" }
  rfs        = 4096
  big_tcp    = { ipv6 = best_effort(65536), clamp = true }
  mtu        = 9000
  txqueuelen = 2000
  features   = { "rx-gro" = true, "rx-lro" = false }
  coalesce   = { rx_usecs = 8, adaptive_rx = true }
  rings      = { rx = "max", tx = 512 }
  channels   = { combined = "max" }
  gro_flush_timeout    = 20000
  napi_defer_hard_irqs = 2
}`, `
nic/eth0/channels = combined 4
nic/eth0/rings = rx 256 tx 512
nic/eth0/coalesce/adaptive_rx = on
nic/eth0/coalesce/rx_usecs = 8
nic/eth0/feature/rx-gro = on
nic/eth0/feature/rx-lro = off
nic/eth0/mtu = 9000
nic/eth0/txqueuelen = 2000
nic/eth0/big_tcp/ipv6 = gso 65536 gro 65536
nic/eth0/gro_flush_timeout = 20000
nic/eth0/napi_defer_hard_irqs = 2
queue/eth0/irq = 
queue/eth0/xps = 
queue/eth0/rps = 
queue/eth0/rfs = 
qdisc/eth0 = mq [fq]`},
		{"channels", `nic "a" {
  name     = "veth0"
  channels = { combined = "max" }
}
nic "b" {
  name     = "eth0"
  channels = { rx = 2, tx = 3 }
}
nic "c" {
  name     = "eth0"
  channels = { combined = 5 }
}
nic "d" {
  name     = "eth0"
  channels = { combined = 2, rx = 2 }
}
nic "e" {
  name     = "eth0"
  channels = { combind = 2 }
}
nic "f" {
  name     = "eth0"
  channels = 4
}
nic "g" {
  name     = "eth0"
  channels = { combined = "all" }
}
nic "h" {
  name  = "eth0"
  rings = { rx = 512, tx = best_effort(16) }
}
nic "i" {
  name  = "eth0"
  rings = { rx = 512 }
}`, `
nic/veth0/channels = rx 4 tx 2
nic/eth0/channels = combined 3
11,27: error: More channels than the device has: eth0 (virtio_net) has at most 4, not 5. Write that, or "max".
15,27: error: Both ways to count channels: combined channels receive and send, and rx and tx only do one: write combined, or rx and tx.
19,16: error: Unknown element of channels: channels has no "combind". Did you mean "combined"?
23,14: error: Invalid channels: An object is needed, as in channels = { combined = … }, not a value of type number.
27,27: error: Invalid channels.combined: A whole number or "max" is needed, and "all" is neither.
31,11: error: Best effort for a part: The elements of rings are set together, so best_effort() is for all of them: rings = best_effort({ … }).
35,18: error: Larger rings than the device has: eth0 (virtio_net) has at most 256 entries, not 512. Write that, or "max".`},
		{"features", `nic "a" {
  name     = "eth0"
  features = { gro = true, "RX GRO" = true, "rx-gro" = 1 }
}
nic "b" {
  name     = "eth0"
  features = ["rx-gro"]
}
nic "c" {
  name     = "eth0"
  coalesce = { adaptive_rx = 1, rx_usec = 3, tx_usecs = -1 }
}`, `
3,16: error: Unknown feature: "gro" is ethtool's name for one or several features. The kernel's is "rx-gro"; ` + "`ethtool -k`" + ` shows them all.
3,28: error: Unknown feature: "RX GRO" is no name of a feature. They look like "rx-gro"; ` + "`ethtool -k`" + ` shows them.
3,56: error: Invalid feature rx-gro: true or false is needed, not a value of type number.
7,14: error: Invalid features: An object is needed, as in features = { "rx-gro" = true }, not a value of type tuple.
11,30: error: Invalid coalesce.adaptive_rx: true or false is needed, not a value of type number.
11,33: error: Unknown element of coalesce: coalesce has no "rx_usec". Did you mean "rx_usecs"?
11,57: error: Invalid coalesce.tx_usecs: A whole number from 0 to 2147483647 is needed, and -1 is not.`},
		{"big tcp", `nic "a" {
  name    = "veth0"
  big_tcp = { ipv6 = 600000 }
}
nic "b" {
  name    = "veth0"
  big_tcp = { ipv6 = 196608, ipv4 = 196608 }
}
nic "c" {
  name    = "eth0"
  big_tcp = { ipv6 = 196608 }
}
nic "d" {
  name    = "eth0"
  big_tcp = { ipv6 = 196608, clamp = true }
}
nic "e" {
  name    = "veth0"
  big_tcp = { ipv6 = 196608, ipv4 = best_effort(196608), clamp = true }
}`, `
nic/eth0/big_tcp/ipv6 = gso 65536 gro 65536
nic/veth0/big_tcp/ipv6 = gso 196608 gro 196608
nic/veth0/big_tcp/ipv4 = gso 196608 gro 196608
3,22: error: Invalid big_tcp.ipv6: A whole number from 65536 to 524280 is needed, and 600000 is not.
7,37: error: Kernel too old: BIG TCP for IPv4 needs Linux 6.3, and this is 6.1.0-25. Leave it out, or write best_effort(196608).
11,22: error: Larger packets than the device segments: eth0 (virtio_net) segments packets of at most 65536 bytes, not 196608. Write clamp = true to have what it can, or best_effort(196608).
15,22: warning: No BIG TCP on this device: eth0 (virtio_net) segments packets of at most 65536 bytes, so big_tcp is clamped to none.`},
		{"queues", `nic "a" {
  name = "eth0"
  xps  = "0-9"
  rps  = "none"
  rfs  = 1000
}
nic "b" {
  name = "eth0"
  irq  = { policy = "list" }
}
nic "c" {
  name = "eth0"
  irq  = { policy = "sprea", cpus = 3 }
}
nic "d" {
  name = "eth0"
  irq  = { policy = "list", cpus = "3,1", numa = "any" }
}
nic "e" {
  name = "eth0"
  irq  = { cpus = "0-1", numa = "local" }
}
nic "f" {
  name = "eth0"
  rss  = { queues = 2, weights = [1, 2] }
}
nic "g" {
  name = "eth0"
  rss  = { weights = [0, 0] }
}
nic "h" {
  name = "eth0"
  rss  = { weights = 3 }
}`, `
queue/eth0/irq = 
3,10: error: No such CPU: xps names CPU 4-9, and online are 0-3.
4,10: error: Invalid rps: "off", "local", "all" or a cpulist is needed, as in "0-3,8", and "none" is not.
5,10: error: Invalid rfs: The kernel keeps a power of two of flows, and 1000 is none. Write 1024.
9,10: error: A list without CPUs: irq.policy "list" goes through irq.cpus as they are written: add cpus = "0,2,4".
13,21: error: Invalid irq.policy: Write "spread" or "single" or "list".
13,37: error: Invalid irq.cpus: A cpulist is needed, as in "0-3,8", not a value of type number.
17,50: error: numa beside a list: irq.policy "list" takes the CPUs as they are written. Remove numa, or write policy = "spread".
21,33: warning: No CPU near the device: eth0 (virtio_net) is on NUMA node 1, and none of the CPUs 0-1 is. All of them are used.
25,34: error: Both ways to spread packets: rss has queues (equally) or weights, and this one has both. Keep one of them.
29,22: error: Invalid rss.weights: Some queue has to get packets: give one of them a weight above 0.
33,22: error: Invalid rss.weights: A list of whole numbers is needed, one for each queue, as in [3, 1], not a value of type number.`},
		{"qdisc", `nic "a" {
  name = "eth0"
  qdisc "fq" {
    options = { limit = 20000, quantum = 3028, maxrate = 1000000000, pacing = true, horizon_drop = false }
  }
}
nic "b" {
  name = "veth0"
  qdisc "pfifo" {
    on      = "root"
    options = { limit = 100 }
  }
}
nic "c" {
  name = "eth0"
  qdisc "fq_codell" {}
}
nic "d" {
  name = "eth0"
  qdisc "mq" {}
}
nic "e" {
  name = "eth0"
  qdisc "fq" {
    on      = "leafs"
    options = { limits = 3, pacing = 1, maxrate = 9 }
  }
}
nic "f" {
  name = "eth0"
  qdisc "pfifo_fast" {
    options = { limit = 3 }
  }
}`, `
qdisc/eth0 = mq [fq limit=20000 maxrate=1000000000 horizon_drop=off]
qdisc/veth0 = pfifo limit=100
16,3: error: Unknown queueing discipline: nodeprov has no qdisc "fq_codell". Did you mean "fq_codel"?
20,3: error: Unknown queueing discipline: nodeprov has no qdisc "mq". The leaves get mq by themselves: name what goes below it, as in qdisc "fq" { on = "leaves" }.
25,15: error: Invalid value of on: Write "leaves" or "root".
26,17: error: Unknown element of options: options has no "limits". Did you mean "limit"?
26,38: error: Invalid option pacing: true or false is needed, not a value of type number.
26,51: error: Invalid option maxrate: The kernel has rates in byte/s: a multiple of 8 bit/s is needed, as 8 is.
32,15: error: Options of pfifo_fast: pfifo_fast has none. Remove them.`},
	} {
		t.Run(tc.name, func(t *testing.T) { sameText(t, tc.want, wantedText(t, tc.text, facts)) })
	}
}

// best_effort() reaches the class of the setting.
func TestNICClass(t *testing.T) {
	f := &host.Facts{CPU: host.CPUFacts{Online: "0"}, NICs: []host.NICFacts{{Name: "eth0", MaxMTU: 1500}}}
	p := evaluate(t, `nic "a" {
  name     = "eth0"
  on_error = "fail"
  mtu      = best_effort(9000)
  features = { "rx-gro" = true, "rx-gro-hw" = best_effort(true) }
  rings    = best_effort({ rx = 4096 })
  channels = { combined = best_effort("max") }
  rps      = "off"
  qdisc "fq" {
    on_missing = "skip"
  }
}`, f.Value())
	ws, diags := (&Engine{Kinds: Kinds()}).Desired(p, f, PhaseAll)
	if diags.HasErrors() {
		t.Fatal(diags)
	}
	got := map[string]Class{}
	for _, w := range ws {
		got[w.Key()] = w.OnError
	}
	want := map[string]Class{
		"nic/eth0/mtu": Tolerate, "nic/eth0/feature/rx-gro": Fail, "nic/eth0/feature/rx-gro-hw": Tolerate, "nic/eth0/rings": Tolerate,
		"nic/eth0/channels": Tolerate, "queue/eth0/rps": Fail, "qdisc/eth0": Tolerate,
	}
	if d := gocmp.Diff(want, got); d != "" {
		t.Error(d)
	}
}

// A veth pair with four queues in a namespace with its own /sys.
func vethPair(t *testing.T, f func(h *host.Host) error) {
	t.Helper()
	h, err := host.New(host.Options{})
	if err != nil {
		t.Fatal(err)
	}
	testbed.NewNetNS(t).DoWithSysfs(func() error {
		veth := netlink.NewVeth(netlink.LinkAttrs{Name: "np0", MTU: 1400, NumTxQueues: 4, NumRxQueues: 4, TxQLen: 1000})
		veth.PeerName = "np1"
		if err := netlink.LinkAdd(veth); err != nil {
			return err
		}
		for _, n := range []string{"np0", "np1"} {
			if err := netlink.LinkSetUp(&netlink.Device{LinkAttrs: netlink.LinkAttrs{Name: n}}); err != nil {
				return err
			}
		}
		return f(h)
	})
}

// linkText is what the kernel says of np0, read without nodeprov.
func linkText(t *testing.T) string {
	t.Helper()
	var b strings.Builder
	l, err := netlink.LinkByName("np0")
	if err != nil {
		t.Error(err)
		return ""
	}
	a := l.Attrs()
	fmt.Fprintf(&b, "mtu %d txqueuelen %d gso %d gro %d gso_ipv4 %d gro_ipv4 %d\n", a.MTU, a.TxQLen, a.GSOMaxSize, a.GROMaxSize, a.GSOIPv4MaxSize, a.GROIPv4MaxSize)
	qdiscs, err := netlink.QdiscList(l)
	if err != nil {
		t.Error(err)
	}
	slices.SortFunc(qdiscs, func(a, b netlink.Qdisc) int { return int(int64(b.Attrs().Parent) - int64(a.Attrs().Parent)) })
	for _, q := range qdiscs {
		// Handles are the kernel's to choose.
		fmt.Fprintf(&b, "qdisc %s root=%t\n", q.Type(), q.Attrs().Parent == netlink.HANDLE_ROOT)
	}
	files, err := filepath.Glob("/sys/class/net/np0/queues/*/[rx]ps_*")
	if err != nil {
		t.Error(err)
	}
	for _, f := range append(files, "/sys/class/net/np0/gro_flush_timeout", "/sys/class/net/np0/napi_defer_hard_irqs") {
		text, err := os.ReadFile(f)
		if err != nil {
			t.Error(err)
		}
		fmt.Fprintf(&b, "%s %s", strings.TrimPrefix(f, "/sys/class/net/np0/"), text)
	}
	eth, err := ethtool.NewEthtool()
	if err != nil {
		t.Error(err)
		return ""
	}
	defer eth.Close()
	c, err := eth.GetChannels("np0")
	if err != nil {
		t.Error(err)
	}
	fmt.Fprintf(&b, "channels rx %d tx %d\n", c.RxCount, c.TxCount)
	features, err := eth.Features("np0")
	if err != nil {
		t.Error(err)
	}
	fmt.Fprintf(&b, "rx-gro %t tx-tcp-segmentation %t\n", features["rx-gro"], features["tx-tcp-segmentation"])
	return b.String()
}

// On a real device: plan, apply, apply again, go back; and what it cannot have.
func TestNICKernel(t *testing.T) {
	vethPair(t, func(h *host.Host) error {
		f, err := h.Facts(t.Context())
		if err != nil {
			return err
		}
		e := &Engine{Host: h, Kinds: Kinds(), State: t.TempDir()}
		desired := func(text string) []Wanted {
			ws, diags := e.Desired(evaluate(t, text, f.Value()), &f, PhaseAll)
			if diags.HasErrors() {
				t.Error(diags)
			}
			return ws
		}
		ws := desired(`nic "a" {
  name       = "np0"
  channels   = { combined = 2 }
  rings      = best_effort({ rx = "max" })
  coalesce   = { rx_usecs = best_effort(10) }
  features   = { "rx-gro" = true, "tx-tcp-segmentation" = false, "rx-lro" = best_effort(true), "rx-grow" = best_effort(true) }
  mtu        = 9000
  txqueuelen = 500
  big_tcp    = { ipv6 = 65536, ipv4 = 196608 }
  gro_flush_timeout    = 20000
  napi_defer_hard_irqs = 2
  rps        = "0"
  xps        = "per-queue"
  rfs        = 256
  rss        = best_effort({ queues = 2 })
  irq        = best_effort({ policy = "spread" })
  qdisc "pfifo" {
    options = { limit = 77 }
  }
}`)
		before := linkText(t)
		r := mustApply(t, e, ws)
		got := linkText(t)
		cpus := []string{"1", "0"}
		if f.CPU.Count > 1 {
			cpus = []string{"1", "2"}
		}
		want := `mtu 9000 txqueuelen 500 gso 65536 gro 65536 gso_ipv4 196608 gro_ipv4 196608
qdisc mq root=true
qdisc pfifo root=false
qdisc pfifo root=false
queues/rx-0/rps_cpus 1
queues/rx-0/rps_flow_cnt 256
queues/rx-1/rps_cpus 1
queues/rx-1/rps_flow_cnt 256
queues/tx-0/xps_cpus ` + cpus[0] + `
queues/tx-0/xps_rxqs 0
queues/tx-1/xps_cpus ` + cpus[1] + `
queues/tx-1/xps_rxqs 0
gro_flush_timeout 20000
napi_defer_hard_irqs 2
channels rx 2 tx 2
rx-gro true tx-tcp-segmentation false
`
		if d := gocmp.Diff(want, got); d != "" && f.CPU.Count == 2 {
			t.Error(d)
		}
		for _, c := range []string{"nic/np0/rings", "nic/np0/coalesce/rx_usecs", "nic/np0/feature/rx-lro", "nic/np0/feature/rx-grow", "queue/np0/rss", "queue/np0/irq"} {
			if slices.ContainsFunc(r.Applied, func(o Outcome) bool { return o.Key == c }) {
				t.Errorf("%s was applied", c)
			}
		}
		if len(r.Applied) != 12 {
			t.Errorf("%d applied: %v", len(r.Applied), r.Applied)
		}
		if r := mustApply(t, e, ws); len(r.Applied) != 0 {
			t.Errorf("second apply: %+v", r.Applied)
		}

		// Another profile over it: the end state depends on the last one only.
		ws = desired(`nic "a" {
  name     = "np0"
  channels = { rx = 4, tx = 4 }
  big_tcp  = { ipv6 = 196608, ipv4 = 131072 }
  xps      = "off"
  qdisc "pfifo" {}
}`)
		mustApply(t, e, ws)
		want = `mtu 1400 txqueuelen 1000 gso 196608 gro 196608 gso_ipv4 131072 gro_ipv4 131072
qdisc mq root=true
qdisc pfifo root=false
qdisc pfifo root=false
qdisc pfifo root=false
qdisc pfifo root=false
`
		if got := linkText(t); !strings.HasPrefix(got, want) {
			t.Error(gocmp.Diff(want, got))
		}
		if v, err := nicQdisc("np0").Read(t.Context(), h); v.Text != "mq [pfifo]" || err != nil {
			t.Errorf("%s %v", v, err)
		}
		mustRollback(t, e, 0)
		mustRollback(t, e, 0)
		if d := gocmp.Diff(before, linkText(t)); d != "" {
			t.Errorf("after rollback: %s", d)
		}

		if err := netlink.LinkDel(&netlink.Device{LinkAttrs: netlink.LinkAttrs{Name: "np0"}}); err != nil {
			return err
		}
		plan, _, err := e.Plan(t.Context(), ws, PhaseAll)
		if err != nil {
			return err
		}
		for _, c := range plan.Changes {
			if c.Action != Unsupported || !strings.Contains(c.Err.Error(), "vanished") {
				t.Errorf("%s vanished: %s %v", c.Key, c.Action, c.Err)
			}
		}
		if err := nicMTU("np0").Write(t.Context(), h, Value{Absent: true}); err == nil {
			t.Error("a device was removed")
		}
		return nil
	})
}

// What a device cannot have is told with the reason, before anything is written.
func TestNICUnsupported(t *testing.T) {
	vethPair(t, func(h *host.Host) error {
		for _, tc := range []struct {
			s    *nicSetting
			want string
		}{
			{nicRings("np0", liveHardware), "rings of np0: operation not supported (the driver veth has none)"},
			{nicCoalesce("np0", "rx_usecs", liveHardware), "coalescing of np0: operation not supported (the driver veth has none)"},
			{nicRSS("np0", liveHardware), "RSS table of np0: operation not supported (the driver veth has none)"},
			{nicIRQ("np0"), "interrupts of np0: it has none of its own"},
			{wantFeature("np0", "rx-lro", true), "feature rx-lro of np0: it is off and fixed on this device"},
			{nicFeature("np0", "rx-grp"), "this kernel has no such feature (did you mean rx-gro?)"},
			{nicMTU("np2"), `link np2: the device has vanished (plug it in, or say on_missing = "skip")`},
			{nicQueues("np2", "rps", host.RPSCPUs), `link np2: the device has vanished`},
		} {
			v, err := tc.s.Read(t.Context(), h)
			if !v.Absent || err != nil {
				t.Errorf("%s: %v %v", tc.s.Key(), v, err)
			}
			if err := tc.s.unsupported(h); err == nil || !strings.Contains(err.Error(), tc.want) {
				t.Errorf("%s: %v, want %q", tc.s.Key(), err, tc.want)
			}
		}
		f, err := h.Facts(t.Context())
		if err != nil {
			return err
		}
		p := evaluate(t, "nic \"a\" {\n  name = \"np0\"\n  features = { \"rx-grp\" = true }\n}", f.Value())
		_, diags := (&Engine{Host: h, Kinds: Kinds()}).Desired(p, &f, PhaseAll)
		if len(diags) != 1 || diags[0].Detail != `This kernel has no feature "rx-grp". Did you mean "rx-gro"?` {
			t.Error(diags)
		}
		return nil
	})
}
