package provision

import (
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"math/big"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	gocmp "github.com/google/go-cmp/cmp"
	"github.com/zclconf/go-cty/cty"

	"github.com/nodeprov/nodeprov/provision/host"
	"github.com/nodeprov/nodeprov/provision/profile"
)

func TestSysctlWanted(t *testing.T) {
	for _, tc := range []struct{ name, text, want string }{
		{"values", `
sysctl = {
  "net.ipv4.tcp_rmem"                = "4096 131072 16777216"
  "net.core.somaxconn"               = at_least(4096)
  "kernel.panic"                     = 10
  "vm.overcommit_memory"             = true
  "vm.panic_on_oom"                  = false
  "net/ipv4/conf/eth0.100/rp_filter" = -1
  "kernel.threads-max"               = 18446744073709551615
  "kernel.big"                       = 1e6
  "kernel.core_pattern"              = ""
}`, `
sysctl/net.ipv4.tcp_rmem = 4096 131072 16777216
sysctl/net.core.somaxconn = 4096
sysctl/kernel.panic = 10
sysctl/vm.overcommit_memory = 1
sysctl/vm.panic_on_oom = 0
sysctl/net.ipv4.conf.eth0/100.rp_filter = -1
sysctl/kernel.threads-max = 18446744073709551615
sysctl/kernel.big = 1000000
sysctl/kernel.core_pattern = `},
		{"unknown host", `
sysctl = {
  "kernel.panic"                 = host.cpu.count
  "net.core.somaxconn"           = at_least(128 * host.cpu.count)
  "kernel.hostname"              = "of-${host.hostname}"
  "kernel.panic_on_oops"         = 1
  "kernel..bad"                  = host.cpu.count
  "kernel.list"                  = host.nics
}`, `
sysctl/kernel.panic_on_oops = 1
7,3: error: Invalid kernel key: A kernel key looks like net.core.somaxconn, and "kernel..bad" has an empty part (two separators in a row, or one at an end).
8,36: error: Invalid value of a kernel key: kernel.list: a string, a number, a bool or at_least(n) is needed, not a value of type list of object.`},
		{"keys", `
sysctl = {
  ""                       = 1
  "/proc/sys/kernel/panic" = 1
  "kernel.a/../../x"       = 1
  "kernel/../../x"         = 1
  "kernel panic"           = 1
  "net.ipv4.conf.[e.rp_filter" = 1
  "kernel.panic"           = 1
  "kernel/panic"           = 2
}`, `
sysctl/kernel.panic = 1
3,3: error: Invalid kernel key: A kernel key looks like net.core.somaxconn, and the key is empty.
4,3: error: Invalid kernel key: A kernel key looks like net.core.somaxconn, and "/proc/sys/kernel/panic" is a path (write the key: what follows /proc/sys/).
5,3: error: Invalid kernel key: A kernel key looks like net.core.somaxconn, and "kernel.a/../../x" has an empty part (two separators in a row, or one at an end).
6,3: error: Invalid kernel key: A kernel key looks like net.core.somaxconn, and "kernel/../../x" leads out of /proc/sys.
7,3: error: Invalid kernel key: A kernel key looks like net.core.somaxconn, and "kernel panic" has a blank or a control character, which no key has.
8,3: error: Invalid kernel key: A kernel key looks like net.core.somaxconn, and "[e" is no pattern: a bracket is not closed, or empty.
10,3: error: Key given twice: "kernel/panic" is another spelling of "kernel.panic", which is set at p.hcl:12:3. Remove one of the two.`},
		{"bad values", `
sysctl = {
  "kernel.a" = null
  "kernel.b" = [1, 2]
  "kernel.c" = { x = 1 }
  "kernel.d" = 1.5
  "kernel.e" = 1e30
  "kernel.f" = "a\nb"
  "kernel.g" = "a\u0000b"
  "kernel.h" = at_least(0.5)
  "kernel.i" = at_least(1e20)
}`, `
4,16: error: Invalid value of a kernel key: kernel.b: a string, a number, a bool or at_least(n) is needed, not a value of type tuple (several numbers are one string: "4096 131072 16777216").
5,16: error: Invalid value of a kernel key: kernel.c: a string, a number, a bool or at_least(n) is needed, not a value of type object (several numbers are one string: "4096 131072 16777216").
6,16: error: Invalid value of a kernel key: kernel.d: 1.5 is no whole number, which kernel keys are (use floor() or ceil(), or a string for a key that is a text).
7,16: error: Invalid value of a kernel key: kernel.e: 1e+30 does not fit in 64 bits.
8,16: error: Invalid value of a kernel key: kernel.f: the string holds '\n', where the kernel stops reading (several numbers are separated by blanks; a heredoc ends in a newline: use <<- with trimspace(), or a quoted string).
9,16: error: Invalid value of a kernel key: kernel.g: the string holds '\x00', where the kernel stops reading (several numbers are separated by blanks; a heredoc ends in a newline: use <<- with trimspace(), or a quoted string).
10,16: error: Invalid value of a kernel key: kernel.h: at_least: 0.5 is no whole number, which kernel keys are (use floor() or ceil(), or a string for a key that is a text).
11,16: error: Invalid value of a kernel key: kernel.i: at_least: 1e+20 does not fit in 64 bits.`},
		{"secret", `
variable "s" {
  type      = string
  default   = "x"
  sensitive = true
}
variable "n" {
  type      = number
  default   = 1
  sensitive = true
}
sysctl = {
  "kernel.a" = var.s
  "kernel.b" = at_least(var.n)
}`, `
13,16: error: Sensitive value: A kernel key cannot be set from a sensitive value: everybody can read /proc/sys, and plan and journal hold the value. Use a value that is not secret.
14,16: error: Sensitive value: A kernel key cannot be set from a sensitive value: everybody can read /proc/sys, and plan and journal hold the value. Use a value that is not secret.`},
		{"pattern without a machine", `sysctl = { "net.ipv4.conf.*.rp_filter" = 2 }`, ""},
		{"all unknown", `sysctl = { for n in host.nics : "net.ipv4.conf.${n.name}.rp_filter" => 2 }`, ""},
	} {
		t.Run(tc.name, func(t *testing.T) { sameText(t, tc.want, wantedText(t, tc.text, nil)) })
	}
}

