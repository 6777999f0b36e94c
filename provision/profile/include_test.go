package profile

import (
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/rogpeppe/go-internal/txtar"
	"github.com/zclconf/go-cty/cty"
)

// tree is a profile of several files: each "-- NAME --" in text is one, the
// profile being profile.hcl. The headers of .hcl files are put in, where
// include(A, B) stands for theirs.
func tree(text string) (Source, Options) {
	files := map[string][]byte{}
	for _, f := range txtar.Parse([]byte(text)).Files {
		files[f.Name] = f.Data
	}
	return Source{Name: "profile.hcl", Text: files["profile.hcl"]}, Options{
		Schemas: testSchemas(), Host: testHost(),
		Include: func(from, ref string) (Source, error) {
			name := ref
			if !strings.HasPrefix(ref, "builtin://") {
				name = Resolve(from, ref)
			}
			text, ok := files[name]
			if !ok {
				return Source{}, fmt.Errorf("%s: %w", name, fs.ErrNotExist)
			}
			return Source{Name: name, Text: text}, nil
		},
		ReadFile: func(from, path string) ([]byte, error) {
			if text, ok := files[Resolve(from, path)]; ok {
				return text, nil
			}
			return nil, fmt.Errorf("%s: %w", Resolve(from, path), fs.ErrNotExist)
		},
		Credential: func(name string) (string, error) {
			if name != "token" {
				return "", errors.New("there is no credential " + name)
			}
			return "hunter2\n", nil
		},
	}
}

func loadTree(t *testing.T, text string) *Profile {
	t.Helper()
	src, o := tree(text)
	p, diags := Load(src, o)
	if diags.HasErrors() {
		var all []Source
		for _, f := range txtar.Parse([]byte(text)).Files {
			all = append(all, Source{Name: f.Name, Text: f.Data})
		}
		t.Fatal(bad(t, src, o, all))
	}
	return p
}

func bad(t *testing.T, src Source, o Options, all []Source) string {
	t.Helper()
	p, diags := Load(src, o)
	if p != nil {
		t.Fatal("accepted")
	}
	return text(t, diags, all...)
}

