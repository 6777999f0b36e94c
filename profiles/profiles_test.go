package profiles_test

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/zclconf/go-cty/cty"

	"github.com/nodeprov/nodeprov/profiles"
	"github.com/nodeprov/nodeprov/provision/profile"
)

// hosts are what the shipped profiles must load on: no host, the smallest
// machine and kernel, and a large one.
func hosts() map[string]cty.Value {
	host := func(arch, kernel string, cpus, memory int64) cty.Value {
		return cty.ObjectVal(map[string]cty.Value{
			"arch":   cty.StringVal(arch),
			"kernel": cty.ObjectVal(map[string]cty.Value{"release": cty.StringVal(kernel + "-generic"), "version": cty.StringVal(kernel)}),
			"cpu":    cty.ObjectVal(map[string]cty.Value{"count": cty.NumberIntVal(cpus), "online": cty.StringVal(fmt.Sprintf("0-%d", cpus-1))}),
			"memory": cty.ObjectVal(map[string]cty.Value{"total": cty.NumberIntVal(memory)}),
			"nics": cty.ListVal([]cty.Value{cty.ObjectVal(map[string]cty.Value{
				"name": cty.StringVal("eth0"), "driver": cty.StringVal("virtio_net"), "max_mtu": cty.NumberIntVal(65535), "virtual": cty.False,
			})}),
		})
	}
	small := host("arm64", "5.15.0", 1, 1<<30)
	return map[string]cty.Value{
		"unknown": cty.UnknownVal(small.Type()), "small": small, "large": host("amd64", "6.18.5", 256, 1<<40),
	}
}

func TestLoad(t *testing.T) {
	for _, name := range profiles.Names() {
		src, err := profiles.Source(name)
		if err != nil {
			t.Fatal(err)
		}
		for label, host := range hosts() {
			t.Run(name+"/"+label, func(t *testing.T) {
				p, diags := profile.Load(src, profile.Options{Schemas: []profile.Schema{{Type: "sysctl", Map: true}}, Host: host})
				if len(diags) > 0 {
					var b bytes.Buffer
					if err := profile.WriteText(&b, profile.Files(src), diags, 0, false); err != nil {
						t.Fatal(err)
					}
					t.Fatal(b.String())
				}
				if p.Name != "builtin://"+name || len(p.Blocks) == 0 {
					t.Errorf("%+v", p)
				}
			})
		}
		t.Run(name+"/format", func(t *testing.T) {
			got, diags := profile.Format(src)
			if diags.HasErrors() {
				t.Fatal(diags)
			}
			if d := cmp.Diff(string(got), string(src.Text)); d != "" {
				t.Error("not in canonical form:", d)
			}
		})
	}
}

// A kernel that base was not written for is refused by its match block.
func TestBaseRefusesOldKernel(t *testing.T) {
	src, err := profiles.Source("base")
	if err != nil {
		t.Fatal(err)
	}
	host := hosts()["small"].AsValueMap()
	host["kernel"] = cty.ObjectVal(map[string]cty.Value{"version": cty.StringVal("5.10.0")})
	_, diags := profile.Load(src, profile.Options{Schemas: []profile.Schema{{Type: "sysctl", Map: true}}, Host: cty.ObjectVal(host)})
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
	p, diags := profile.Load(src, profile.Options{Schemas: []profile.Schema{{Type: "sysctl", Map: true}}})
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
	if d := cmp.Diff([]string{"base"}, profiles.Names()); d != "" {
		t.Error(d)
	}
	for _, name := range []string{"", "bas", "base.hcl", "../base", "*"} {
		if _, err := profiles.Source(name); !errors.Is(err, fs.ErrNotExist) || !strings.Contains(err.Error(), "there are: base") {
			t.Errorf("%q: %v", name, err)
		}
	}
}