func TestSysctlAtLeast(t *testing.T) {
	e := &Engine{Kinds: Kinds()}
	ws, diags := e.Desired(evaluate(t, `sysctl = { "kernel.x" = at_least(4096) }`, (host.Facts{}).Value()), &host.Facts{}, PhaseAll)
	if diags.HasErrors() || len(ws) != 1 {
		t.Fatal(ws, diags)
	}
	for live, want := range map[string]string{
		"128": "4096", "4096": "4096", "65536": "65536", "\t65536 ": "\t65536 ", "-1": "4096", "18446744073709551615": "18446744073709551615", //nolint:gocritic // the kernel pads so
		"1\t2": "error", "": "error", "fq": "error", "0x2000": "error",
	} {
		v, err := ws[0].Want(Value{Text: live})
		if err != nil {
			v.Text = "error"
		}
		if v.Text != want {
			t.Errorf("live %q: %q, want %q", live, v.Text, want)
		}
	}
	_, err := ws[0].Want(Value{Text: "1\t2"})
	if want := `at_least(4096) needs a key that holds one number, and this one holds "1\t2" (write the whole value as a string)`; fmt.Sprint(err) != want {
		t.Errorf("got %v", err)
	}
}

func TestSysctlSame(t *testing.T) {
	for _, tc := range []struct {
		key, live, want string
		same            bool
	}{
		{"net.ipv4.ip_local_reserved_ports", "1-3,9", "9,1,2,3", true},
		{"net.ipv4.ip_local_reserved_ports", "1-3,9", "1-3", false},
		{"kernel.watchdog_cpumask", "0-3", "0,1,2-3", true},
		{"net.core.rps_default_mask", "00000000,000000ff", "ff", true},
		{"net.core.rps_default_mask", "000000ff", "fe", false},
		{"kernel.panic", "0-3", "0,1,2,3", false},
		{"x", "4096\t131072\t6291456", "4096 131072  6291456 ", true}, {"x", "1", "01", false}, {"x", "", " ", true}, {"x", "a b", "ab", false},
	} {
		s, err := openSysctl(tc.key)
		if err != nil {
			t.Fatal(err)
		}
		if got := s.Same(Value{Text: tc.live}, Value{Text: tc.want}); got != tc.same {
			t.Errorf("%s: %q and %q: %v", tc.key, tc.live, tc.want, got)
		}
	}
	if (&sysctl{[]string{"x"}}).Same(Value{Absent: true}, Value{}) {
		t.Error("absent is empty")
	}
}