func TestInclude(t *testing.T) {
	p := loadTree(t, `
-- profile.hcl --
nodeprov {
  schema  = 1
  include = ["lib/a.hcl", "lib/b.hcl", "builtin://x"]
}
variable "size" { default = 3 }
locals { name = "mine" }
sysctl = {
  "c" = null
  "a" = var.size
  "mine" = local.lib
}
nic "up" {
  mtu = 9000
  on_missing = null
  qdisc "new" {}
}
nic "own" { mtu = 1 }
-- lib/a.hcl --
nodeprov {
  schema = 1
  include = ["c.hcl"]
}
variable "size" {
  type = number
  default = 1
  validation {
    condition = var.size > 2
    error_message = "too small"
  }
}
locals {
  name = "lib"
  lib = "of ${local.name}"
}
sysctl = {
  "a" = 1
  "b" = local.name
  "c" = 3
  "d" = "from a"
}
nic "up" {
  for_each = { eth0 = 1 }
  mtu = 1500
  match = { name = each.key }
  on_missing = "skip"
  qdisc "old" {}
  qdisc "older" {}
  rss { indir = [1] }
}
lbd { mode = "a" }
-- lib/b.hcl --
nodeprov {
  schema = 1
  include = ["../lib/c.hcl"]
}
sysctl = merge({ "d" = "from b" }, {})
lbd { token = "b" }
-- lib/c.hcl --
nodeprov { schema = 1 }
sysctl = { "d" = "from c", "e" = "from c" }
nic "c" { mtu = 3 }
-- builtin://x --
nodeprov { schema = 1 }
match { arch = ["amd64"] }
`)
	sameOutline(t, p, `
nic "c" @ lib/c.hcl:3:1
  mtu = 3 @ lib/c.hcl:3:17
  on_missing = "fail" @ lib/c.hcl:3:1
lbd @ lib/b.hcl:6:1
  mode = "a" @ lib/a.hcl:32:14
  token = "b" @ lib/b.hcl:6:15
sysctl @ 7:1
  sysctl @ 7:10
    e = "from c" @ lib/c.hcl:2:34
    b = "mine" @ lib/a.hcl:19:9
    d = "from b" @ lib/b.hcl:5:10
    a = 3 @ 9:9
    mine = "of mine" @ 10:12
nic "up" each "eth0" @ 12:1
  match @ lib/a.hcl:26:11
    name = "eth0" @ lib/a.hcl:26:20
  mtu = 9000 @ 13:9
  on_missing = "fail" @ 12:1
  rss @ lib/a.hcl:30:3
    indir @ lib/a.hcl:30:17
      0 = 1 @ lib/a.hcl:30:18
  qdisc "new" @ 15:3
    on = "root" @ 15:3
nic "own" @ 17:1
  mtu = 1 @ 17:19
  on_missing = "fail" @ 17:1
`)
	var got []string
	for _, s := range p.Sources {
		got = append(got, s.Name)
	}
	want := []string{"profile.hcl", "lib/a.hcl", "lib/c.hcl", "lib/b.hcl", "builtin://x"}
	if d := cmp.Diff(want, got); d != "" {
		t.Error(d)
	}
	if d := cmp.Diff(slices.Sorted(slices.Values(want)), names(p.Files)); d != "" {
		t.Error(d)
	}
	// An unknown key of one source keeps the others known.
	src, o := tree(`
-- profile.hcl --
nodeprov {
  schema = 1
  include = ["a"]
}
sysctl = { (host.arch) = 1, "b" = 2 }
-- a --
nodeprov { schema = 1 }
sysctl = { "a" = 1, "b" = 1 }
`)
	o.Host = unknownHost()
	p, _ = Load(src, o)
	if v := p.Blocks[0].Attrs["sysctl"]; v.IsKnown() || len(v.Entries) != 2 || !v.Entries[1].Value.RawEquals(cty.NumberIntVal(2)) {
		t.Errorf("%+v", v)
	}
}

