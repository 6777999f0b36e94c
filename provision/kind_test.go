package provision

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"

	gocmp "github.com/google/go-cmp/cmp"
	"github.com/hashicorp/hcl/v2"
	"github.com/zclconf/go-cty/cty"
	"golang.org/x/sys/unix"

	"github.com/nodeprov/nodeprov/provision/host"
	"github.com/nodeprov/nodeprov/provision/profile"
)

// evaluate loads a profile of kinds' constructs; hostValue is what `host` is.
func evaluate(tb testing.TB, text string, hostValue cty.Value) *profile.Profile {
	tb.Helper()
	p, diags := profile.Load(profile.Source{Name: "p.hcl", Text: []byte("nodeprov {\n  schema = 1\n}\n" + text)},
		profile.Options{Schemas: Schemas(Kinds()), Host: hostValue})
	if diags.HasErrors() {
		tb.Fatalf("%v\n%s", diags, text)
	}
	return p
}

// wantedText is what a profile makes of a machine with these facts: settings as
// "KEY = VALUE" for a live value that is absent, and diagnostics as
// "LINE,COLUMN: SEVERITY: SUMMARY: DETAIL", where line 1 is the first of text.
func wantedText(tb testing.TB, text string, f *host.Facts) string {
	tb.Helper()
	v := cty.UnknownVal(host.FactsType())
	if f != nil {
		v = f.Value()
	}
	p := evaluate(tb, text, v)
	e := &Engine{Kinds: Kinds()}
	ws, diags := e.Desired(p, f, PhaseAll)
	var b strings.Builder
	for _, w := range ws {
		if w.Range.Filename != "p.hcl" || w.Range.Start.Line < 4 {
			tb.Errorf("%s: range %v", w.Key(), w.Range)
		}
		val, err := w.Want(Value{Absent: true})
		if err != nil {
			tb.Error(err)
		}
		fmt.Fprintf(&b, "%s = %s\n", w.Key(), val.Text)
	}
	slices.SortStableFunc(diags, func(a, b *hcl.Diagnostic) int { return cmp.Compare(a.Subject.Start.Byte, b.Subject.Start.Byte) })
	for _, d := range diags {
		severity := map[hcl.DiagnosticSeverity]string{hcl.DiagError: "error", hcl.DiagWarning: "warning"}[d.Severity]
		fmt.Fprintf(&b, "%d,%d: %s: %s: %s\n", d.Subject.Start.Line-3, d.Subject.Start.Column, severity, d.Summary, d.Detail)
	}
	return b.String()
}

func sameText(tb testing.TB, want, got string) {
	tb.Helper()
	if d := gocmp.Diff(strings.Split(strings.TrimSpace(want), "\n"), strings.Split(strings.TrimSpace(got), "\n")); d != "" {
		tb.Error(d)
	}
}

// treeHost is a machine in a directory with these files, and text renders it.
func treeHost(tb testing.TB, files map[string]string) (h *host.Host, root string, text func() string) {
	tb.Helper()
	root = tb.TempDir()
	for name, content := range files {
		p := filepath.Join(root, name)
		if err := errors.Join(os.MkdirAll(filepath.Dir(p), 0o755), os.WriteFile(p, []byte(content), 0o644)); err != nil {
			tb.Fatal(err)
		}
	}
	h, err := host.New(host.Options{Root: root})
	if err != nil {
		tb.Fatal(err)
	}
	return h, root, func() string {
		var b strings.Builder
		err := filepath.WalkDir(root, func(p string, d os.DirEntry, err error) error {
			if err != nil || d.IsDir() {
				return err
			}
			fi, err := d.Info()
			if err != nil {
				return err
			}
			content, err := os.ReadFile(p)
			fmt.Fprintf(&b, "%s %v %q\n", strings.TrimPrefix(p, root), fi.Mode(), content)
			return err
		})
		if err != nil {
			tb.Fatal(err)
		}
		return b.String()
	}
}

// ownNetNS runs f in a network namespace of its own, which goes with the thread.
func ownNetNS(tb testing.TB, f func() error) {
	tb.Helper()
	done := make(chan error, 1)
	go func() {
		runtime.LockOSThread() // never unlocked: the thread ends with the goroutine
		if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
			done <- os.NewSyscallError("unshare (root is needed)", err)
			return
		}
		done <- f()
	}()
	if err := <-done; err != nil {
		tb.Error(err)
	}
}