func TestSysctlUnsupported(t *testing.T) {
	h, _, _ := treeHost(t, map[string]string{
		"proc/sys/net/core/somaxconn": "1\n", "proc/sys/net/ipv4/tcp_rmem": "1\n", "proc/sys/net/ipv4/tcp_wmem": "1\n", "proc/sys/vm/swappiness": "1\n",
		"proc/sys/net/netfilter/nf_log_all_netns": "1\n", "proc/sys/net/ipv4/conf/eth0/rp_filter": "1\n", "proc/sys/kernel/osrelease": "6.1.0\n",
		"sys/module/sctp/initstate": "live\n",
	})
	const elsewhere = "(is it misspelt, of another kernel version, or of a module or device that is not there yet?)"
	for _, tc := range []struct{ key, want string }{
		{"net.core.somaxcon", "the kernel has no such key (did you mean net.core.somaxconn?)"},
		{"net.ipv4.tpc_rmem", "the kernel has no such key (did you mean net.ipv4.tcp_rmem?)"},
		{"nett.core.somaxconn", "the kernel has no such key (did you mean net.core.somaxconn?)"},
		{"net.cor.nothing", "the kernel has no such key " + elsewhere},
		{"net.netfilter.nf_conntrack_max", "the kernel has no such key, as module nf_conntrack is not loaded (add \"nf_conntrack\" to modules in the kernel block)"},
		{"net.nf_conntrack_max", "the kernel has no such key, as module nf_conntrack is not loaded (add \"nf_conntrack\" to modules in the kernel block)"},
		{"net.bridge.bridge-nf-call-iptables", "the kernel has no such key, as module br_netfilter is not loaded (add \"br_netfilter\" to modules in the kernel block)"},
		{"net.sctp.sctp_mem", "the kernel has no such key " + elsewhere},
		{"net.core.netdev_max_backlog", "the kernel has no such key (it is the whole machine's, and other network namespaces do not show it: run in the first one)"},
		{"vm.compaction_proactiveness", "the kernel has no such key " + elsewhere},
		{"net.ipv4.conf.eth1.rp_filter", "there is no device eth1 (it may come later; net.ipv4.conf.default is what new devices get)"},
		{"net.ipv4.conf.eth0.rp_fliter", "the kernel has no such key (did you mean net.ipv4.conf.eth0.rp_filter?)"},
	} {
		s, err := openSysctl(tc.key)
		if err != nil {
			t.Fatal(err)
		}
		if v, err := s.Read(t.Context(), h); err != nil || !v.Absent {
			t.Errorf("%s: %v, %v", tc.key, v, err)
		}
		if err := s.unsupported(h); fmt.Sprint(err) != "sysctl "+tc.key+": "+tc.want {
			t.Errorf("got  %v\nwant %s", err, tc.want)
		}
	}
}

// wantedOn is wantedText of a machine that is there: values are those for the live ones.
func wantedOn(tb testing.TB, text string, h *host.Host) string {
	tb.Helper()
	e := &Engine{Host: h, Kinds: Kinds()}
	ws, diags := e.Desired(evaluate(tb, text, cty.UnknownVal(host.FactsType())), nil, PhaseAll)
	var b strings.Builder
	for _, w := range ws {
		live, err := w.Read(tb.Context(), h)
		if err != nil {
			tb.Error(err)
		}
		if live.Absent && w.Unsupported != nil {
			if err := w.Unsupported(h); err != nil {
				fmt.Fprintf(&b, "%s (%s): %v\n", w.Key(), w.OnError, err)
				continue
			}
		}
		v, err := w.Want(live)
		if err != nil {
			tb.Error(err)
		}
		fmt.Fprintf(&b, "%s (%s) = %s\n", w.Key(), w.OnError, strings.TrimSpace(v.Text))
		if w.Others != nil {
			for _, o := range w.Others(h) {
				fmt.Fprintf(&b, "  %s\n", o)
			}
		}
	}
	for _, d := range diags {
		fmt.Fprintf(&b, "%d,%d: %s: %s\n", d.Subject.Start.Line-3, d.Subject.Start.Column, d.Summary, d.Detail)
	}
	return b.String()
}

func sysctlTree(devices ...string) map[string]string {
	files := map[string]string{"proc/sys/kernel/osrelease": "6.1.0\n", "proc/sys/kernel/panic": "0\n", "proc/sys/kernel/pid_max": "32768\n",
		"proc/sys/kernel/modules_disabled": "0\n", "proc/sys/net/core/somaxconn": "8192\n"}
	for _, d := range append(devices, "all", "default") {
		files["proc/sys/net/ipv4/conf/"+d+"/rp_filter"] = "2\n"
		files["proc/sys/net/ipv4/conf/"+d+"/arp_announce"] = "0\n"
	}
	return files
}