// TestIncludedMistakes: each at its own place, and once.
func TestIncludedMistakes(t *testing.T) {
	const header = "nodeprov {\n  schema = 1\n}\n"
	for _, tt := range []struct{ name, text, want string }{
		{"not there", `
-- profile.hcl --
nodeprov {
  schema  = 1
  include = ["lib/a.hcl", "none.hcl"]
}
sysctl = { a = var.from_none }
-- lib/a.hcl --
` + header + "sysctl = {", `
3:27 profile.hcl Profile not included
5:1 lib/a.hcl Missing expression
`},
		{"cycle", `
-- profile.hcl --
nodeprov {
  schema  = 1
  include = ["a"]
}
-- a --
nodeprov {
  schema  = 1
  include = ["b"]
}
-- b --
nodeprov {
  schema  = 1
  include = ["a", "profile.hcl"]
}
`, `
3:14 b Cycle of includes: a -> b -> a
3:19 b Cycle of includes: profile.hcl -> a -> b -> profile.hcl
`},
		{"self", `
-- profile.hcl --
nodeprov {
  schema  = 1
  include = ["profile.hcl"]
}
`, `
3:14 profile.hcl Cycle of includes: profile.hcl -> profile.hcl
`},
		{"headers", `
-- profile.hcl --
nodeprov {
  schema  = 1
  include = ["a", "b", null, ""]
}
-- a --
sysctl = { a = 1 }
-- b --
nodeprov { schema = 2 }
`, `
3:24 profile.hcl Unsuitable value
3:30 profile.hcl Unsuitable value
1:1 a Profile has no nodeprov block
1:21 b Unsupported schema
`},
		{"not constant", `
-- profile.hcl --
nodeprov {
  schema  = 1
  include = ["${var.x}", upper("a")]
}
variable "x" { default = "a" }
`, `
3:17 profile.hcl Reference not allowed
3:26 profile.hcl Function call not allowed
`},
		{"not a list", `
-- profile.hcl --
nodeprov {
  schema  = 1
  include = "a"
}
`, `
3:13 profile.hcl Unsuitable value
`},
		{"blocks", `
-- profile.hcl --
nodeprov {
  schema  = 1
  include = ["a"]
}
nic "up" {
  mtuu = 2
  mtu = "x"
}
match { arch = ["amd64"] }
-- a --
` + header + `nic "up" {
  mtu = local.none
  on = 1
}
nic "up" { mtu = 1 }
nic "alone" {}
match { arch = ["arm64"] }
`, `
6:3 profile.hcl Unknown attribute
7:9 profile.hcl Unsuitable value
5:9 a Unknown local value
6:3 a Unknown attribute
8:1 a Duplicate block
9:1 a Missing attribute
10:16 a Host does not match
`},
		{"variables", `
-- profile.hcl --
nodeprov {
  schema  = 1
  include = ["a"]
}
variable "n" { type = string }
variable "m" { default = "x" }
variable "k" { type = number }
variable "s" {
  sensitive = false
  default   = "hunter2"
}
sysctl = { a = tonumber(var.s) }
-- a --
` + header + `variable "n" { type = number }
variable "m" { type = number }
variable "k" { default = "x" }
variable "s" { sensitive = true }
locals {
  l = 1
  l = 2
  x = local.none
}
-- b --
`, `
5:23 profile.hcl Incompatible type
6:26 profile.hcl Unsuitable default
7:23 profile.hcl Incompatible type
12:25 profile.hcl Invalid function argument
10:3 a Attribute redefined
11:7 a Unknown local value
`},
		{"replaced local", `
-- profile.hcl --
nodeprov {
  schema  = 1
  include = ["a"]
}
locals {
  l = local.m
  m = 1
}
-- a --
` + header + `locals {
  l = local.none
  m = local.l
}
`, `
5:7 a Unknown local value
`},
		{"cycle of locals", `
-- profile.hcl --
nodeprov {
  schema  = 1
  include = ["a"]
}
locals { m = local.l }
-- a --
` + header + `locals { l = local.m }
`, `
4:10 a Cycle of local values: local.l -> local.m -> local.l
`},
	} {
		t.Run(tt.name, func(t *testing.T) {
			src, o := tree(tt.text)
			p, diags := Load(src, o)
			if p != nil {
				t.Fatal("accepted")
			}
			var got strings.Builder
			for _, d := range diags {
				fmt.Fprintf(&got, "%d:%d %s %s", d.Subject.Start.Line, d.Subject.Start.Column, d.Subject.Filename, d.Summary)
				if _, chain, ok := strings.Cut(d.Detail, "other: "); ok {
					chain, _, _ = strings.Cut(chain, ". ")
					got.WriteString(": " + chain)
				}
				got.WriteString("\n")
				if strings.Contains(d.Detail, "hunter2") {
					t.Error("a secret is shown: " + d.Detail)
				}
			}
			if d := cmp.Diff(strings.TrimLeft(tt.want, "\n"), got.String()); d != "" {
				t.Error(d)
			}
		})
	}
}

// A chain of names that never repeats ends.
func TestIncludeDepth(t *testing.T) {
	n := 0
	_, diags := Load(Source{Name: "p", Text: []byte("nodeprov {\n  schema = 1\n  include = [\"x\"]\n}\n")}, Options{
		Include: func(from, ref string) (Source, error) {
			n++
			return Source{Name: fmt.Sprint(n), Text: []byte("nodeprov {\n  schema = 1\n  include = [\"x\"]\n}\n")}, nil
		},
	})
	if len(diags) != 1 || !strings.Contains(diags[0].Detail, "32 deep") || n != maxIncludes+1 {
		t.Errorf("%d: %v", n, diags)
	}
}

