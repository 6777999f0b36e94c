package profile

import (
	"bytes"
	"encoding/json"
	"flag"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/hashicorp/hcl/v2"
	"github.com/rogpeppe/go-internal/txtar"
	"github.com/zclconf/go-cty/cty"
)

var update = flag.Bool("update", false, "write the golden files")

// testHost is as much of a host as the language itself looks at, and a little
// more to refer to.
func testHost() cty.Value {
	nic := func(name string, mtu int64, virtual bool) cty.Value {
		return cty.ObjectVal(map[string]cty.Value{
			"name": cty.StringVal(name), "max_mtu": cty.NumberIntVal(mtu), "virtual": cty.BoolVal(virtual),
		})
	}
	thread := func(id, node int64, siblings string) cty.Value {
		return cty.ObjectVal(map[string]cty.Value{
			"id": cty.NumberIntVal(id), "node": cty.NumberIntVal(node), "siblings": cty.StringVal(siblings),
		})
	}
	return cty.ObjectVal(map[string]cty.Value{
		"arch": cty.StringVal("amd64"),
		"kernel": cty.ObjectVal(map[string]cty.Value{
			"release": cty.StringVal("6.1.0-18-amd64"), "version": cty.StringVal("6.1.76"),
		}),
		// Two threads a core, as x86 numbers them, on two NUMA nodes.
		"cpu": cty.ObjectVal(map[string]cty.Value{
			"count": cty.NumberIntVal(8), "online": cty.StringVal("0-7"),
			"threads": cty.ListVal([]cty.Value{
				thread(0, 0, "0,4"), thread(1, 0, "1,5"), thread(2, 1, "2,6"), thread(3, 1, "3,7"),
				thread(4, 0, "0,4"), thread(5, 0, "1,5"), thread(6, 1, "2,6"), thread(7, 1, "3,7"),
			}),
		}),
		"memory": cty.ObjectVal(map[string]cty.Value{"total": cty.NumberIntVal(16 << 30)}),
		"nics":   cty.ListVal([]cty.Value{nic("eth0", 9216, false), nic("veth1", 65535, true)}),
	})
}

func unknownHost() cty.Value { return cty.UnknownVal(testHost().Type()) }

func testSchemas() []Schema {
	return []Schema{
		{Type: "sysctl", Map: true},
		{Type: "nic", Label: "name", ForEach: true, Attrs: []Attr{
			{Name: "match", Type: cty.Map(cty.String)},
			{Name: "mtu", Type: cty.Number, Required: true},
			{Name: "on_missing", Type: cty.String, Default: cty.StringVal("fail")},
			{Name: "addresses", Type: cty.List(cty.Number), BestEffort: true},
			{Name: "features", Type: cty.DynamicPseudoType, BestEffort: true},
		}, Blocks: []Schema{
			{Type: "qdisc", Label: "kind", Attrs: []Attr{
				{Name: "on", Type: cty.String, Default: cty.StringVal("root")},
				{Name: "limit", Type: cty.Number, BestEffort: true},
			}, Blocks: []Schema{{Type: "class", Attrs: []Attr{{Name: "rate", Type: cty.Number, Required: true}}}}},
			{Type: "rss", Singleton: true, Attrs: []Attr{{Name: "indir", Type: cty.List(cty.Number)}}},
		}},
		{Type: "lbd", Singleton: true, Attrs: []Attr{
			{Name: "devices", Type: cty.List(cty.String)},
			{Name: "token", Type: cty.String},
			{Name: "mode", Type: cty.String},
		}},
	}
}

// options of a bad profile are in its first lines: "# var NAME=TEXT", "# host unknown".
func testOptions(text []byte) Options {
	o := Options{Schemas: testSchemas(), Host: testHost()}
	for line := range strings.Lines(string(text)) {
		switch f := strings.Fields(line); {
		case len(f) == 3 && f[1] == "var":
			name, value, _ := strings.Cut(f[2], "=")
			o.Vars = append(o.Vars, Assignment{Name: name, Text: value, From: "--var"})
		case len(f) == 3 && f[1] == "lenient":
			name, value, _ := strings.Cut(f[2], "=")
			o.Vars = append(o.Vars, Assignment{Name: name, Text: value, From: "NODEPROV_VAR_" + name, Lenient: true})
		case strings.HasPrefix(line, "# host unknown"):
			o.Host = unknownHost()
		}
	}
	return o
}