func TestSysctlPattern(t *testing.T) {
	for _, tc := range []struct{ name, text, want, other string }{
		{"written out wins, null is left alone", `
sysctl = {
  "net.ipv4.conf.*.rp_filter"        = 0
  "net.ipv4.conf.eth0.rp_filter"     = 1
  "net/ipv4/conf/lo/rp_filter"       = null
}`, `
sysctl/net.ipv4.conf.all.rp_filter (warn) = 0
  /proc/sys/net/ipv4/conf/eth0/rp_filter: 1 (the kernel takes the larger one of all's and the device's)
  /proc/sys/net/ipv4/conf/lo/rp_filter: 2 (the kernel takes the larger one of all's and the device's)
sysctl/net.ipv4.conf.default.rp_filter (warn) = 0
sysctl/net.ipv4.conf.eth0/100.rp_filter (warn) = 0
sysctl/net.ipv4.conf.eth0.rp_filter (warn) = 1
  /etc/sysctl.d/50-other.conf:1: net.ipv4.conf.*.rp_filter = 0 (loses against /run/sysctl.d/zz-nodeprov.conf)
file//run/sysctl.d/zz-nodeprov.conf (warn) = 0644 0:0
# Written by nodeprov from the node profile, so that sysctl --system keeps what
# it has applied. Changes here are lost: change the profile.
-net.ipv4.conf.*.rp_filter = 0
net.ipv4.conf.all.rp_filter = 0
net.ipv4.conf.default.rp_filter = 0
-net.ipv4.conf.eth0.rp_filter = 1
-net.ipv4.conf.lo.rp_filter`, "net.ipv4.conf.*.rp_filter = 0"},
		{"tolerated, at least, all's is larger", `
sysctl = {
  "net.ipv4.conf.eth*.rp_filter" = best_effort(1)
  "net.ipv4.conf.?o.arp_announce" = at_least(1)
}`, `
sysctl/net.ipv4.conf.eth0.rp_filter (tolerate) = 1
  /proc/sys/net/ipv4/conf/all/rp_filter: 2 (the kernel takes the larger one of all's and the device's)
sysctl/net.ipv4.conf.eth0/100.rp_filter (tolerate) = 1
  /proc/sys/net/ipv4/conf/all/rp_filter: 2 (the kernel takes the larger one of all's and the device's)
sysctl/net.ipv4.conf.lo.arp_announce (warn) = 1
file//run/sysctl.d/zz-nodeprov.conf (warn) =`, ""},
		{"two patterns", `
sysctl = {
  "net.ipv4.conf.eth?.rp_filter" = 1
  "net.ipv4.conf.*0.rp_filter"   = 2
  "net.ipv4.conf.e*.arp_*"       = 1
  "net.ipv4.conf.et*.arp_*"      = 1
}`, `
sysctl/net.ipv4.conf.eth0.rp_filter (warn) = 1
  /proc/sys/net/ipv4/conf/all/rp_filter: 2 (the kernel takes the larger one of all's and the device's)
sysctl/net.ipv4.conf.eth0/100.rp_filter (warn) = 2
sysctl/net.ipv4.conf.eth0.arp_announce (warn) = 1
sysctl/net.ipv4.conf.eth0/100.arp_announce (warn) = 1
file//run/sysctl.d/zz-nodeprov.conf (warn) = 
4,3: Two patterns for one key: net.ipv4.conf.eth0.rp_filter is matched by net.ipv4.conf.*0.rp_filter here and by net.ipv4.conf.eth?.rp_filter at p.hcl:6:3, with different values. Write it out, or make the patterns narrower.`, ""},
		{"misspelt", `sysctl = { "net.ipv4.conf.*.rp_fliter" = 1 }`, `
sysctl/net.ipv4.conf.all.rp_fliter (warn): sysctl net.ipv4.conf.all.rp_fliter: the kernel has no such key (did you mean net.ipv4.conf.all.rp_filter?)
file//run/sysctl.d/zz-nodeprov.conf (warn) = 0644 0:0
# Written by nodeprov from the node profile, so that sysctl --system keeps what
# it has applied. Changes here are lost: change the profile.
net.ipv4.conf.all.rp_fliter = 1`, ""},
		{"directories are no keys", `sysctl = { "net.ipv4.*" = 1, "kernel.pani?" = 5 }`, `
sysctl/kernel.panic (warn) = 5
file//run/sysctl.d/zz-nodeprov.conf (warn) = 0644 0:0
# Written by nodeprov from the node profile, so that sysctl --system keeps what
# it has applied. Changes here are lost: change the profile.
kernel.panic = 5`, ""},
	} {
		t.Run(tc.name, func(t *testing.T) {
			files := sysctlTree("lo", "eth0", "eth0.100")
			files["etc/sysctl.d/50-other.conf"] = tc.other + "\n"
			h, _, _ := treeHost(t, files)
			sameText(t, tc.want, wantedOn(t, tc.text, h))
		})
	}
}