func TestFiles(t *testing.T) {
	p := loadTree(t, `
-- profile.hcl --
nodeprov {
  schema  = 1
  include = ["lib/a.hcl"]
}
variable "secret" {
  default   = "x"
  sensitive = true
}
sysctl = {
  own      = file("motd")
  again    = trimspace(file("motd"))
  template = templatefile("t.tmpl", { name = "n", list = [1, 2], nested = trimspace(file("lib/motd")) })
  secret   = templatefile("t.tmpl", { name = var.secret, list = [], nested = "" })
  token    = credential("token")
  none     = try(file("none"), "none")
}
-- motd --
hello
-- t.tmpl --
${upper(name)}: %{ for x in list }<${x}>%{ endfor } ${nested}
-- lib/a.hcl --
nodeprov { schema = 1 }
sysctl = { included = file("motd") }
-- lib/motd --
from lib
`)
	sameOutline(t, p, `
sysctl @ 9:1
  sysctl @ 9:10
    included = "from lib\n" @ lib/a.hcl:2:23
    own = "hello\n" @ 10:14
    again = "hello" @ 11:14
    template = "N: <1><2> from lib\n" @ 12:14
    secret = "X:  \n" sensitive @ 13:14
    token = "hunter2\n" sensitive @ 14:14
    none = "none" @ 15:14
`)
	var got []string
	for _, s := range p.Sources {
		got = append(got, s.Name)
	}
	if d := cmp.Diff([]string{"profile.hcl", "lib/a.hcl"}, got[:2]); d != "" {
		t.Error(d)
	}
	slices.Sort(got)
	if d := cmp.Diff([]string{"lib/a.hcl", "lib/motd", "motd", "profile.hcl", "t.tmpl"}, got); d != "" {
		t.Error(d)
	}
	if d := cmp.Diff([]string{"secret"}, p.Sensitive); d != "" {
		t.Error(d)
	}
	// Without the callers' functions all of it is unknown, and secrets are secret.
	p = load(t, `sysctl = { a = file("x"), b = templatefile("x", {}), c = credential("x") }`, Options{})
	for _, e := range p.Blocks[0].Attrs["sysctl"].Entries {
		if e.Value.IsKnown() || e.Value.HasMark(Sensitive) != (e.Key == "c") {
			t.Errorf("%s: %#v", e.Key, e.Value)
		}
	}
}

// TestFileMistakes: what they say, and that no secret is in it.
func TestFileMistakes(t *testing.T) {
	files := map[string]string{
		"bad.tmpl":    "line\n${",
		"name.tmpl":   "a\n b ${missing}",
		"secret.tmpl": "${tonumber(s)}",
		"cred.tmpl":   "${credential(\"token\")}",
		"self.tmpl":   "${templatefile(\"self.tmpl\", {})}",
		"list.tmpl":   "${[1]}",
		"null.tmpl":   "${null}",
		"deep.tmpl":   "${" + strings.Repeat("[", 600) + "}",
		"latin1":      "gr\xfc\xdfe",
	}
	for _, tt := range []struct{ expr, want string }{
		{`file("none")`, "file does not exist"},
		{`file("")`, "names no file"},
		{`file(var.s)`, "More is not shown"},
		{`file("latin1")`, "latin1:1:3: The byte 0xFC does not belong"},
		{`templatefile("bad.tmpl", {})`, "bad.tmpl:2:3: "},
		{`templatefile("name.tmpl", { x = 1 })`, `name.tmpl:2:6: There is no variable named "missing"`},
		{`templatefile("name.tmpl", [1])`, "a map of what the template refers to"},
		{`templatefile("secret.tmpl", { s = var.s })`, "More is not shown, because var.s is sensitive"},
		{`templatefile("secret.tmpl", { s = credential("token") })`, "More is not shown, because credential() is sensitive"},
		{`templatefile("cred.tmpl", {})`, `There is no function named "credential"`},
		{`templatefile("self.tmpl", {})`, `There is no function named "templatefile"`},
		{`templatefile("list.tmpl", {})`, "list.tmpl gives a tuple, and a text is required"},
		{`templatefile("null.tmpl", {})`, "null.tmpl gives null"},
		{`templatefile("deep.tmpl", {})`, "more than 500 levels"},
		{`credential("other")`, "there is no credential other"},
		{`credential(var.s)`, "More is not shown"},
		{`credential(credential("token"))`, "More is not shown"},
		{`[for c in split("", credential("token")) : credential(c)]`, "More is not shown"},
		{`tonumber(credential("token"))`, "More is not shown"},
		{`try(tonumber(credential("token")))`, "More is not shown"},
	} {
		t.Run(tt.expr, func(t *testing.T) {
			src, o := tree("-- profile.hcl --\n" + header1 + "variable \"s\" {\n default = \"hunter2\"\n sensitive = true\n}\nsysctl = { k = " + tt.expr + " }\n")
			o.ReadFile = func(_, path string) ([]byte, error) {
				if text, ok := files[path]; ok {
					return []byte(text), nil
				}
				return nil, fmt.Errorf("%s: %w", path, os.ErrNotExist)
			}
			_, diags := Load(src, o)
			if len(diags) != 1 {
				t.Fatalf("%v", diags)
			}
			if d := diags[0].Detail; !strings.Contains(d, tt.want) || strings.Contains(d, "hunter2") || strings.Contains(strings.ToLower(d), "panic") {
				t.Errorf("got %q, want %q in it", d, tt.want)
			}
		})
	}
}

