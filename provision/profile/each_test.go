package profile

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/hashicorp/hcl/v2"
	"github.com/zclconf/go-cty/cty"
)

// outline is all that blocks hold, as text; places are those of the last test
// source, as FILE:LINE:COLUMN.
func outline(blocks []Block, indent string) string {
	var b strings.Builder
	for _, bl := range blocks {
		b.WriteString(indent + bl.Type)
		if bl.Label != "" {
			fmt.Fprintf(&b, " %q", bl.Label)
		}
		if bl.Each != "" {
			fmt.Fprintf(&b, " each %q", bl.Each)
		}
		b.WriteString(" @ " + place(bl.Range) + "\n")
		for _, name := range names(bl.Attrs) {
			v := bl.Attrs[name]
			if len(v.Entries) == 0 {
				b.WriteString(indent + "  " + name + " = " + valueOutline(v) + "\n")
				continue
			}
			b.WriteString(indent + "  " + name + " @ " + place(v.Range) + "\n")
			for _, e := range v.Entries {
				b.WriteString(indent + "    " + e.Key + " = " + valueOutline(e.Value) + "\n")
			}
		}
		b.WriteString(outline(bl.Blocks, indent+"  "))
	}
	return b.String()
}

func valueOutline(v Value) string {
	raw, marks := v.UnmarkDeep()
	text := "(unknown)"
	if n, ok := AtLeast(raw); ok {
		text, raw = ">= ", n
		if !n.IsKnown() {
			text += "(unknown)"
		}
	} else if raw.IsKnown() {
		text = ""
	}
	if raw.IsKnown() {
		text += valueText(raw)
	}
	if len(marks) > 0 {
		text += " sensitive"
	}
	if v.BestEffort {
		text += " best effort"
	}
	return text + " @ " + place(v.Range)
}

func sameOutline(t *testing.T, p *Profile, want string) {
	t.Helper()
	if d := cmp.Diff(strings.TrimLeft(want, "\n"), strings.ReplaceAll(outline(p.Blocks, ""), "profile.hcl:", "")); d != "" {
		t.Error(d)
	}
}

func TestForEach(t *testing.T) {
	p := load(t, `
nic "up" {
  for_each = { for n in host.nics : n.name => n if !n.virtual }
  mtu      = each.value.max_mtu
  match    = { name = each.key }
}
nic "set" {
  for_each = toset(["b", "a"])
  mtu      = length("${each.key}${each.value}")
  features = [for each in [1] : each]
}
nic "one" { mtu = 1 }
nic "none" {
  for_each = {}
  mtu      = each.value.whatever
}
`, Options{})
	sameOutline(t, p, `
nic "up" each "eth0" @ 3:1
  match @ 6:14
    name = "eth0" @ 6:23
  mtu = 9216 @ 5:14
  on_missing = "fail" @ 3:1
nic "set" each "a" @ 8:1
  features @ 11:14
    0 = 1 @ 11:14
  mtu = 2 @ 10:14
  on_missing = "fail" @ 8:1
nic "set" each "b" @ 8:1
  features @ 11:14
    0 = 1 @ 11:14
  mtu = 2 @ 10:14
  on_missing = "fail" @ 8:1
nic "one" @ 13:1
  mtu = 1 @ 13:19
  on_missing = "fail" @ 13:1
`)
}