// Who else sets a key, and who wins.
func TestSysctlOthers(t *testing.T) {
	files := sysctlTree("eth0")
	for name, text := range map[string]string{
		"etc/sysctl.d/10-x.conf":           "# x\n\nnet.core.somaxconn = 128\nkernel.panic=10\n",
		"usr/lib/sysctl.d/50-default.conf": "-net.ipv4.conf.*.rp_filter = 2\nnet.ipv4.conf.eth0.arp_announce = 1\n",
		"etc/sysctl.d/zzz.conf":            "net/core/somaxconn = 256\n",
		"run/sysctl.d/zz-nodeprov.conf":    "net.core.somaxconn = 1\n",
		"etc/sysctl.conf":                  "kernel.panic = 30\n",
	} {
		files[name] = text
	}
	h, _, _ := treeHost(t, files)
	sameText(t, `
sysctl/net.core.somaxconn (warn) = 8192
  /etc/sysctl.d/10-x.conf:3: net.core.somaxconn = 128 (loses against /run/sysctl.d/zz-nodeprov.conf)
  /etc/sysctl.d/zzz.conf:1: net.core.somaxconn = 256 (wins at sysctl --system, as its name comes later than zz-nodeprov.conf: remove the line)
sysctl/kernel.panic (warn) = 10
  /etc/sysctl.conf:1: kernel.panic = 30 (wins at sysctl --system, which reads this file last: remove the line)
sysctl/net.ipv4.conf.all.rp_filter (warn) = 1
  /usr/lib/sysctl.d/50-default.conf:1: net.ipv4.conf.*.rp_filter = 2 (loses against /run/sysctl.d/zz-nodeprov.conf)
  /proc/sys/net/ipv4/conf/eth0/rp_filter: 2 (the kernel takes the larger one of all's and the device's)
sysctl/net.ipv4.conf.eth0.arp_announce (warn) = 2
  /usr/lib/sysctl.d/50-default.conf:2: net.ipv4.conf.eth0.arp_announce = 1 (wins at boot and when the device appears, until nodeprov applies: write the key out in the profile, or remove the line)
file//run/sysctl.d/zz-nodeprov.conf (warn) = 0644 0:0
# Written by nodeprov from the node profile, so that sysctl --system keeps what
# it has applied. Changes here are lost: change the profile.
net.core.somaxconn = 4096
kernel.panic = 10
net.ipv4.conf.all.rp_filter = 1
-net.ipv4.conf.et*.arp_announce = 2
`, wantedOn(t, `
sysctl = {
  "net.core.somaxconn"               = at_least(4096)
  "kernel.panic"                     = 10
  "net.ipv4.conf.all.rp_filter"      = 1
  "net.ipv4.conf.et*.arp_announce"   = 2
}`, h))
}

// The file has the keys that there are. It does not follow from live values, and has
// nothing that the kernel cannot lose.
func TestSysctlFile(t *testing.T) {
	var entries []kernelEntry
	add := func(key string, w *wish, best bool) {
		entries = append(entries, kernelEntry{parts: strings.Split(key, "."), wish: w, Entry: profile.Entry{Value: profile.Value{BestEffort: best}}})
	}
	add("kernel.panic", &wish{text: "10"}, false)
	add("net.core.somaxconn", &wish{least: big.NewInt(4096)}, false)
	add("kernel.pid_max", &wish{least: big.NewInt(4194304)}, false)
	add("vm.max_map_count", &wish{least: big.NewInt(262144)}, false)
	add("net.core.default_qdisc", &wish{text: "fq"}, true)
	add("kernel.modules_disabled", &wish{text: "1"}, false)
	add("net.ipv4.tcp_rmem", &wish{text: "1\t2  3"}, false)
	add("net.netfilter.nf_conntrack_max", &wish{text: "5"}, false)
	add("net.ipv4.conf.eth9.rp_filter", &wish{text: "1"}, false)
	add("net.ipv4.conf.eth9.arp_ignore", &wish{text: "1"}, false) // udev would set it unseen
	add("kernel.unknown", nil, false)
	file := func(h *host.Host, asked bool) string {
		var keys []kernelKey
		for i := range entries {
			if entries[i].wish != nil {
				keys = append(keys, kernelKey{entries[i].parts, &entries[i]})
			}
		}
		f := newSysctlFile(entries, keys)
		f.read, f.entries = true, []host.SysctlEntry{
			{File: "/etc/sysctl.d/1.conf", Parts: []string{"net", "core", "somaxconn"}, Value: "128"},
			{File: "/etc/sysctl.d/1.conf", Parts: []string{"kernel", "pid_max"}, Value: "5000000"},
			{File: "/etc/sysctl.d/2.conf", Parts: []string{"kernel", "*"}, Glob: true, Value: "1"},
			{File: "/etc/sysctl.d/2.conf", Parts: []string{"net", "ipv4", "conf", "*", "rp_filter"}, Glob: true, Value: "2"},
		}
		for _, k := range keys {
			live := Value{Text: "65536"}
			if k.parts[1] == "netfilter" || !asked {
				live = Value{Absent: true}
			}
			if _, err := f.recorded(&sysctl{k.parts}, k.entry.wish)(live); err != nil {
				t.Fatal(err)
			}
		}
		_, text, _ := strings.Cut(f.value(h).Text, "change the profile.\n")
		return text
	}
	live, err := host.New(host.Options{})
	if err != nil {
		t.Fatal(err)
	}
	image, _, _ := treeHost(t, nil)
	sameText(t, `
kernel.panic = 10
net.core.somaxconn = 4096
-net.core.default_qdisc = fq
net.ipv4.tcp_rmem = 1 2 3
-net.ipv4.conf.eth9.rp_filter = 1`, file(live, true))
	sameText(t, `
kernel.panic = 10
net.core.somaxconn = 4096
-net.core.default_qdisc = fq
net.ipv4.tcp_rmem = 1 2 3
net.netfilter.nf_conntrack_max = 5
-net.ipv4.conf.eth9.rp_filter = 1`, file(image, false))
	entries = entries[:1]
	if f := newSysctlFile(entries, nil); !f.value(live).Absent {
		t.Error("a file with nothing in it")
	}
}

