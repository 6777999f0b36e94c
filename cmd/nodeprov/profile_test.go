package main

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/nodeprov/nodeprov/provision"
	"github.com/nodeprov/nodeprov/provision/host"
	"github.com/nodeprov/nodeprov/provision/profile"
)

func TestCredential(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "token"), []byte("secret\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	a := &app{env: env{environ: []string{"CREDENTIALS_DIRECTORY=" + dir}}}
	if got, err := a.credential("token"); got != "secret\n" || err != nil {
		t.Errorf("%q, %v", got, err)
	}
	for _, name := range []string{"", ".", "..", "../token", "/etc/passwd", "a/b", "a\x00b"} {
		if got, err := a.credential(name); got != "" || err == nil || !strings.Contains(err.Error(), "is not the name of a credential") {
			t.Errorf("%q: %q, %v", name, got, err)
		}
	}
	_, err := a.credential("nodeprov-test-none")
	for _, want := range []string{"no credential nodeprov-test-none in " + dir + " or /etc/credstore (", "LoadCredential=", "systemd-creds"} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v does not tell %q", err, want)
		}
	}
	if err := os.Mkdir(filepath.Join(dir, "directory"), 0o700); err != nil {
		t.Fatal(err)
	}
	if _, err := a.credential("directory"); err == nil || !strings.Contains(err.Error(), "credential directory: ") {
		t.Error(err)
	}
}

// A phase evaluates the constructs of its kinds, and no others.
func TestConstructs(t *testing.T) {
	kinds := provision.Kinds()
	if got := provision.Constructs(kinds, provision.PhaseAll); got != nil {
		t.Errorf("all: %q", got)
	}
	for _, k := range kinds {
		if k.Schema == nil {
			continue
		}
		if got := slices.Contains(provision.Constructs(kinds, provision.PhaseEarly), k.Schema.Type); got != k.Early {
			t.Errorf("early: %s is %v", k.Schema.Type, got)
		}
		if got := slices.Contains(provision.Constructs(kinds, provision.PhaseNIC("eth0")), k.Schema.Type); got != k.Device {
			t.Errorf("nic: %s is %v", k.Schema.Type, got)
		}
	}
}

// What is kept is evaluated without the files that it came from.
func TestKeptInput(t *testing.T) {
	text := func(s string) []byte { return []byte("nodeprov {\n  schema  = 1\n" + s) }
	k := &provision.Kept{Sources: []profile.Source{
		{Name: "/gone/profile.hcl", Text: text("  include = [\"lib/a.hcl\", \"builtin://gone\"]\n}\n")},
		{Name: "/gone/lib/a.hcl", Text: text("}\nsysctl = { \"kernel.printk\" = trimspace(file(\"p\")) }\n")},
		{Name: "builtin://gone", Text: text("}\nsysctl = { \"kernel.panic\" = 1 }\n")},
		{Name: "/gone/lib/p", Text: []byte("4\n")},
	}}
	in := (&app{}).keptInput(k)
	p := in.load(provision.Kinds(), nil, nil)
	if in.diags.HasErrors() || p == nil || in.profile != p {
		t.Fatal(in.diags)
	}
	var got []string
	for _, e := range p.Blocks[0].Attrs["sysctl"].Entries {
		got = append(got, e.Key)
	}
	if d := cmp.Diff([]string{"kernel.printk", "kernel.panic"}, got); d != "" {
		t.Error(d)
	}
	if d := cmp.Diff(k.Sources, p.Sources); d != "" {
		t.Error(d)
	}
	k.Sources = k.Sources[:3]
	in = (&app{}).keptInput(k)
	if p := in.load(provision.Kinds(), nil, nil); in.profile != nil || p == nil || !strings.Contains(summarize(in.diags), "/gone/lib/a.hcl:4:") {
		t.Error(in.diags)
	}
}

// A mistake of the language is told, and is no crash of the units that udev starts.
func TestEvaluateDevicesBad(t *testing.T) {
	h, err := host.New(host.Options{})
	if err != nil {
		t.Fatal(err)
	}
	in := &input{app: &app{}, src: profile.Source{Name: "p.hcl", Text: []byte("nodeprov {\n  schema = 1\n}\nnic \"x\" {\n  name = \"none0\"\n  mtuu = 1500\n}\n")}}
	_, err = evaluateDevices(t.Context(), &provision.Engine{Host: h, Kinds: provision.Kinds()}, in, nil)
	if err == nil || !strings.Contains(err.Error(), `no attribute "mtuu"`) {
		t.Error(err)
	}
}
