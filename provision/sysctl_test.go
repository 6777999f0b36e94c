package provision

import (
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	gocmp "github.com/google/go-cmp/cmp"

	"github.com/nodeprov/nodeprov/provision/host"
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
7,3: error: Invalid kernel key: Kernel keys look like net.core.somaxconn, and "kernel..bad" has an empty part (two separators in a row, or one at an end).
8,36: error: Invalid value of a kernel key: kernel.list: a string, a number, a bool or at_least(n) is needed, not a value of type list of object.`},
		{"keys", `
sysctl = {
  ""                       = 1
  "/proc/sys/kernel/panic" = 1
  "kernel.a/../../x"       = 1
  "kernel/../../x"         = 1
  "kernel panic"           = 1
  "net.ipv4.conf.*.rp_filter" = 1
  "kernel.panic"           = 1
  "kernel/panic"           = 2
}`, `
sysctl/kernel.panic = 1
3,3: error: Invalid kernel key: Kernel keys look like net.core.somaxconn, and the key is empty.
4,3: error: Invalid kernel key: Kernel keys look like net.core.somaxconn, and "/proc/sys/kernel/panic" is a path (write the key: what follows /proc/sys/).
5,3: error: Invalid kernel key: Kernel keys look like net.core.somaxconn, and "kernel.a/../../x" has an empty part (two separators in a row, or one at an end).
6,3: error: Invalid kernel key: Kernel keys look like net.core.somaxconn, and "kernel/../../x" leads out of /proc/sys.
7,3: error: Invalid kernel key: Kernel keys look like net.core.somaxconn, and "kernel panic" has a blank or a control character, which no key has.
8,3: error: Wildcard in a kernel key: "net.ipv4.conf.*.rp_filter" would match several keys, which this version cannot do. Write each key; a for expression can make them: { for n in ["eth0", "eth1"] : "net.ipv4.conf.${n}.rp_filter" => 2 }.
10,3: error: Kernel key given twice: "kernel/panic" is another spelling of "kernel.panic", which is set at p.hcl:12:3. Remove one of the two.`},
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
	s := &sysctl{}
	for _, tc := range []struct {
		live, want string
		same       bool
	}{
		{"4096\t131072\t6291456", "4096 131072  6291456 ", true}, {"1", "01", false}, {"", " ", true}, {"a b", "ab", false},
	} {
		if got := s.Same(Value{Text: tc.live}, Value{Text: tc.want}); got != tc.same {
			t.Errorf("%q and %q: %v", tc.live, tc.want, got)
		}
	}
	if s.Same(Value{Absent: true}, Value{}) {
		t.Error("absent is empty")
	}
}

func TestSysctlUnsupported(t *testing.T) {
	h, _, _ := treeHost(t, map[string]string{
		"proc/sys/net/core/somaxconn": "1\n", "proc/sys/net/ipv4/tcp_rmem": "1\n", "proc/sys/net/ipv4/tcp_wmem": "1\n", "proc/sys/vm/swappiness": "1\n",
		"proc/sys/net/netfilter/nf_log_all_netns": "1\n",
	})
	for _, tc := range []struct{ key, want string }{
		{"net.core.somaxcon", "sysctl net.core.somaxcon: the kernel has no such key (did you mean net.core.somaxconn?)"},
		{"net.ipv4.tpc_rmem", "sysctl net.ipv4.tpc_rmem: the kernel has no such key (did you mean net.ipv4.tcp_rmem?)"},
		{"nett.core.somaxconn", "sysctl nett.core.somaxconn: the kernel has no such key (did you mean net.core.somaxconn?)"},
		{"net.cor.nothing", "sysctl net.cor.nothing: the kernel has no such key (is it misspelt, of another kernel version, or of a module or device that is not there yet?)"},
		{"net.netfilter.nf_conntrack_max", "sysctl net.netfilter.nf_conntrack_max: the kernel has no such key, as module nf_conntrack is not loaded (echo nf_conntrack >/etc/modules-load.d/nf_conntrack.conf; modprobe nf_conntrack)"},
		{"net.bridge.bridge-nf-call-iptables", "sysctl net.bridge.bridge-nf-call-iptables: the kernel has no such key, as module br_netfilter is not loaded (echo br_netfilter >/etc/modules-load.d/br_netfilter.conf; modprobe br_netfilter)"},
		{"net.core.netdev_max_backlog", "sysctl net.core.netdev_max_backlog: the kernel has no such key (it is the whole machine's, and other network namespaces do not show it: run in the first one)"},
		{"vm.compaction_proactiveness", "sysctl vm.compaction_proactiveness: the kernel has no such key (is it misspelt, of another kernel version, or of a module or device that is not there yet?)"},
	} {
		s, err := openSysctl(tc.key)
		if err != nil {
			t.Fatal(err)
		}
		if v, err := s.Read(t.Context(), h); err != nil || !v.Absent {
			t.Errorf("%s: %v, %v", tc.key, v, err)
		}
		if err := s.unsupported(h); fmt.Sprint(err) != tc.want {
			t.Errorf("got  %v\nwant %s", err, tc.want)
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
}`
	p := evaluate(t, text, (host.Facts{}).Value())
	ownNetNS(t, func() error {
		live := func() (string, error) {
			var b strings.Builder
			for _, k := range []string{"net.core.somaxconn", "net.ipv4.tcp_rmem", "net.ipv4.ip_forward", "net.ipv4.ip_local_port_range", "net.ipv4.ping_group_range"} {
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
