package provision

import (
	"errors"
	"os"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/zclconf/go-cty/cty"

	"github.com/nodeprov/nodeprov/provision/profile"
)

func TestLastGood(t *testing.T) {
	m := newMemory("sysctl/a", "1")
	e := newEngine(t, m)
	if _, err := e.LastGood(); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("error %v", err)
	}
	src := profile.Source{Name: "etc/p.hcl", Text: []byte("nodeprov {}\n")}
	want := &Kept{
		Sources: []profile.Source{src, {Name: "etc/lib/net.hcl", Text: []byte("x")}, {Name: "builtin://base", Text: []byte("y")}, {Name: "etc/blob", Text: []byte("\xff\x00")}},
		Vars: []profile.Assignment{
			{Name: "role", Text: "agent", From: "--var", Lenient: true},
			{Name: "nets", Value: cty.TupleVal([]cty.Value{cty.StringVal("a"), cty.NumberIntVal(2)}), From: "x.auto.hclvars", Lenient: true},
		},
	}
	mustApply(t, e, wants(m, "sysctl/a", "2"), ApplyOptions{Phase: PhaseAll, Source: src, Sources: want.Sources, Vars: want.Vars})
	got, err := e.LastGood()
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(want, got, cmp.Comparer(func(a, b cty.Value) bool { return a.GoString() == b.GoString() })); d != "" {
		t.Errorf("(-want +got):\n%s", d)
	}
	// It serves what the profile includes and reads, by the same names.
	if s, err := got.Include("etc/p.hcl", "lib/net.hcl"); err != nil || string(s.Text) != "x" {
		t.Errorf("%v %+v", err, s)
	}
	if s, err := got.Include("etc/p.hcl", "builtin://base"); err != nil || string(s.Text) != "y" {
		t.Errorf("%v %+v", err, s)
	}
	if b, err := got.ReadFile("etc/lib/net.hcl", "../blob"); err != nil || string(b) != "\xff\x00" {
		t.Errorf("%v %q", err, b)
	}
	if _, err := got.Include("etc/p.hcl", "gone.hcl"); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("error %v", err)
	}
	// Neither the early phase, nor a fall-back, nor a failure makes a profile good.
	for _, o := range []ApplyOptions{{Phase: PhaseEarly}, {Phase: PhaseAll, Degraded: "bad"}, {Phase: PhaseAll, FailOpen: true}} {
		o.Source = profile.Source{Text: []byte("other")}
		ws := wants(m, "sysctl/a", "3")
		if o.FailOpen {
			ws = append(ws, missing(want2(m)))
		}
		mustApply(t, e, ws, o)
		if got, _ := e.LastGood(); string(got.Source().Text) != string(src.Text) {
			t.Errorf("%+v became the last good profile", o)
		}
	}
	if k, err := e.Applied(); err != nil || string(k.Source().Text) != "other" {
		t.Errorf("applied: %v %+v", err, k)
	}
	if err := os.WriteFile(e.file(lastGoodFile), []byte("{}"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := e.LastGood(); err == nil || errors.Is(err, os.ErrNotExist) {
		t.Errorf("damaged: %v", err)
	}
}

func want2(m machine) Wanted {
	w := want(m, "sysctl/none", "1")
	w.OnError = Warn
	return w
}