func TestNestedBlocks(t *testing.T) {
	p := load(t, `
locals { rates = { slow = 1, fast = 9 } }
nic "up" {
  for_each = { eth0 = [5, 6] }
  mtu      = 1
  qdisc "a" {
    limit = each.value[0]
    class { rate = each.value[1] }
    class { rate = 2 }
  }
  dynamic "qdisc" {
    for_each = local.rates
    labels   = [qdisc.key]
    content {
      limit = qdisc.value
      dynamic "class" {
        for_each = each.value
        iterator = c
        content { rate = c.value * 10 + c.key + qdisc.value * 100 }
      }
    }
  }
  rss { indir = [1, 0] }
  qdisc "z" {}
}
`, Options{})
	sameOutline(t, p, `
nic "up" each "eth0" @ 4:1
  mtu = 1 @ 6:14
  on_missing = "fail" @ 4:1
  qdisc "a" @ 7:3
    limit = 5 @ 8:13
    on = "root" @ 7:3
    class @ 9:5
      rate = 6 @ 9:20
    class @ 10:5
      rate = 2 @ 10:20
  qdisc "fast" @ 12:3
    limit = 9 @ 16:15
    on = "root" @ 15:5
    class @ 17:7
      rate = 950 @ 20:26
    class @ 17:7
      rate = 961 @ 20:26
  qdisc "slow" @ 12:3
    limit = 1 @ 16:15
    on = "root" @ 15:5
    class @ 17:7
      rate = 150 @ 20:26
    class @ 17:7
      rate = 161 @ 20:26
  rss @ 24:3
    indir @ 24:17
      0 = 1 @ 24:18
      1 = 0 @ 24:21
  qdisc "z" @ 25:3
    on = "root" @ 25:3
`)
}

// Without a host there is no telling how many blocks there are, but they are
// checked.
func TestUnknownForEach(t *testing.T) {
	const body = `
nic "up" {
  for_each = { for n in host.nics : n.name => n }
  mtu      = each.value.max_mtu
  qdisc "a" { limit = each.value.limit }
}
nic "dynamic" {
  mtu = 1
  dynamic "qdisc" {
    for_each = host.nics
    labels   = [qdisc.value.name]
    content { limit = qdisc.value.max_mtu }
  }
}
`
	p := load(t, body, Options{Host: unknownHost()})
	sameOutline(t, p, `
nic "dynamic" @ 8:1
  mtu = 1 @ 9:9
  on_missing = "fail" @ 8:1
`)
	src := Source{Name: "profile.hcl", Text: []byte(header1 + strings.NewReplacer("= each.value.max_mtu", `= "much"`, "qdisc.value.max_mtu", "qdisc.value.max_mto").Replace(body))}
	_, diags := Load(src, Options{Schemas: testSchemas(), Host: unknownHost()})
	want := []string{"5:14 Unsuitable value", "13:34 Unsupported attribute"}
	if d := cmp.Diff(want, places(diags)); d != "" {
		t.Error(d)
	}
}

// places is LINE:COLUMN SUMMARY of each.
func places(diags hcl.Diagnostics) []string {
	var out []string
	for _, d := range diags {
		at := ""
		if d.Subject != nil {
			at = strings.TrimPrefix(place(*d.Subject), "profile.hcl:") + " "
		}
		out = append(out, at+d.Summary)
	}
	return out
}

func TestBestEffort(t *testing.T) {
	p := load(t, `
locals { both = { rx = best_effort(true), tx = false } }
sysctl = {
  a = best_effort(1)
  b = best_effort(at_least(5))
  c = (best_effort(best_effort([1, 2])))
  d = host.cpu.count > 4 ? best_effort(1) : best_effort(2)
  e = at_least(host.cpu.count)
}
nic "a" {
  mtu       = 1
  addresses = [1, best_effort("2")]
  features  = local.both
  qdisc "q" { limit = best_effort(3) }
}
nic "b" {
  mtu       = 1
  addresses = best_effort([1])
  features  = best_effort({ x = 1, y = best_effort(2) })
}
`, Options{})
	sameOutline(t, p, `
sysctl @ 4:1
  sysctl @ 4:10
    a = 1 best effort @ 5:7
    b = >= 5 best effort @ 6:7
    c = tuple with 2 elements best effort @ 7:7
    d = 1 best effort @ 8:7
    e = >= 8 @ 9:7
nic "a" @ 11:1
  addresses @ 13:15
    0 = 1 @ 13:16
    1 = 2 best effort @ 13:19
  features @ 14:15
    rx = true best effort @ 14:15
    tx = false @ 14:15
  mtu = 1 @ 12:15
  on_missing = "fail" @ 11:1
  qdisc "q" @ 15:3
    limit = 3 best effort @ 15:23
    on = "root" @ 15:3
nic "b" @ 17:1
  addresses @ 19:15
    0 = 1 @ 19:28
  features @ 20:15
    x = 1 @ 20:33
    y = 2 best effort @ 20:40
  mtu = 1 @ 18:15
  on_missing = "fail" @ 17:1
`)
	if v := p.Blocks[2].Attrs["addresses"]; !v.BestEffort {
		t.Error("a list that is best_effort as a whole is not")
	}
	p = load(t, `sysctl = { d = host.cpu.count > 4 ? best_effort(1) : best_effort(2), e = best_effort(host.cpu.count) }`, Options{Host: unknownHost()})
	for _, e := range p.Blocks[0].Attrs["sysctl"].Entries {
		if e.Value.IsKnown() || !e.Value.BestEffort {
			t.Errorf("%s of an unknown host: %#v", e.Key, e.Value)
		}
	}
}