func TestResolve(t *testing.T) {
	got := map[string]string{}
	for _, from := range []string{"/etc/nodeprov/profile.hcl", "profile.hcl", "<stdin>", "a/b.hcl"} {
		for _, ref := range []string{"x.hcl", "../x.hcl", "/x/../y.hcl"} {
			got[from+" + "+ref] = Resolve(from, ref)
		}
	}
	want := map[string]string{
		"/etc/nodeprov/profile.hcl + x.hcl": "/etc/nodeprov/x.hcl", "/etc/nodeprov/profile.hcl + ../x.hcl": "/etc/x.hcl", "/etc/nodeprov/profile.hcl + /x/../y.hcl": "/y.hcl",
		"profile.hcl + x.hcl": "x.hcl", "profile.hcl + ../x.hcl": "../x.hcl", "profile.hcl + /x/../y.hcl": "/y.hcl",
		"<stdin> + x.hcl": "x.hcl", "<stdin> + ../x.hcl": "../x.hcl", "<stdin> + /x/../y.hcl": "/y.hcl",
		"a/b.hcl + x.hcl": "a/x.hcl", "a/b.hcl + ../x.hcl": "x.hcl", "a/b.hcl + /x/../y.hcl": "/y.hcl",
	}
	if !maps.Equal(got, want) {
		t.Error(cmp.Diff(want, got))
	}
}

// Check gives what is without a mistake.
func TestCheck(t *testing.T) {
	src := Source{Name: "profile.hcl", Text: []byte(header1 + `locals { wrong = host.none }
sysctl = { a = 1, b = local.none, c = local.wrong }
nic "wrong" { mtu = "x" }
nic "each" {
  for_each = { a = 1, b = "x" }
  mtu      = each.value
}
nic "right" { mtu = 1 }
`)}
	p, diags := Check(src, Options{Schemas: testSchemas(), Host: testHost()})
	sameOutline(t, p, `
sysctl @ 3:1
  sysctl @ 3:10
    a = 1 @ 3:16
    c = (unknown) @ 3:39
nic "right" @ 9:1
  mtu = 1 @ 9:21
  on_missing = "fail" @ 9:1
`)
	if d := cmp.Diff([]string{"2:18 Unknown host attribute", "3:23 Unknown local value", "4:21 Unsuitable value", "7:14 Unsuitable value"}, places(diags)); d != "" {
		t.Error(d)
	}
	for _, body := range []string{"match { arch = [\"arm64\"] }", "sysctl = ", "sysctl = { a = 1 }\nnodeprov { schema = 2 }"} {
		src.Text = []byte(header1 + body)
		if strings.Contains(body, "schema") {
			src.Text = []byte(body)
		}
		if p, diags := Check(src, Options{Schemas: testSchemas(), Host: testHost()}); p != nil || !diags.HasErrors() {
			t.Errorf("%s: %+v", body, p)
		}
	}
}