func text(t *testing.T, diags hcl.Diagnostics, sources ...Source) string {
	t.Helper()
	var b bytes.Buffer
	if err := WriteText(&b, Files(sources...), diags, 100, false); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

// TestBad holds what a person reads after each kind of mistake. Look at the
// differences after -update: they are the user interface.
func TestBad(t *testing.T) {
	files, err := filepath.Glob("testdata/bad/*.hcl")
	if err != nil || len(files) < 25 {
		t.Fatalf("%d profiles, %v", len(files), err)
	}
	for _, f := range files {
		t.Run(strings.TrimSuffix(filepath.Base(f), ".hcl"), func(t *testing.T) {
			src, err := os.ReadFile(f)
			if err != nil {
				t.Fatal(err)
			}
			s := Source{Name: "profile.hcl", Text: src}
			p, diags := Load(s, testOptions(src))
			if p != nil || !diags.HasErrors() {
				t.Fatalf("accepted: %+v", p)
			}
			got := text(t, diags, s)
			if strings.Contains(got, "hunter2") && !bytes.Contains(src, []byte("# literal")) {
				t.Errorf("a secret is shown:\n%s", got)
			}
			if !strings.Contains(got, "on profile.hcl:") {
				t.Errorf("no place in:\n%s", got)
			}
			golden := strings.TrimSuffix(f, ".hcl") + ".txt"
			if *update {
				if err := os.WriteFile(golden, []byte(got), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(golden)
			if err != nil {
				t.Fatal(err)
			}
			if d := cmp.Diff(string(want), got); d != "" {
				t.Error(d)
			}
		})
	}
}

const header1 = "nodeprov { schema = 1 }\n"

// load fails the test where the profile is refused.
func load(t *testing.T, body string, o Options) *Profile {
	t.Helper()
	src := Source{Name: "profile.hcl", Text: []byte(header1 + body)}
	if o.Schemas == nil {
		o.Schemas = testSchemas()
	}
	if o.Host == cty.NilVal {
		o.Host = testHost()
	}
	p, diags := Load(src, o)
	if diags.HasErrors() {
		t.Fatal(text(t, diags, src))
	}
	return p
}

func TestEvaluate(t *testing.T) {
	tests := []struct {
		expr string
		want cty.Value
	}{
		{`1 + 2 * 3`, cty.NumberIntVal(7)},
		{`host.arch`, cty.StringVal("amd64")},
		{`host["arch"]`, cty.StringVal("amd64")},
		{`host.cpu.count > 4 ? "big" : "small"`, cty.StringVal("big")},
		{`"${host.arch}-${host.cpu.count}"`, cty.StringVal("amd64-8")},
		{`[for n in host.nics : n.name if !n.virtual]`, cty.TupleVal([]cty.Value{cty.StringVal("eth0")})},
		{`host.nics[*].max_mtu`, cty.ListVal([]cty.Value{cty.NumberIntVal(9216), cty.NumberIntVal(65535)})},
		{`try(host.absent, "x")`, cty.StringVal("x")},
		{`can(host.absent)`, cty.False},
		{`try(host.nics[9].name, "none")`, cty.StringVal("none")},
		{`length("größe")`, cty.NumberIntVal(5)},
		{`length([1, 2])`, cty.NumberIntVal(2)},
		{`length({ a = 1 })`, cty.NumberIntVal(1)},
		{`length(host.nics)`, cty.NumberIntVal(2)},
		{`length(toset([1, 1]))`, cty.NumberIntVal(1)},
		{`index(["a", "b"], "b")`, cty.NumberIntVal(1)},
		{`["a", "b"][1]`, cty.StringVal("b")},
		{`replace("a.b.c", ".", "/")`, cty.StringVal("a/b/c")},
		{`replace("a1b22", "/[0-9]+/", "-")`, cty.StringVal("a-b-")},
		{`replace("a/b", "/", "")`, cty.StringVal("ab")},
		{`max(131072, 32768 * host.cpu.count)`, cty.NumberIntVal(262144)},
		{`join(" ", [4096, 131072, 16777216])`, cty.StringVal("4096 131072 16777216")},
		{`format("%s=%d", "a", 3)`, cty.StringVal("a=3")},
		{`merge({ a = 1 }, { b = 2 })`, cty.ObjectVal(map[string]cty.Value{"a": cty.NumberIntVal(1), "b": cty.NumberIntVal(2)})},
		{`lookup({ a = "x" }, "b", "y")`, cty.StringVal("y")},
		{`tonumber("12")`, cty.NumberIntVal(12)},
		{`jsondecode("{\"a\":[1]}").a[0]`, cty.NumberIntVal(1)},
		{`jsonencode({ a = [1] })`, cty.StringVal(`{"a":[1]}`)},
		{`setunion(["a"], ["b"])`, cty.SetVal([]cty.Value{cty.StringVal("a"), cty.StringVal("b")})},
		{`range(3)[2]`, cty.NumberIntVal(2)},
		{`at_least(4096) == at_least(4096)`, cty.True},
		{`startswith("abc", "ab") && endswith("abc", "bc") && strcontains("abc", "b") && !startswith("abc", "b")`, cty.True},
		{`sum([1, "2", 3.5])`, cty.NumberFloatVal(6.5)},
		{`sum([])`, cty.NumberIntVal(0)},
		{`alltrue([true, "true"])`, cty.True},
		{`alltrue([true, null])`, cty.False},
		{`alltrue([])`, cty.True},
		{`anytrue([false, true])`, cty.True},
		{`anytrue([])`, cty.False},
		{`one(["x"])`, cty.StringVal("x")},
		{`one([]) == null`, cty.True},
		{`one(toset([])) == null`, cty.True},
		{`one([for n in host.nics : n.name if !n.virtual])`, cty.StringVal("eth0")},
		{`base64decode(base64encode("größe"))`, cty.StringVal("größe")},
		{`sha256("abc")`, cty.StringVal("ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad")},
		{`basename("/a/b.hcl")`, cty.StringVal("b.hcl")},
		{`dirname("/a/b.hcl")`, cty.StringVal("/a")},
		{`urlencode("a b")`, cty.StringVal("a+b")},
		{`csvdecode("a,b\n1,2\n")[0].b`, cty.StringVal("2")},
		{`formatdate("YYYY", "2020-01-02T03:04:05Z")`, cty.StringVal("2020")},
		{`cidrhost("10.12.112.0/20", 16)`, cty.StringVal("10.12.112.16")},
		{`cidrhost("10.12.112.0/20", -1)`, cty.StringVal("10.12.127.255")},
		{`cidrhost("fd00:fd12:3456:7890:00a2::/72", 34)`, cty.StringVal("fd00:fd12:3456:7890::22")},
		{`cidrnetmask("172.16.0.0/12")`, cty.StringVal("255.240.0.0")},
		{`cidrsubnet("172.16.0.0/12", 4, 2)`, cty.StringVal("172.18.0.0/16")},
		{`cidrsubnet("fd00:fd12:3456:7890::/56", 16, 162)`, cty.StringVal("fd00:fd12:3456:7800:a200::/72")},
		{`cidrsubnet("10.1.2.3/16", 0, 0)`, cty.StringVal("10.1.0.0/16")},
		{`cpulist_len("0-3,8")`, cty.NumberIntVal(5)},
		{`cpulist_len("")`, cty.NumberIntVal(0)},
		{`cpulist_expand("2,0-1")`, cty.ListVal([]cty.Value{cty.NumberIntVal(0), cty.NumberIntVal(1), cty.NumberIntVal(2)})},
		{`cpulist_expand("")`, cty.ListValEmpty(cty.Number)},
		{`cpulist_sub("0-3,8", "1,2")`, cty.StringVal("0,3,8")},
		{`cpulist_sub("0-3", "0", "3")`, cty.StringVal("1-2")},
		{`cpulist_sub("0-3", "0-9")`, cty.StringVal("")},
		{`cpulist_mask("0-1,4-5")`, cty.StringVal("33")},
		{`cpulist_mask("")`, cty.StringVal("0")},
		{`cpulist_mask("31,64")`, cty.StringVal("1,00000000,80000000")},
		{`cpulist_union("8,1", "0,2-3\n")`, cty.StringVal("0-3,8")},
		{`cpulist_union([for c in range(4) : tostring(c)]...)`, cty.StringVal("0-3")},
		{`cpulist_intersect("0-3", "2-5", "3")`, cty.StringVal("3")},
		{`cpulist_contains("0-3,8", 8)`, cty.True},
		{`cpulist_contains("0-3,8", "2,8")`, cty.True},
		{`cpulist_contains("0-3,8", "2,9")`, cty.False},
		{`cpulist_first("4-7,1", 3)`, cty.StringVal("1,4-5")},
		{`cpulist_first_cores(host.cpu, 2)`, cty.StringVal("0-1,4-5")},
		{`cpulist_first_cores(host.cpu, 0)`, cty.StringVal("")},
		{`cpulist_first_cores(host.cpu, 4)`, cty.StringVal("0-7")},
		{`cpulist_sub(host.cpu.online, cpulist_first_cores(host.cpu, 2))`, cty.StringVal("2-3,6-7")},
		{`cpulist_node(host.cpu, 1)`, cty.StringVal("2-3,6-7")},
		{`cpulist_siblings(host.cpu, "1,6")`, cty.StringVal("1-2,5-6")},
		{`try(cpulist_first_cores(host.cpu, 5), "few")`, cty.StringVal("few")},
		{`try(cpulist_node(host.cpu, 2), "none")`, cty.StringVal("none")},
		{`[for t in ["0-", "a", "3-1", "0-8192", "-1", "0,,1", "0 1"] : try(cpulist_len(t), "bad")] == [for i in range(7) : "bad"]`, cty.True},
		{`[for f in [try(cidrhost("10.0.0.0/30", 4), "bad"), try(cidrhost("10.0.0.0/30", -5), "bad"), try(cidrhost("10.0.0.0", 1), "bad"),
			try(cidrhost("10.0.0.0/30", 0.5), "bad"), try(cidrhost("10.0.0.0/30", 1e99999999), "bad"), try(cidrnetmask("::/8"), "bad"),
			try(cidrsubnet("10.0.0.0/30", 3, 0), "bad"), try(cidrsubnet("10.0.0.0/24", 2, 4), "bad"), try(base64decode("!"), "bad"),
			try(base64decode("/w=="), "bad"), try(one([1, 2]), "bad"), try(sum([null]), "bad")] : f] == [for i in range(12) : "bad"]`, cty.True},
		{`local.b`, cty.NumberIntVal(3)},
		{`local["b"]`, cty.NumberIntVal(3)},
		{`var.list[0]`, cty.StringVal("x")},
	}
	for _, tt := range tests {
		t.Run(tt.expr, func(t *testing.T) {
			p := load(t, `
locals {
  b = local.a + 1 # before what it needs
  a = local.c + 1
}
locals { c = 1 }
variable "list" { default = ["x"] }
sysctl = { k = `+tt.expr+` }`, Options{})
			got := p.Blocks[0].Attrs["sysctl"].Entries[0].Value.Value
			if !got.RawEquals(tt.want) {
				t.Errorf("got %#v, want %#v", got, tt.want)
			}
		})
	}
}

func TestAtLeast(t *testing.T) {
	for _, tt := range []struct {
		expr string
		host cty.Value
		want cty.Value // NilVal: not an at_least
	}{
		{`at_least(4096)`, testHost(), cty.NumberIntVal(4096)},
		{`at_least("4096")`, testHost(), cty.NumberIntVal(4096)},
		{`at_least(host.cpu.count * 2)`, testHost(), cty.NumberIntVal(16)},
		{`at_least(host.cpu.count * 2)`, unknownHost(), cty.UnknownVal(cty.Number).RefineNotNull()},
		{`at_least(host.cpu.count * 2)`, cty.DynamicVal, cty.UnknownVal(cty.Number).RefineNotNull()},
		{`host.cpu.count > 4 ? at_least(2) : at_least(1)`, testHost(), cty.NumberIntVal(2)},
		{`host.cpu.count > 4 ? at_least(2) : at_least(1)`, unknownHost(), cty.UnknownVal(cty.Number).RefineNotNull()},
		{`at_least(var.secret)`, testHost(), cty.NumberIntVal(7).Mark(Sensitive)},
		{`4096`, testHost(), cty.NilVal},
	} {
		t.Run(tt.expr, func(t *testing.T) {
			p := load(t, `
variable "secret" {
  default   = 7
  sensitive = true
}
sysctl = { k = `+tt.expr+` }`, Options{Host: tt.host})
			got, ok := AtLeast(p.Blocks[0].Attrs["sysctl"].Entries[0].Value.Value)
			if want := tt.want != cty.NilVal; ok != want {
				t.Fatalf("is an at_least: %v", ok)
			} else if want && !got.RawEquals(tt.want) {
				t.Errorf("got %#v, want %#v", got, tt.want)
			}
		})
	}
	for _, v := range []cty.Value{cty.NilVal, cty.NullVal(AtLeastType), cty.StringVal("x"), cty.DynamicVal} {
		if _, ok := AtLeast(v); ok {
			t.Errorf("%#v is an at_least", v)
		}
	}
}

// rangeText is where something is and what stands there.
func rangeText(src []byte, r hcl.Range) string {
	return strings.TrimPrefix(place(r), "profile.hcl:") + " " + string(r.SliceBytes(src))
}

func entries(src []byte, v Value, indent string) string {
	var b strings.Builder
	for _, e := range v.Entries {
		b.WriteString(indent + e.Key + " @ " + rangeText(src, e.KeyRange) + " = " + rangeText(src, e.Value.Range) + "\n")
		b.WriteString(entries(src, e.Value, indent+"  "))
	}
	return b.String()
}

func TestRanges(t *testing.T) {
	body := `sysctl = ({
  "b"        = 1
  a          = null
  (host.arch) = at_least(2)
  "c${1}"    = { y = 1, x = [2] }
})
nic "up" {
  mtu      = 9000
  match    = { name = "eth0", driver = 1 }
  features = merge({ rx = true }, { tx = false })
}
lbd {}
`
	p := load(t, body, Options{})
	src := []byte(header1 + body)
	var b strings.Builder
	for _, block := range p.Blocks {
		b.WriteString(block.Type + " " + block.Label + " @ " + rangeText(src, block.Range) + "\n")
		for _, name := range names(block.Attrs) {
			v := block.Attrs[name]
			if name != "sysctl" {
				b.WriteString(" " + name + " = " + rangeText(src, v.Range) + "\n")
			}
			b.WriteString(entries(src, v, "  "))
		}
	}
	want := `sysctl  @ 2:1 sysctl
  b @ 3:3 "b" = 3:16 1
  a @ 4:3 a = 4:16 null
  amd64 @ 5:3 (host.arch) = 5:17 at_least(2)
  c1 @ 6:3 "c${1}" = 6:16 { y = 1, x = [2] }
    y @ 6:18 y = 6:22 1
    x @ 6:25 x = 6:29 [2]
      0 @ 6:30 2 = 6:30 2
nic up @ 8:1 nic "up"
 features = 11:14 merge({ rx = true }, { tx = false })
  rx @ 11:14 merge({ rx = true }, { tx = false }) = 11:14 merge({ rx = true }, { tx = false })
  tx @ 11:14 merge({ rx = true }, { tx = false }) = 11:14 merge({ rx = true }, { tx = false })
 match = 10:14 { name = "eth0", driver = 1 }
  name @ 10:16 name = 10:23 "eth0"
  driver @ 10:31 driver = 10:40 1
 mtu = 9:14 9000
 on_missing = 8:1 nic "up"
lbd  @ 13:1 lbd
`
	if d := cmp.Diff(want, b.String()); d != "" {
		t.Error(d)
	}
	got := p.Blocks[1].Attrs["match"].Entries[1].Value.Value
	if !got.RawEquals(cty.StringVal("1")) {
		t.Errorf("an element is not converted: %#v", got)
	}
}

func TestMapOfExpression(t *testing.T) {
	body := `locals { on = { "a" = 1, "b" = null } }
sysctl = merge(local.on, { "c" = 3 })
`
	p := load(t, body, Options{})
	want := `a @ 3:10 merge(local.on, { "c" = 3 }) = 3:10 merge(local.on, { "c" = 3 })
b @ 3:10 merge(local.on, { "c" = 3 }) = 3:10 merge(local.on, { "c" = 3 })
c @ 3:10 merge(local.on, { "c" = 3 }) = 3:10 merge(local.on, { "c" = 3 })
`
	if d := cmp.Diff(want, entries([]byte(header1+body), p.Blocks[0].Attrs["sysctl"], "")); d != "" {
		t.Error(d)
	}
	if p := load(t, "sysctl = null", Options{}); len(p.Blocks) != 0 {
		t.Errorf("null is a block: %+v", p.Blocks)
	}
	if p := load(t, "sysctl = {}", Options{}); len(p.Blocks) != 1 {
		t.Errorf("an empty map is no block: %+v", p.Blocks)
	}
}

// Without a host all that does not follow from it is known and checked.
func TestUnknownHost(t *testing.T) {
	for name, host := range map[string]cty.Value{"typed": unknownHost(), "dynamic": cty.DynamicVal} {
		t.Run(name, func(t *testing.T) {
			p := load(t, `
match {
  arch   = ["riscv64"]
  kernel = ">= 99"
}
locals { uplinks = [for n in host.nics : n.name if !n.virtual] }
variable "size" {
  default = 1
  validation {
    condition     = var.size < host.cpu.count
    error_message = "too many"
  }
}
sysctl = {
  "known"                = 1
  "late"                 = host.cpu.count * 2
  "x.${host.nics[0].name}" = 1
  "after"                = "y"
}
lbd { devices = local.uplinks }
`, Options{Host: host})
			v := p.Blocks[0].Attrs["sysctl"]
			var got []string
			for _, e := range v.Entries {
				known := "unknown"
				if e.Value.IsKnown() {
					known = "known"
				}
				got = append(got, e.Key+" "+known)
			}
			if d := cmp.Diff([]string{"known known", "late unknown", "after known"}, got); d != "" {
				t.Error(d)
			}
			if v.IsKnown() {
				t.Error("a map with an unknown key is known")
			}
			if d := p.Blocks[1].Attrs["devices"]; d.IsKnown() || !d.Type().Equals(cty.List(cty.String)) {
				t.Errorf("devices: %#v", d.Value)
			}
		})
	}
}

func TestMatchAccepts(t *testing.T) {
	for _, m := range []string{
		`match { arch = ["arm64", "amd64"] }`, `match { kernel = ">= 5.15" }`, `match { kernel = ">= 5.15, < 7.0, != 6.6.1" }`,
		`match { kernel = "~> 6.1" }`, `match { arch = null }`, `match { arch = [host.arch] }`,
	} {
		load(t, m, Options{})
	}
	// What distributions append must not make it a pre-release.
	for _, v := range []string{"5.15", "5.15.0-1-amd64", "6.18.5+deb13-cloud", "5.15.167.4-microsoft-standard-WSL2", "6.12.0-rc3"} {
		host := testHost().AsValueMap()
		host["kernel"] = cty.ObjectVal(map[string]cty.Value{"version": cty.StringVal(v)})
		load(t, `match { kernel = ">= 5.15" }`, Options{Host: cty.ObjectVal(host)})
	}
}

func TestVariables(t *testing.T) {
	given := func(name, text, from string) Assignment { return Assignment{Name: name, Text: text, From: from} }
	tests := []struct {
		name, declaration string
		vars              []Assignment
		want              cty.Value
	}{
		{"default", `default = "d"`, nil, cty.StringVal("d")},
		{"last wins", `default = "d"`, []Assignment{given("x", `"env"`, "NODEPROV_VAR_x"), {Name: "x", Value: cty.StringVal("file")}, given("x", `"flag"`, "--var")}, cty.StringVal("flag")},
		{"file wins over environment", `default = "d"`, []Assignment{given("x", `"env"`, "NODEPROV_VAR_x"), {Name: "x", Value: cty.StringVal("file")}}, cty.StringVal("file")},
		{"bad value that is overridden", `type = number`, []Assignment{given("x", `many`, "NODEPROV_VAR_x"), given("x", "3", "--var")}, cty.NumberIntVal(3)},
		{"text is literal", `type = string`, []Assignment{given("x", `"${q}`, "--var")}, cty.StringVal(`"${q}`)},
		{"empty text", `type = string`, []Assignment{given("x", "", "--var")}, cty.StringVal("")},
		{"list", `type = list(string)`, []Assignment{given("x", `["a", 1]`, "--var")}, cty.ListVal([]cty.Value{cty.StringVal("a"), cty.StringVal("1")})},
		{"bool", `type = bool`, []Assignment{given("x", "true", "--var")}, cty.True},
		{"optional", `type = object({ a = number, b = optional(string, "z") })`, []Assignment{given("x", `{ a = "1" }`, "--var")},
			cty.ObjectVal(map[string]cty.Value{"a": cty.NumberIntVal(1), "b": cty.StringVal("z")})},
		{"optional in default", "type = list(object({ a = optional(number, 5) }))\n default = [{}]", nil,
			cty.ListVal([]cty.Value{cty.ObjectVal(map[string]cty.Value{"a": cty.NumberIntVal(5)})})},
		{"null default", "type = string\n default = null", nil, cty.NullVal(cty.String)},
		{"lenient", `default = 1`, []Assignment{{Name: "other", Text: "(", From: "NODEPROV_VAR_other", Lenient: true}}, cty.NumberIntVal(1)},
		{"valid", "default = \"a\"\n validation {\n condition = var.x != host.arch\n error_message = \"no\"\n}", nil, cty.StringVal("a")},
		{"looks at another", "default = 1\n validation {\n condition = var.x < var.y\n error_message = \"no\"\n}", nil, cty.NumberIntVal(1)},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			p := load(t, "variable \"x\" {\n"+tt.declaration+"\n}\nvariable \"y\" { default = 2 }\nsysctl = { k = [var.x] }", Options{Vars: tt.vars})
			got := p.Blocks[0].Attrs["sysctl"].Entries[0].Value.Index(cty.NumberIntVal(0))
			if !got.RawEquals(tt.want) {
				t.Errorf("got %#v, want %#v", got, tt.want)
			}
		})
	}
}

// A value of a file of variables is complained about in that file.
func TestVariableFileRanges(t *testing.T) {
	src := Source{Name: "profile.hcl", Text: []byte(header1 + "variable \"n\" {\n type = number\n}\nvariable \"r\" {\n type = string\n validation {\n condition = var.r == \"a\"\n error_message = \"Only a.\"\n }\n}\n")}
	file := Source{Name: "dir/site.hclvars", Text: []byte("# site\nr = \"b\"\nn = [\n  1\n]\nq = 1\n")}
	vars, diags := ParseVars(file)
	if diags.HasErrors() {
		t.Fatal(diags)
	}
	_, diags = Load(src, Options{Vars: vars, Host: testHost()})
	want := `Error: Invalid value of variable

  on dir/site.hclvars:2:1:
    2: r = "b"
       ^^^^^^^

Only a.

The value of var.r is from dir/site.hclvars; the rule is at profile.hcl:8:14. Give another value.

Error: Unsuitable value

  on dir/site.hclvars:3:1:
    3: n = [
       ^^^^^
    4:   1
         ^
    5: ]
       ^

dir/site.hclvars does not give variable "n" a suitable value: number required, but have tuple. Give
it one of type number.

Error: Unknown variable

  on dir/site.hclvars:6:1:
    6: q = 1
       ^^^^^

dir/site.hclvars sets "q", and the profile has no variable of that name. Declare it with variable
"q" { … }, or leave it out.
`
	if d := cmp.Diff(want, text(t, diags, src, file)); d != "" {
		t.Error(d)
	}
}

// Marks must survive on the way to the kinds, and never keep a profile from
// loading where keys are not secret.
func TestSensitive(t *testing.T) {
	p := load(t, `
variable "token" {
  type      = string
  sensitive = true
}
locals { both = { t = "x-${var.token}", plain = 1 } }
sysctl = {
  "a" = local.both.t
  "b" = local.both.plain
  "c" = [var.token]
}
lbd { token = var.token }
nic "a" {
  mtu      = 1
  features = { t = var.token, u = 1 }
}
`, Options{Vars: []Assignment{{Name: "token", Text: "hunter2", From: "--var"}}})
	var got []string
	for _, e := range p.Blocks[0].Attrs["sysctl"].Entries {
		if e.Value.ContainsMarked() {
			got = append(got, e.Key)
		}
	}
	if d := cmp.Diff([]string{"a", "c"}, got); d != "" {
		t.Error(d)
	}
	if v := p.Blocks[1].Attrs["token"]; !v.HasMark(Sensitive) {
		t.Errorf("token: %#v", v.Value)
	}
	if v := p.Blocks[2].Attrs["features"]; v.IsMarked() || len(v.Entries) != 2 || !v.Entries[0].Value.HasMark(Sensitive) || v.Entries[1].Value.IsMarked() {
		t.Errorf("features: %#v", v)
	}
}

func TestLimits(t *testing.T) {
	const n = 2_000
	deep := map[string]string{
		"brackets":     "a = " + strings.Repeat("[", 50*n) + strings.Repeat("]", 50*n),
		"open":         "a = " + strings.Repeat("[", 50*n),
		"parentheses":  "a = " + strings.Repeat("(", n) + "1" + strings.Repeat(")", n),
		"maps":         "a = " + strings.Repeat("{a=", n) + "1" + strings.Repeat("}", n),
		"blocks":       strings.Repeat("a {\n", n) + strings.Repeat("}\n", n),
		"templates":    "a = " + strings.Repeat(`"${`, n) + "1" + strings.Repeat(`}"`, n),
		"heredocs":     "a = <<E\n" + strings.Repeat("${<<E\n", n),
		"directives":   `a = "` + strings.Repeat(`%{if true}`, n/4) + strings.Repeat(`%{endif}`, n/4) + `"`,
		"not":          "a = " + strings.Repeat("!", n) + "true",
		"minus":        "a = " + strings.Repeat("-", n) + "1",
		"sum":          "a = 1" + strings.Repeat("+1", n),
		"conditionals": "a = " + strings.Repeat("true ? 1 : ", n/2) + "1",
		"calls":        "a = " + strings.Repeat("max(", n) + "1" + strings.Repeat(")", n),
		"indexes":      "a = host" + strings.Repeat("[host]", n),
		"splats":       "a = host" + strings.Repeat("[*]", n),
		"for":          "a = " + strings.Repeat("[for x in [1] : ", n/4) + "x" + strings.Repeat("]", n/4),
		"for newlines": "a = {for x in [1] : x => 1" + strings.Repeat("\n+1", n) + "}",
		"in a list":    "a = [1" + strings.Repeat("\n+1", n) + "]",
	}
	for name, body := range deep {
		t.Run(name, func(t *testing.T) {
			src := Source{Name: "profile.hcl", Text: []byte(header1 + body)}
			p, diags := Load(src, Options{Host: testHost()})
			if p != nil || len(diags) != 1 || diags[0].Summary != "Nested too deeply" {
				t.Errorf("%+v", diags)
			}
			if out := text(t, diags); len(out) > 1000 {
				t.Errorf("%d bytes of message", len(out))
			}
			if len(body) < 20*n {
				if _, diags := Format(src); !diags.HasErrors() {
					t.Error("Format accepts it")
				}
			}
		})
	}
	// As deep as allowed, and as long as anybody likes.
	const d = maxNesting/2 - 5
	for name, expr := range map[string]string{
		"brackets":    strings.Repeat("[", d) + strings.Repeat("]", d),
		"parentheses": strings.Repeat("(", d) + "1" + strings.Repeat(")", d),
		"maps":        strings.Repeat("{a=", d) + "1" + strings.Repeat("}", d),
		"templates":   strings.Repeat(`"${`, d) + "1" + strings.Repeat(`}"`, d),
		"sum":         "1" + strings.Repeat("+1", d),
		"for":         strings.Repeat("[for x in [1] : ", d/4) + "x" + strings.Repeat("]", d/4),
		"list":        "[" + strings.Repeat("1 + 1,\n", n/4) + "]",
		"map":         "{\n" + manyKeys(n/20) + "}",
	} {
		t.Run("allowed "+name, func(t *testing.T) { load(t, "sysctl = { k = "+expr+" }", Options{}) })
	}
	for name, body := range map[string]string{
		"a run of garbage": strings.Repeat("\x11", 100*n), "lines of garbage": strings.Repeat("\x11 !\n", 10*n),
		"statements": strings.Repeat("a.b = 1\n", n), "redefined": "locals {\n" + strings.Repeat("a = 1\n", n) + "}\n",
	} {
		t.Run(name, func(t *testing.T) {
			src := Source{Name: "profile.hcl", Text: []byte(header1 + body)}
			p, diags := Load(src, Options{Host: testHost()})
			if p != nil || len(diags) == 0 || len(diags) > maxSyntax+1 {
				t.Errorf("%d diagnostics", len(diags))
			}
			if out := text(t, diags, src); len(out) > 100_000 {
				t.Errorf("%d bytes of message", len(out))
			}
		})
	}
	t.Run("chain of locals", func(t *testing.T) {
		var b strings.Builder
		b.WriteString("locals {\n v0 = 1\n")
		for i := range 2_000 {
			b.WriteString(" v" + strconv.Itoa(i+1) + " = local.v" + strconv.Itoa(i) + " + 1\n")
		}
		p := load(t, b.String()+"}\nsysctl = { k = local.v2000 }", Options{})
		if got := p.Blocks[0].Attrs["sysctl"].Entries[0].Value.Value; !got.RawEquals(cty.NumberIntVal(2001)) {
			t.Errorf("%#v", got)
		}
	})
	t.Run("size", func(t *testing.T) {
		src := Source{Name: "profile.hcl", Text: []byte(header1 + strings.Repeat("#", MaxSize))}
		if p, diags := Load(src, Options{}); p != nil || len(diags) != 1 || diags[0].Summary != "File too large" || !strings.Contains(diags[0].Detail, "more than 1048576 bytes") {
			t.Error(diags)
		}
		src.Text = src.Text[:MaxSize]
		if d := src.check(); d != nil {
			t.Error(d)
		}
	})
}

func manyKeys(n int) string {
	var b strings.Builder
	for i := range n {
		b.WriteString("k" + strconv.Itoa(i) + " = " + strconv.Itoa(i) + "\n")
	}
	return b.String()
}

// Mistakes of the caller panic.
func TestPanics(t *testing.T) {
	for name, o := range map[string]Options{
		"own type":  {Schemas: []Schema{{Type: "match"}}},
		"twice":     {Schemas: []Schema{{Type: "a"}, {Type: "a"}}},
		"default":   {Schemas: []Schema{{Type: "a", Attrs: []Attr{{Name: "b", Type: cty.Number, Default: cty.StringVal("x")}}}}},
		"bare host": {Host: cty.EmptyObjectVal},
	} {
		t.Run(name, func(t *testing.T) {
			defer func() {
				if recover() == nil {
					t.Error("no panic")
				}
			}()
			Load(Source{Name: "p", Text: []byte(header1 + "match { arch = [\"amd64\"] }")}, o)
		})
	}
}

// FuzzLoad splits its input into several sources at lines "-- NAME --", the first
// of them being the profile.
func FuzzLoad(f *testing.F) {
	files, err := filepath.Glob("testdata/bad/*.hcl")
	if err != nil {
		f.Fatal(err)
	}
	for _, name := range files {
		src, err := os.ReadFile(name)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(src)
	}
	for _, s := range []string{
		`nic "a" {
  for_each = { for n in host.nics : n.name => n }
  mtu      = best_effort(each.value.max_mtu)
  qdisc "x" {
    class { rate = each.key }
  }
  dynamic "qdisc" {
    for_each = [1, each.value]
    iterator = q
    labels   = [q.key]
    content {
      limit = q.value
      dynamic "class" {
        for_each = toset(["a"])
        content { rate = class.value }
      }
    }
  }
}`,
		"nic \"a\" {\n for_each = toset([\"a\", null])\n mtu = 1\n addresses = [best_effort(1)]\n}\nlbd {\n devices = best_effort([file(\"b\")])\n}\n",
		"sysctl = { a = templatefile(\"b\", { x = 1 }), b = credential(\"c\") }\n-- b --\n${x} %{ for i in [1] }${i}%{ endfor }",
		"sysctl = { a = 1 }\nnodeprov {\n schema = 1\n include = [\"b\"]\n}\n-- b --\nnodeprov {\n schema = 1\n include = [\"b\", \"c\"]\n}\nsysctl = { a = null, b = local.x }\nvariable \"v\" { type = string }\n" +
			"-- c --\nvariable \"v\" { type = number }\nlocals { x = cpulist_first_cores(host.cpu, 2) }\nnic \"a\" {\n mtu = var.v\n qdisc \"a\" {}\n}\n",
	} {
		f.Add([]byte("nodeprov { schema = 1 }\n" + s))
	}
	f.Fuzz(func(t *testing.T, input []byte) {
		ar := txtar.Parse(input)
		sources := []Source{{Name: "profile.hcl", Text: ar.Comment}}
		for _, f := range ar.Files {
			sources = append(sources, Source{Name: f.Name, Text: f.Data})
		}
		find := func(name string) (Source, error) {
			if i := slices.IndexFunc(sources, func(s Source) bool { return s.Name == name }); i >= 0 {
				return sources[i], nil
			}
			return Source{}, os.ErrNotExist
		}
		for _, o := range []Options{{Host: testHost()}, {Host: unknownHost()}, {Host: testHost(), Only: []string{"nic"}}} {
			o.Schemas = testSchemas()
			o.Include = func(from, ref string) (Source, error) { return find(Resolve(from, ref)) }
			o.ReadFile = func(from, path string) ([]byte, error) {
				s, err := find(Resolve(from, path))
				return s.Text, err
			}
			p, diags := Load(sources[0], o)
			if (p == nil) != diags.HasErrors() {
				t.Fatalf("profile %v with %v", p, diags)
			}
			for _, d := range diags {
				if strings.Contains(d.Detail, "panic in function") {
					t.Fatal(d.Detail)
				}
			}
			render(t, diags, sources...)
			if p != nil {
				wellFormed(t, p.Blocks, o.Schemas)
			}
		}
	})
}

// wellFormed is what kinds rely on.
func wellFormed(t *testing.T, blocks []Block, schemas []Schema) {
	seen := map[string]bool{}
	for _, b := range blocks {
		i := slices.IndexFunc(schemas, func(s Schema) bool { return s.Type == b.Type })
		if i < 0 {
			t.Fatalf("a block %q, which no schema has", b.Type)
		}
		s := schemas[i]
		if id := b.Type + " " + b.Label + " " + b.Each; seen[id] && (s.Singleton || s.Map || s.Label != "") {
			t.Fatalf("%s twice", id)
		} else {
			seen[id] = true
		}
		if (b.Label == "") != (s.Label == "") || b.Range.Filename == "" {
			t.Fatalf("%+v", b)
		}
		for name, v := range b.Attrs {
			i := slices.IndexFunc(s.Attrs, func(a Attr) bool { return a.Name == name })
			if s.Map {
				uniqueKeys(t, v)
				continue
			}
			if ty := s.Attrs[i].Type; ty != cty.DynamicPseudoType && !v.Type().Equals(ty) {
				t.Fatalf("%s is %#v", name, v.Value)
			}
			if holds(v.Type(), isBestEffort) || v.BestEffort && !s.Attrs[i].BestEffort {
				t.Fatalf("%s has a best_effort", name)
			}
			uniqueKeys(t, v)
		}
		wellFormed(t, b.Blocks, s.Blocks)
	}
}

func uniqueKeys(t *testing.T, v Value) {
	seen := map[string]bool{}
	for _, e := range v.Entries {
		if seen[e.Key] || e.KeyRange.Filename == "" || e.Value.Range.Filename == "" {
			t.Fatalf("%+v", e)
		}
		seen[e.Key] = true
		uniqueKeys(t, e.Value)
	}
}

// render writes diags in every form, hcl's own included, and returns it all.
func render(t *testing.T, diags hcl.Diagnostics, sources ...Source) []byte {
	var out bytes.Buffer
	files := Files(sources...)
	for _, width := range []int{0, 1, 80} {
		if err := WriteText(&out, files, diags, width, width == 80); err != nil {
			t.Fatal(err)
		}
	}
	if err := json.NewEncoder(&out).Encode(JSON(files, diags)); err != nil {
		t.Fatal(err)
	}
	for _, d := range diags {
		if err := hcl.NewDiagnosticTextWriter(&out, files, 80, false).WriteDiagnostic(d); err != nil {
			t.Fatal(err)
		}
	}
	return out.Bytes()
}

// FuzzSensitive puts an expression where expressions go, and looks for the secret
// in what is printed.
func FuzzSensitive(f *testing.F) {
	for _, expr := range []string{
		`tonumber(var.s)`, `[for x in split("", var.s) : tonumber(x)]`, `{ for x in [var.s, var.s] : x => 1 }`,
		`regex(var.s, "")`, `host[var.s]`, `{}[var.s]`, `try(tonumber(var.s))`, `jsondecode(var.s)`, `format(var.s, 1)`,
		`"${var.s}" + 1`, `jsondecode("{\"${var.s}\":1}").x`, `parseint(var.s, 36) / 0`, `index([1], var.s)`, `var.s ? 1 : 2`,
		`[for k, v in { (var.s) = 1 } : tonumber(k)]`, `lookup({}, var.s)`, `zipmap([var.s], [1]).y`, `tomap({ (var.s) = 1 }).y`,
		`best_effort(var.s)`, `at_least(var.s)`, `toset([var.s])`, `{ (var.s) = var.s }`, `[var.s]`, `credential("s")`, `tonumber(credential("s"))`,
		`parseint(credential("s"), 36)`, `credential(var.s)`, `file(var.s)`, `cpulist_len(var.s)`, `cidrhost(credential("s"), 1)`,
		`templatefile("t", { x = var.s })`, `templatefile("t", { x = credential("s") })`, `base64decode(var.s)`, `timeadd(var.s, "1h")`,
	} {
		f.Add(expr)
	}
	const secret = "Hunter2Secret"
	const fixed = header1 + `variable "s" {
  type      = string
  sensitive = true
}
`
	// One place at a time: the mistakes of one hide none of another, and an
	// expression that fails is printed once.
	sources := []string{`variable "v" {
  default = 1
  validation {
    condition     = EXPR
    error_message = "message"
  }
  validation {
    condition     = var.v != 1
    error_message = EXPR
  }
}
`, `locals { l = EXPR }
match { arch = EXPR }
sysctl = {
  a      = EXPR
  (EXPR) = 1
  b      = local.l
}
`, `nic "a" {
  for_each = EXPR
  mtu      = EXPR
  match    = { a = each.value, b = EXPR }
  dynamic "qdisc" {
    for_each = EXPR
    labels   = [EXPR]
    content { limit = qdisc.value }
  }
}
`}
	f.Fuzz(func(t *testing.T, expr string) {
		if strings.Contains(strings.ToLower(expr), "hunter") || len(expr) > 300 {
			return
		}
		for _, source := range sources {
			src := Source{Name: "profile.hcl", Text: []byte(fixed + strings.ReplaceAll(source, "EXPR", expr))}
			_, diags := Load(src, Options{
				Schemas: testSchemas(), Host: testHost(), Vars: []Assignment{{Name: "s", Text: secret, From: "--var"}},
				ReadFile:   func(string, string) ([]byte, error) { return []byte("${tonumber(x)}"), nil },
				Credential: func(string) (string, error) { return secret, nil },
			})
			var out bytes.Buffer
			files := map[string]*hcl.File{src.Name: {Bytes: src.Text}}
			if err := WriteText(&out, files, diags, 0, false); err != nil {
				t.Fatal(err)
			}
			for _, d := range diags {
				if d.Expression == nil || d.EvalContext == nil {
					continue // hcl's writer has nothing that ours has not
				}
				if err := hcl.NewDiagnosticTextWriter(&out, files, 0, false).WriteDiagnostic(d); err != nil {
					t.Fatal(err)
				}
			}
			if i := bytes.Index(bytes.ToLower(out.Bytes()), []byte("hunter2")); i >= 0 {
				t.Fatalf("the secret is shown: %s", out.Bytes()[max(0, i-500):min(out.Len(), i+50)])
			}
		}
	})
}