func TestSysctlInexact(t *testing.T) {
	for _, tc := range []struct {
		key, want string
		inexact   bool
	}{
		{"kernel.yama.ptrace_scope", "3", true}, {"kernel.yama.ptrace_scope", "2", false},
		{"kernel.unprivileged_bpf_disabled", "1", true}, {"kernel.unprivileged_bpf_disabled", "2", false},
		{"kernel.kexec_load_disabled", "1", true}, {"kernel.modules_disabled", "1", true}, {"vm.nr_hugepages", "10", true}, {"kernel.panic", "1", false},
	} {
		s, err := openSysctl(tc.key)
		if err != nil {
			t.Fatal(err)
		}
		if got := s.Inexact(Value{Text: "0"}, Value{Text: tc.want}); (got != "") != tc.inexact {
			t.Errorf("%s = %s: %q", tc.key, tc.want, got)
		}
	}
}

func TestSysctlDevice(t *testing.T) {
	for key, want := range map[string]string{
		"net.ipv4.conf.eth0.rp_filter": "eth0", "net.ipv6.conf.eth0/100.accept_ra": "eth0.100", "net.ipv4.neigh.eth0.gc_stale_time": "eth0",
		"net.ipv4.conf.all.rp_filter": "", "net.ipv4.conf.default.rp_filter": "", "net.ipv6.neigh.default.gc_thresh1": "",
		"net.mpls.conf.eth0.input": "eth0", "net.ipv4.tcp_rmem": "", "net.ipv4.conf.eth0": "", "vm.ipv4.conf.eth0.x": "",
	} {
		s, err := openSysctl(key)
		if err != nil {
			t.Fatal(err)
		}
		if got := s.Device(); got != want {
			t.Errorf("%s: %q", key, got)
		}
	}
}

// The list of the machine's keys below net. is the kernel's: those that a fresh
// namespace shows writable are the namespace's.
func TestSysctlScope(t *testing.T) {
	list := func() (map[string]fs.FileMode, error) {
		keys := map[string]fs.FileMode{}
		err := filepath.WalkDir("/proc/sys/net", func(p string, d fs.DirEntry, err error) error {
			if err != nil || d.IsDir() {
				return err
			}
			// Those of a device are there where the device is.
			for _, dir := range []string{"/conf/", "/neigh/"} {
				if _, rest, ok := strings.Cut(p, dir); ok && !strings.HasPrefix(rest, "all/") && !strings.HasPrefix(rest, "default/") {
					return nil
				}
			}
			fi, err := os.Lstat(p)
			if errors.Is(err, fs.ErrNotExist) {
				return nil
			}
			if err != nil {
				return err
			}
			rel, err := filepath.Rel(host.SysctlRoot, p)
			keys[host.JoinSysctl(strings.Split(rel, "/"))] = fi.Mode().Perm()
			return err
		})
		return keys, err
	}
	here, err := list()
	if err != nil {
		t.Fatal(err)
	}
	ownNetNS(t, func() error {
		fresh, err := list()
		if err != nil {
			return err
		}
		if len(fresh) < 100 {
			return fmt.Errorf("a fresh namespace has %d keys only", len(fresh))
		}
		want, got := map[string]Scope{}, map[string]Scope{}
		for _, key := range slices.Sorted(maps.Keys(here)) {
			if here[key]&0o222 == 0 {
				continue // read-only everywhere
			}
			want[key] = Machine
			if fresh[key]&0o222 != 0 {
				want[key] = NetNS
			}
			s, err := openSysctl(key)
			if err != nil {
				return err
			}
			got[key] = s.scope()
		}
		if d := gocmp.Diff(want, got); d != "" {
			return fmt.Errorf("correct globalNetKeys: %s", d)
		}
		return nil
	})
	for key, want := range map[string]Scope{
		"kernel.panic": Machine, "vm.swappiness": Machine, "net.core.rmem_max": Machine, "net.core.somaxconn": NetNS,
		"net.netfilter.nf_conntrack_max": Machine, "net.ipv4.ip_forward": NetNS, "net.ipv4.route.gc_thresh": Machine, "net.ipv4.route.min_pmtu": NetNS,
	} {
		if s, err := openSysctl(key); err != nil || s.scope() != want {
			t.Errorf("%s: %s, %v", key, s.scope(), err)
		}
	}
}