// Only leaves the other constructs and what they need unevaluated, as facts that
// are not there yet would make errors of them; mistakes of the text stay.
func TestOnly(t *testing.T) {
	body := `
locals {
  uplink = host.nics[5].name # not there
  size   = local.base * 2
  base   = 4
}
sysctl = { a = local.size }
lbd { devices = [local.uplink] }
nic "up" {
  mtu = host.nics[5].max_mtu
}
`
	if _, diags := Load(Source{Name: "profile.hcl", Text: []byte(header1 + body)}, Options{Schemas: testSchemas(), Host: testHost()}); len(diags) != 2 {
		t.Errorf("all of it: %v", places(diags))
	}
	p := load(t, body, Options{Only: []string{"sysctl"}})
	sameOutline(t, p, `
sysctl @ 8:1
  sysctl @ 8:10
    a = 8 @ 8:16
`)
	if p := load(t, body, Options{Only: []string{}}); len(p.Blocks) != 0 {
		t.Errorf("%+v", p.Blocks)
	}
	wrong := strings.NewReplacer("local.uplink]", "local.uplinks]", "mtu =", "mtuu =", "local.base *", "local.bas *").Replace(body)
	_, diags := Load(Source{Name: "profile.hcl", Text: []byte(header1 + wrong)}, Options{Schemas: testSchemas(), Host: testHost(), Only: []string{"sysctl"}})
	want := []string{"5:12 Unknown local value", "9:18 Unknown local value", "11:3 Unknown attribute"}
	if d := cmp.Diff(want, places(diags)); d != "" {
		t.Error(d)
	}
}

func TestFunctions(t *testing.T) {
	fs := Functions()
	if len(fs) < 90 || !slices.IsSortedFunc(fs, func(a, b Function) int { return strings.Compare(a.Name, b.Name) }) {
		t.Errorf("%d functions", len(fs))
	}
	for _, f := range fs {
		if f.Description == "" || strings.Contains(f.Description, "\n") || !strings.HasSuffix(f.Description, ".") || !strings.HasPrefix(f.Signature, f.Name+"(") || strings.Contains(f.Signature, "()") {
			t.Errorf("%+v", f)
		}
	}
	got := fs[slices.IndexFunc(fs, func(f Function) bool { return f.Name == "cpulist_sub" })]
	if got.Signature != "cpulist_sub(list, others...)" {
		t.Errorf("%+v", got)
	}
}

// What follows from an unknown host has the type that it will have.
func TestCPUListsOfUnknownHost(t *testing.T) {
	for _, host := range []cty.Value{unknownHost(), cty.DynamicVal} {
		p := load(t, `lbd { mode = cpulist_sub(host.cpu.online, cpulist_first_cores(host.cpu, 2), cpulist_node(host.cpu, 0), cpulist_siblings(host.cpu, "1")) }`, Options{Host: host})
		if v := p.Blocks[0].Attrs["mode"]; v.IsKnown() || v.Type() != cty.String {
			t.Errorf("%#v", v)
		}
	}
}
