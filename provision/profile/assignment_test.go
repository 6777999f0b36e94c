package profile

import (
	"os"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/zclconf/go-cty/cty"
)

func TestParseVars(t *testing.T) {
	src := Source{Name: "site.hclvars", Text: []byte("# a site\nrole = \"agent\"\nnics = [\n  \"eth0\",\n]\ncount = 1 + 2\nnone = null\nmap = { \"a.b\" = -1 }\n")}
	got, diags := ParseVars(src)
	if diags.HasErrors() {
		t.Fatal(diags)
	}
	want := []Assignment{
		{Name: "role", Value: cty.StringVal("agent")},
		{Name: "nics", Value: cty.TupleVal([]cty.Value{cty.StringVal("eth0")})},
		{Name: "count", Value: cty.NumberIntVal(3)},
		{Name: "none", Value: cty.NullVal(cty.DynamicPseudoType)},
		{Name: "map", Value: cty.ObjectVal(map[string]cty.Value{"a.b": cty.NumberIntVal(-1)})},
	}
	places := []string{"site.hclvars:2:1", "site.hclvars:3:1", "site.hclvars:6:1", "site.hclvars:7:1", "site.hclvars:8:1"}
	for i := range got {
		if p := place(got[i].Range); p != places[i] || got[i].From != src.Name || got[i].Lenient {
			t.Errorf("%s at %s from %s", got[i].Name, p, got[i].From)
		}
		want[i].Range, want[i].From = got[i].Range, src.Name
	}
	if d := cmp.Diff(want, got, cmp.Comparer(func(a, b cty.Value) bool { return a.RawEquals(b) })); d != "" {
		t.Error(d)
	}
	if got, diags := ParseVars(Source{Name: "empty"}); len(got) != 0 || len(diags) != 0 {
		t.Errorf("empty file: %v, %v", got, diags)
	}
}

func TestParseVarsBad(t *testing.T) {
	src := Source{Name: "site.hclvars", Text: []byte("role = agent\nupper = upper(\"x\")\narch = host.arch\nblock {}\nd = { a = 1, a = 2 }\nok = 1\n")}
	got, diags := ParseVars(src)
	if got != nil {
		t.Error("errors and assignments")
	}
	golden := "testdata/vars.txt"
	out := text(t, diags, src)
	if *update {
		if err := os.WriteFile(golden, []byte(out), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(golden)
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(string(want), out); d != "" {
		t.Error(d)
	}
	for _, bad := range []string{"a = ", "a = 1\na = 2\n", "\xff", "\xef\xbb\xbfa = 1", "a = " + strings.Repeat("[", 1000)} {
		if got, diags := ParseVars(Source{Name: "p", Text: []byte(bad)}); got != nil || !diags.HasErrors() {
			t.Errorf("%.20q is accepted", bad)
		}
	}
}

func FuzzParseVars(f *testing.F) {
	for _, s := range []string{"a = 1", "a = [1, \"x\"]\nb = { c = null }\n", "a = b", "a = f()", "a {}", "a = <<E\nx\nE\n", "a = 1 / 0"} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		src := Source{Name: "p", Text: text}
		got, diags := ParseVars(src)
		if diags.HasErrors() && got != nil {
			t.Fatal("errors and assignments")
		}
		for _, a := range got {
			if a.Value == cty.NilVal || a.Range.Filename != "p" || a.Range.Empty() {
				t.Fatalf("%+v", a)
			}
		}
		render(t, diags, src)
	})
}

// A value that was not kept is unknown, and secret as ever.
func TestWithhold(t *testing.T) {
	src := Source{Name: "p.hcl", Text: []byte("nodeprov {\n  schema = 1\n}\nvariable \"token\" {\n  type      = string\n  sensitive = true\n  default   = \"x\"\n}\nnote \"n\" {\n  text = var.token\n}\n")}
	given := Assignment{Name: "token", Text: "hunter2", From: "--var"}
	kept := given.Withhold()
	if kept.Text != "" || kept.Value != cty.NilVal {
		t.Error("the value is kept")
	}
	p, diags := Load(src, Options{
		Schemas: []Schema{{Type: "note", Label: "name", Attrs: []Attr{{Name: "text", Type: cty.String}}}},
		Vars:    []Assignment{kept},
	})
	if diags.HasErrors() {
		t.Fatal(diags)
	}
	if v := p.Blocks[0].Attrs["text"].Value; v.IsKnown() || !v.HasMark(Sensitive) {
		t.Errorf("%#v", v)
	}
}