// The whole path on a real kernel: apply twice, break by hand, roll back.
func TestSysctlKernel(t *testing.T) {
	h, err := host.New(host.Options{})
	if err != nil {
		t.Fatal(err)
	}
	const text = `
sysctl = {
  "net.core.somaxconn"          = at_least(8192)
  "net.ipv4.tcp_rmem"           = "4096 65536 1048576"
  "net/ipv4/ip_forward"         = true
  "net.ipv4.ip_local_port_range" = "20000 21000"
  "net.ipv4.ping_group_range"   = "0 2147483647"
  "net.ipv4.conf.*.arp_announce" = 2
  "net.ipv4.conf.lo.arp_announce" = 1
}`
	p := evaluate(t, text, (host.Facts{}).Value())
	ownNetNS(t, func() error {
		live := func() (string, error) {
			var b strings.Builder
			for _, k := range []string{"net.core.somaxconn", "net.ipv4.tcp_rmem", "net.ipv4.ip_forward", "net.ipv4.ip_local_port_range", "net.ipv4.ping_group_range",
				"net.ipv4.conf.all.arp_announce", "net.ipv4.conf.default.arp_announce", "net.ipv4.conf.lo.arp_announce"} {
				v, err := os.ReadFile("/proc/sys/" + strings.ReplaceAll(k, ".", "/"))
				if err != nil {
					return "", err
				}
				fmt.Fprintf(&b, "%s %q\n", k, v)
			}
			return b.String(), nil
		}
		e := &Engine{Host: h, Kinds: Kinds(), State: t.TempDir()}
		ws, diags := e.Desired(p, &host.Facts{}, PhaseAll)
		if diags.HasErrors() {
			return diags
		}
		before, err := live()
		if err != nil {
			return err
		}
		mustApply(t, e, ws)
		after, err := live()
		if err != nil {
			return err
		}
		want := `net.core.somaxconn "8192\n"
net.ipv4.tcp_rmem "4096\t65536\t1048576\n"
net.ipv4.ip_forward "1\n"
net.ipv4.ip_local_port_range "20000\t21000\n"
net.ipv4.ping_group_range "0\t2147483647\n"
net.ipv4.conf.all.arp_announce "2\n"
net.ipv4.conf.default.arp_announce "2\n"
net.ipv4.conf.lo.arp_announce "1\n"
`
		if d := gocmp.Diff(want, after); d != "" {
			return errors.New(d)
		}
		plan, _, err := e.Plan(t.Context(), ws, PhaseAll)
		if err != nil {
			return err
		}
		for _, c := range plan.Changes {
			if c.Action != None || c.Scope != NetNS {
				return fmt.Errorf("second plan: %s is to %s, scope %s", c.Key, c.Action, c.Scope)
			}
		}
		if n := len(plan.Changes); n != 8 {
			// No file: sysctl.d is for the first namespace.
			return fmt.Errorf("%d settings", n)
		}
		s, err := openSysctl("net.ipv4.tcp_congestion_control")
		if err != nil {
			return err
		}
		known, err := h.ReadSysctl("net.ipv4.tcp_available_congestion_control")
		if err != nil {
			return err
		}
		want = `sysctl net.ipv4.tcp_congestion_control: the kernel knows no "nosuch" (it knows ` + strings.Join(strings.Fields(known), ", ") +
			`; add "tcp_nosuch" to modules in the kernel block, if this machine has that module)`
		if err := s.Write(t.Context(), h, Value{Text: "nosuch"}); fmt.Sprint(err) != want {
			return fmt.Errorf("got %w, want %s", err, want)
		}
		if err := os.WriteFile("/proc/sys/net/ipv4/tcp_rmem", []byte("4096 4097 4098"), 0); err != nil {
			return err
		}
		mustApply(t, e, ws)
		if again, err := live(); err != nil || again != after {
			return fmt.Errorf("not mended: %s, %w", again, err)
		}
		mustRollback(t, e, 0)
		back, err := live()
		if err != nil {
			return err
		}
		if d := gocmp.Diff(before, back); d != "" {
			return errors.New(d)
		}
		return nil
	})
}

