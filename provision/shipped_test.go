package provision

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/zclconf/go-cty/cty"
	"github.com/zclconf/go-cty/cty/convert"

	"github.com/nodeprov/nodeprov/profiles"
	"github.com/nodeprov/nodeprov/provision/host"
	"github.com/nodeprov/nodeprov/provision/profile"
)

// tunedValues are the values of tuned's profiles, as its profiles/*/tuned.conf has them:
// what they set, without what an included profile sets alike. "~" marks what is
// tolerated where a host cannot have it.
var tunedValues = map[string]string{
	"throughput-performance": `
cpu boost = true ~
cpu epp = performance ~
cpu governor = performance ~
cpu min_perf_pct = 100 ~
sysctl net.core.somaxconn >= 2048
sysctl vm.dirty_background_ratio = 10
sysctl vm.dirty_ratio = 40
sysctl vm.swappiness = 10
sysfs /sys/block/*/queue/read_ahead_kb >= 4096 ~
sysfs /sys/devices/system/cpu/cpu*/power/energy_perf_bias = 0 ~
sysfs /sys/firmware/acpi/platform_profile = performance ~
`,
	"network-throughput": `
sysctl net.ipv4.tcp_notsent_lowat = 131072
sysctl net.ipv4.tcp_rmem = 4096 131072 16777216
sysctl net.ipv4.tcp_slow_start_after_idle = 0
sysctl net.ipv4.tcp_wmem = 4096 16384 16777216
`,
	"latency-performance": `
cpu boost = true ~
cpu epp = performance ~
cpu force_latency = C1 ~
cpu governor = performance ~
cpu min_perf_pct = 100 ~
sysctl vm.dirty_background_ratio = 3
sysctl vm.dirty_ratio = 10
sysctl vm.swappiness = 10
sysfs /sys/devices/system/cpu/cpu*/power/energy_perf_bias = 0 ~
sysfs /sys/firmware/acpi/platform_profile = performance ~
`,
	"network-latency": `
kernel cmdline on_missing = skip
kernel cmdline set rcupdate.rcu_normal_after_boot = 1
kernel cmdline set rcutree.nohz_full_patience_delay = 1000
kernel cmdline set skew_tick = 1
kernel cmdline set tsc = reliable
kernel thp = never ~
sysctl kernel.hung_task_timeout_secs = 600 ~
sysctl kernel.nmi_watchdog = 0 ~
sysctl kernel.numa_balancing = 0 ~
sysctl kernel.timer_migration = 0 ~
sysctl net.core.busy_poll = 50
sysctl net.core.busy_read = 50
sysctl net.ipv4.tcp_fastopen = 3
sysctl vm.stat_interval = 10
`,
	"cpu-partitioning": `
cpu allowed_cpus init.scope = 0-1,4-5 ~
cpu allowed_cpus system.slice = 0-1,4-5 ~
cpu allowed_cpus user.slice = 0-1,4-5 ~
irqbalance banned_cpus = 2-3,6-7
irqbalance mode = ban
irqbalance on_missing = skip
kernel cmdline set nohz = on
kernel cmdline set nohz_full = 2-3,6-7
kernel cmdline set nosoftlockup = true
kernel cmdline set rcu_nocbs = 2-3,6-7
sysfs /sys/devices/system/machinecheck/machinecheck*/ignore_ce = 1 ~
sysfs /sys/devices/virtual/workqueue/cpumask = 33 ~
sysfs /sys/devices/virtual/workqueue/writeback/cpumask = 33 ~
sysfs /sys/kernel/mm/ksm/run = 0 ~
`,
}

func TestTunedValues(t *testing.T) {
	includes := map[string]string{
		"network-throughput": "throughput-performance",
		"network-latency":    "latency-performance",
		"cpu-partitioning":   "network-latency",
	}
	f := twoSockets()
	for name, want := range tunedValues {
		t.Run(name, func(t *testing.T) {
			got := shippedLines(t, name, f)
			if of := includes[name]; of != "" {
				for line := range shippedLines(t, of, f) {
					if !got[line] {
						t.Errorf("%s has lost %q of %s", name, line, of)
					}
					delete(got, line)
				}
			}
			var lines []string
			for line := range got {
				lines = append(lines, line)
			}
			slices.Sort(lines)
			if diff := cmp.Diff(strings.Split(strings.TrimSpace(want), "\n"), lines); diff != "" {
				t.Error(diff)
			}
		})
	}
}

// Every shipped profile is good for a machine of two sockets, for one of one CPU,
// and where the machine is unknown.
func TestShippedProfiles(t *testing.T) {
	one := &host.Facts{Hostname: "n", Arch: "arm64", Kernel: host.KernelFacts{Release: "6.1.0", Version: "6.1.0"}}
	one.CPU = host.CPUFacts{Count: 1, Online: "0", Threads: []host.ThreadFacts{{Siblings: "0"}}, NUMA: []host.NUMAFacts{{CPUs: "0"}}}
	for _, name := range profiles.Names() {
		for what, f := range map[string]*host.Facts{"unknown": nil, "two sockets": twoSockets(), "one CPU": one} {
			t.Run(name+"/"+what, func(t *testing.T) {
				p := loadShipped(t, name, f)
				_, diags := (&Engine{Kinds: Kinds()}).Desired(p, f, PhaseAll)
				if diags.HasErrors() {
					t.Error(diags)
				}
			})
		}
	}
}