// Every kind opens the keys that it makes, and no others.
func TestKindsOpen(t *testing.T) {
	names := map[string][]string{
		"sysctl": {"net.core.somaxconn", "net.ipv4.conf.eth0/100.rp_filter"},
		"nic":    {"eth0/mtu", "eth0.100/mtu", "eth0/rings", "eth0/coalesce/rx_usecs", "eth0/feature/rx-gro-hw", "eth0/big_tcp/ipv4"},
		"queue":  {"eth0/irq", "eth0/xps", "eth0.100/rps", "eth0/rfs", "eth0/rss"},
		"qdisc":  {"eth0"},
		"file":   {"/etc/lbd/lbd.hcl"},
		"lbd":    nil,
		"unit":   {"lbd.service", "nodeprov-nic@eth0.service"},
	}
	wrong := map[string][]string{
		"sysctl": {"", "net/core/somaxconn", "../etc", "net..core"},
		"nic":    {"", "mtu", "/mtu", "eth0", "eth0/ring", "a/b/mtu", "eth0/coalesce", "eth0/coalesce/x", "eth0/feature/X", "eth0/big_tcp/ipv5", "much-too-long-name/mtu"},
		"queue":  {"", "eth0", "eth0/", "eth0/irq/24", "eth0/mtu"},
		"qdisc":  {"", "eth0/root", "a b"},

		"file": {"", "etc/x"},
		"lbd":  {"", "service"},
		"unit": {"", "lbd", ".service", "lbd.", "../lbd.service", "a b.service"},
	}
	for _, k := range Kinds() {
		for _, n := range names[k.Name] {
			s, err := k.Open(n)
			if err != nil {
				t.Errorf("%s: %v", k.Name, err)
			} else if s.Key() != k.Name+"/"+n {
				t.Errorf("%s/%s opens %s", k.Name, n, s.Key())
			}
		}
		for _, n := range wrong[k.Name] {
			if s, err := k.Open(n); err == nil {
				t.Errorf("%s/%s opens %s", k.Name, n, s.Key())
			}
		}
		delete(names, k.Name)
		if k.Schema != nil && (k.Wanted == nil || k.Schema.Doc == "") {
			t.Errorf("%s: a construct without Wanted or Doc", k.Name)
		}
		if k.Scope == "" || k.Lifetime == "" || k.Effect == "" {
			t.Errorf("%s: %+v", k.Name, k)
		}
	}
	if len(names) > 0 {
		t.Errorf("no kinds: %v", slices.Sorted(maps.Keys(names)))
	}
}

// One kind after another has the same thing, as the profile changes: each apply leaves
// nothing to do, and no profile leaves the files that there were.
func TestKindsInTurn(t *testing.T) {
	h, _, text := treeHost(t, map[string]string{
		"etc/default/irqbalance":                    "IRQBALANCE_ARGS=-v",
		"usr/lib/systemd/system/irqbalance.service": "[Install]\nWantedBy=multi-user.target\n",
		"usr/lib/systemd/system/x.service":          "[Service]\nExecStart=/bin/true\n[Install]\nWantedBy=multi-user.target\n",
	})
	e := &Engine{Host: h, Kinds: Kinds(), State: filepath.Join(t.TempDir(), "state"), Boot: "boot-1"}
	before := text()
	const own = `"[Service]\nExecStart=/bin/false\n[Install]\nWantedBy=multi-user.target\n"`
	for i, asked := range []string{
		"irqbalance {\n  mode = \"ban\"\n  banned_cpus = \"1\"\n}",
		"irqbalance {\n  mode = \"disable\"\n}",
		"unit \"irqbalance.service\" {\n  masked = true\n}",
		"unit \"x.service\" {\n  enabled = true\n  dropin \"a\" {\n    content = \"[Service]\\nNice=1\\n\"\n  }\n}",
		"unit \"x.service\" {\n  content = " + own + "\n  enabled = true\n}",
		"unit \"x.service\" {\n  masked = true\n}",
		"unit \"y.service\" {\n  content = " + own + "\n  enabled = true\n}\nfile \"/etc/default/irqbalance\" {\n  content = \"\"\n  mode = \"4750\"\n}",
		"file \"/etc/default/irqbalance\" {\n  state = \"absent\"\n}",
		"",
	} {
		ws, diags := e.Desired(evaluate(t, asked, cty.UnknownVal(host.FactsType())), nil, PhaseAll)
		if diags.HasErrors() {
			t.Fatal(diags)
		}
		if r := mustApply(t, e, ws); r.Result != Complete {
			t.Errorf("profile %d: %+v", i, r)
		}
		p, _, err := e.Plan(t.Context(), ws, PhaseAll)
		if err != nil || p.New || p.Summary().Due() > 0 {
			t.Errorf("profile %d, second plan: %v %+v", i, err, p.Summary())
		}
	}
	if d := gocmp.Diff(before, text()); d != "" {
		t.Errorf("(-before +after):\n%s", d)
	}
}