// A device that goes between the pattern's look and ours is no mistake of the profile; a
// key that a device does not have is one.
func TestSysctlPatternPasses(t *testing.T) {
	for _, tc := range []struct{ name, gone, want string }{
		{"device", "proc/sys/net/ipv4/conf/veth1", ""},
		{"key", "proc/sys/net/ipv4/conf/veth1/rp_filter", "the kernel has no such key"},
		{"disk", "sys/block/sdb", ""},
		{"file of a disk", "sys/block/sdb/queue/read_ahead_kb", "the kernel has no such file"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			root := t.TempDir()
			files := sysctlTree("veth1", "eth0")
			files["sys/block/sda/queue/read_ahead_kb"] = "128\n"
			files["sys/block/sdb/queue/read_ahead_kb"] = "128\n"
			files["sys/block/sdb/queue/scheduler"] = "[none]\n"
			for name, text := range files {
				p := filepath.Join(root, name)
				if err := errors.Join(os.MkdirAll(filepath.Dir(p), 0o755), os.WriteFile(p, []byte(text), 0o644)); err != nil {
					t.Fatal(err)
				}
			}
			h, err := host.New(host.Options{Root: root})
			if err != nil {
				t.Fatal(err)
			}
			e := &Engine{Host: h, Kinds: Kinds()}
			ws, diags := e.Desired(evaluate(t, `
sysctl = { "net.ipv4.conf.*.rp_filter" = 0 }
sysfs  = { "/sys/block/*/queue/read_ahead_kb" = at_least(4096) }`, cty.UnknownVal(host.FactsType())), nil, PhaseAll)
			if diags.HasErrors() {
				t.Fatal(diags)
			}
			if err := os.RemoveAll(filepath.Join(root, tc.gone)); err != nil {
				t.Fatal(err)
			}
			got, seen := "", false
			for _, w := range ws {
				live, err := w.Read(t.Context(), h)
				if err != nil {
					t.Fatal(err)
				}
				if !live.Absent || strings.HasPrefix(w.Key(), "file/") {
					continue
				}
				seen = true
				if err := w.Unsupported(h); err != nil {
					got = err.Error()
				} else if v, err := w.Want(live); err != nil || v != live {
					t.Errorf("%s: wants %s, %v", w.Key(), v, err)
				}
			}
			if !seen || (got == "") != (tc.want == "") || !strings.Contains(got, tc.want) {
				t.Errorf("%v: %q, want %q", seen, got, tc.want)
			}
		})
	}
}

// Keys that the kernel changes along with others: whatever the order, the second plan is
// empty.
func TestSysctlSideEffects(t *testing.T) {
	h, err := host.New(host.Options{})
	if err != nil {
		t.Fatal(err)
	}
	const text = `
sysctl = {
  "net.ipv4.conf.all.accept_redirects" = 0
  "net.ipv4.conf.lo.forwarding"        = 1
  "net.ipv6.conf.lo.forwarding"        = 1
  "net.ipv6.conf.all.forwarding"       = 0
  "net.ipv4.ip_forward"                = 0
}`
	p := evaluate(t, text, (host.Facts{}).Value())
	ownNetNS(t, func() error {
		keys := []string{"net.ipv4.ip_forward", "net.ipv6.conf.all.forwarding", "net.ipv4.conf.all.accept_redirects", "net.ipv4.conf.lo.forwarding", "net.ipv6.conf.lo.forwarding"}
		live := func() string {
			var b strings.Builder
			for _, k := range keys {
				v, err := h.ReadSysctl(k)
				fmt.Fprintf(&b, "%s %s %v\n", k, v, err)
			}
			return b.String()
		}
		for _, k := range keys[:2] {
			if err := h.WriteSysctl(k, "1"); err != nil {
				return err
			}
		}
		before := live()
		e := &Engine{Host: h, Kinds: Kinds(), State: t.TempDir()}
		ws, diags := e.Desired(p, &host.Facts{}, PhaseAll)
		if diags.HasErrors() {
			return diags
		}
		mustApply(t, e, ws)
		plan, _, err := e.Plan(t.Context(), ws, PhaseAll)
		if err != nil {
			return err
		}
		if n := plan.Summary().Due(); n > 0 || plan.New {
			t.Errorf("second plan: %d due\n%s", n, live())
		}
		mustRollback(t, e, 0)
		if d := gocmp.Diff(before, live()); d != "" {
			t.Error(d)
		}
		return nil
	})
}
