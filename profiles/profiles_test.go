package profiles_test

import (
	"errors"
	"io/fs"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/zclconf/go-cty/cty"

	"github.com/nodeprov/nodeprov/profiles"
	"github.com/nodeprov/nodeprov/provision/profile"
)

func TestCanonicalForm(t *testing.T) {
	for _, name := range profiles.Names() {
		src, err := profiles.Source(name)
		if err != nil {
			t.Fatal(err)
		}
		got, diags := profile.Format(src)
		if diags.HasErrors() {
			t.Fatal(diags)
		}
		if d := cmp.Diff(string(got), string(src.Text)); d != "" {
			t.Errorf("%s is not in canonical form (run make fmt): %s", name, d)
		}
	}
}

// A kernel that base was not written for is refused by its match block.
func TestBaseRefusesOldKernel(t *testing.T) {
	src, err := profiles.Source("base")
	if err != nil {
		t.Fatal(err)
	}
	host := cty.ObjectVal(map[string]cty.Value{
		"arch":   cty.StringVal("amd64"),
		"kernel": cty.ObjectVal(map[string]cty.Value{"version": cty.StringVal("5.10.0")}),
	})
	_, diags := profile.Load(src, profile.Options{
		Schemas: []profile.Schema{{Type: "sysctl", Map: true}}, Host: host, Include: profiles.Include,
	})
	if len(diags) != 1 || diags[0].Summary != "Host does not match" {
		t.Error(diags)
	}
}

// What kubelet checks under --protect-kernel-defaults.
func TestBaseSatisfiesKubelet(t *testing.T) {
	src, err := profiles.Source("base")
	if err != nil {
		t.Fatal(err)
	}
	p, diags := profile.Load(src, profile.Options{Schemas: []profile.Schema{{Type: "sysctl", Map: true}}, Include: profiles.Include})
	if diags.HasErrors() {
		t.Fatal(diags)
	}
	got := map[string]string{}
	for _, e := range p.Blocks[0].Attrs["sysctl"].Entries {
		if e.Value.Type() == cty.Number {
			got[e.Key] = e.Value.AsBigFloat().Text('f', -1)
		}
	}
	want := map[string]string{
		"vm.overcommit_memory": "1", "vm.panic_on_oom": "0", "kernel.panic": "10", "kernel.panic_on_oops": "1",
		"kernel.keys.root_maxkeys": "1000000", "kernel.keys.root_maxbytes": "25000000",
	}
	for k, v := range want {
		if got[k] != v {
			t.Errorf("%s = %q, want %q", k, got[k], v)
		}
	}
}

func TestSource(t *testing.T) {
	if d := cmp.Diff([]string{
		"base", "cpu-partitioning", "jumbo", "k3s-agent", "k3s-server", "kubelet-defaults", "latency-performance", "network-latency",
		"network-throughput", "throughput-performance",
	}, profiles.Names()); d != "" {
		t.Error(d)
	}
	for _, name := range []string{"", "bas", "base.hcl", "../base", "*"} {
		if _, err := profiles.Source(name); !errors.Is(err, fs.ErrNotExist) || !strings.Contains(err.Error(), "there are: base") {
			t.Errorf("%q: %v", name, err)
		}
	}
}