// What a K3s node must have whatever else its profile includes.
func TestK3sProfiles(t *testing.T) {
	for _, name := range []string{"k3s-server", "k3s-agent"} {
		got := shippedLines(t, name, twoSockets())
		for _, line := range []string{
			"sysctl vm.overcommit_memory = 1", "sysctl vm.panic_on_oom = 0", "sysctl kernel.panic = 10", "sysctl kernel.panic_on_oops = 1",
			"sysctl kernel.keys.root_maxkeys = 1000000", "sysctl kernel.keys.root_maxbytes = 25000000",
			"sysctl net.netfilter.nf_conntrack_max >= 262144",
			"sysctl net.ipv4.tcp_slow_start_after_idle = 0",
		} {
			if !got[line] {
				t.Errorf("%s: no %q", name, line)
			}
		}
		for line := range got {
			if strings.HasPrefix(line, "sysctl net.ipv4.tcp_rmem") {
				t.Errorf("%s: %s: lower than newer kernels' own", name, line)
			}
		}
	}
}

// twoSockets is a machine of two sockets with two cores of two threads each.
func twoSockets() *host.Facts {
	f := &host.Facts{Hostname: "n", Arch: "amd64", Kernel: host.KernelFacts{Release: "6.1.0-9-amd64", Version: "6.1.0"}}
	f.CPU = host.CPUFacts{Count: 8, Online: "0-7", NUMA: []host.NUMAFacts{{ID: 0, CPUs: "0-3"}, {ID: 1, CPUs: "4-7"}}}
	for id := range 8 {
		first := id / 2 * 2
		f.CPU.Threads = append(f.CPU.Threads, host.ThreadFacts{
			ID: id, Core: id / 2 % 2, Socket: id / 4, Node: id / 4, Siblings: fmt.Sprintf("%d-%d", first, first+1),
		})
	}
	f.NICs = []host.NICFacts{
		{Name: "ens3", Driver: "virtio_net", MTU: 1500, MinMTU: 68, MaxMTU: 9216, Channels: host.ChannelFacts{Combined: 1, MaxCombined: 4}},
		{Name: "veth0", Driver: "veth", MTU: 1500, MinMTU: 68, MaxMTU: 65535, Virtual: true, NUMANode: -1},
	}
	return f
}

func loadShipped(t *testing.T, name string, f *host.Facts) *profile.Profile {
	t.Helper()
	src, err := profiles.Source(name)
	if err != nil {
		t.Fatal(err)
	}
	o := profile.Options{
		Schemas: Schemas(Kinds()), Host: cty.UnknownVal(host.FactsType()), Include: profiles.Include,
	}
	if f != nil {
		o.Host = f.Value()
	}
	p, diags := profile.Load(src, o)
	if len(diags) > 0 {
		t.Fatal(diags)
	}
	return p
}

// shippedLines is what a profile asks for, a line each.
func shippedLines(t *testing.T, name string, f *host.Facts) map[string]bool {
	t.Helper()
	lines := map[string]bool{}
	var value func(path string, v profile.Value)
	value = func(path string, v profile.Value) {
		tail := ""
		if v.BestEffort {
			tail = " ~"
		}
		if v.Value == cty.NilVal || !v.IsKnown() || v.IsNull() {
			return
		}
		if ty := v.Type(); ty.IsMapType() || ty.IsObjectType() {
			for _, e := range v.Entries {
				value(path+" "+e.Key, e.Value)
			}
			return
		}
		if n, ok := profile.AtLeast(v.Value); ok {
			lines[fmt.Sprintf("%s >= %s%s", path, n.AsBigFloat().Text('f', -1), tail)] = true
			return
		}
		if text, err := convert.Convert(v.Value, cty.String); err == nil {
			lines[fmt.Sprintf("%s = %s%s", path, text.AsString(), tail)] = true
			return
		}
		lines[fmt.Sprintf("%s = %#v%s", path, v.Value, tail)] = true
	}
	var block func(path string, b profile.Block)
	block = func(path string, b profile.Block) {
		for attr, v := range b.Attrs {
			if attr == b.Type { // a Map
				value(path, v)
				continue
			}
			if v.Range == b.Range { // a default
				continue
			}
			value(path+" "+attr, v)
		}
		for _, inner := range b.Blocks {
			block(path+" "+inner.Type, inner)
		}
	}
	for _, b := range loadShipped(t, name, f).Blocks {
		block(b.Type, b)
	}
	return lines
}
