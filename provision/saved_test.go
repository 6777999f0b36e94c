package provision

import (
	"errors"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/zclconf/go-cty/cty"

	"github.com/nodeprov/nodeprov/provision/host"
	"github.com/nodeprov/nodeprov/provision/profile"
)

func savedFacts() *host.Facts {
	f := &host.Facts{Hostname: "n1", NICs: []host.NICFacts{{Name: "eth0", Driver: "ena", MTU: 1500}, {Name: "veth1", Virtual: true}}}
	f.Kernel.Release = "6.1.0"
	return f
}

func savedPlan(t *testing.T, e *Engine, ws []Wanted, vars ...profile.Assignment) (*SavedPlan, string) {
	t.Helper()
	p, diags, err := e.Plan(t.Context(), ws, PhaseAll)
	if err != nil || diags != nil {
		t.Fatal(err, diags)
	}
	text, err := e.Save(p, []profile.Source{{Name: "p.hcl", Text: []byte("secret-in-text")}, {Name: "lib.hcl", Text: []byte("y")}}, vars, []string{"token"}, savedFacts())
	if err != nil {
		t.Fatal(err)
	}
	s, ok, err := ParseSavedPlan(text)
	if err != nil || !ok {
		t.Fatal(ok, err)
	}
	return s, string(text)
}

func stale(err error) string {
	if s, ok := errors.AsType[*StaleError](err); ok {
		return strings.Join(s.Changed, "\n")
	}
	if err != nil {
		return "error: " + err.Error()
	}
	return ""
}

// What has changed since the plan was made is named, and nothing is written.
func TestSavedPlan(t *testing.T) {
	apply := func(e *Engine, s *SavedPlan, ws []Wanted) error {
		_, diags, err := e.Apply(t.Context(), ws, ApplyOptions{Phase: PhaseAll, Saved: s})
		if diags.HasErrors() {
			return diags
		}
		return err
	}
	for _, tt := range []struct {
		name, want string
		change     func(m *memory, e *Engine, ws []Wanted) []Wanted
	}{
		{"nothing", "", nil},
		{"live value", "sysctl/a has 7 and had 1", func(m *memory, _ *Engine, ws []Wanted) []Wanted { m.values["sysctl/a"] = "7"; return ws }},
		{"what is right", "sysctl/b has 7 and had 5\nsysctl/b: set, and it was none", func(m *memory, _ *Engine, ws []Wanted) []Wanted { m.values["sysctl/b"] = "7"; return ws }},
		{"wanted value", "sysctl/a would be set to 3, and not to 2", func(m *memory, _ *Engine, ws []Wanted) []Wanted { ws[0] = want(m, "sysctl/a", "3"); return ws }},
		{"one more", "file/x would be set too", func(m *memory, _ *Engine, ws []Wanted) []Wanted { return append(ws, want(m, "file/x", "3")) }},
		{"one less", "sysctl/b would not be set any more", func(_ *memory, _ *Engine, ws []Wanted) []Wanted { return ws[:1] }},
		{"boot", "the machine has rebooted since", func(_ *memory, e *Engine, ws []Wanted) []Wanted { e.Boot = "boot-2"; return ws }},
		{"generation", "generation 1 is in force, and it was 0\nsysctl/z would be set too", func(m *memory, e *Engine, ws []Wanted) []Wanted {
			mustApply(t, e, wants(m, "sysctl/z", "1"))
			m.writes = 0
			return ws
		}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			m := newMemory("sysctl/a", "1", "sysctl/b", "5")
			e := newEngine(t, m)
			ws := wants(m, "sysctl/a", "2", "sysctl/b", "5")
			s, _ := savedPlan(t, e, ws)
			if tt.change != nil {
				ws = tt.change(m, e, ws)
			}
			got := stale(apply(e, s, ws))
			if tt.name == "what is right" {
				tt.want = "sysctl/b has 7 and had 5"
			}
			if d := cmp.Diff(tt.want, got); d != "" {
				t.Errorf("(-want +got):\n%s", d)
			}
			if (tt.want != "") != (m.writes == 0) {
				t.Errorf("%d writes", m.writes)
			}
		})
	}
}

func TestSavedFacts(t *testing.T) {
	m := newMemory("sysctl/a", "1")
	s, _ := savedPlan(t, newEngine(t, m), wants(m, "sysctl/a", "2"))
	for _, tt := range []struct {
		want   string
		change func(f *host.Facts)
	}{
		{"", func(*host.Facts) {}},
		{"", func(f *host.Facts) { f.NICs[0].MTU, f.NICs[0].Up, f.NICs[0].DefaultRoute = 9000, true, true }},
		{"", func(f *host.Facts) { f.NICs = append(f.NICs[:1], host.NICFacts{Name: "veth9", Virtual: true}) }},
		{`host.kernel.release is "6.12.0" and was "6.1.0"`, func(f *host.Facts) { f.Kernel.Release = "6.12.0" }},
		{`host.nics[0].driver is "gve" and was "ena"`, func(f *host.Facts) { f.NICs[0].Driver = "gve" }},
	} {
		f := savedFacts()
		tt.change(f)
		if d := cmp.Diff(tt.want, stale(s.CheckFacts(f))); d != "" {
			t.Errorf("(-want +got):\n%s", d)
		}
	}
	if _, ok, err := ParseSavedPlan([]byte(`{"nodeprov_plan": 1, "phase": "nic/eth0", "sources": [{"name": "p.hcl"}]}`)); !ok || err == nil {
		t.Error("a plan of a part of a profile is accepted")
	}
	damaged := *s
	damaged.FactsDigest = "0"
	if got := stale(damaged.CheckFacts(savedFacts())); !strings.Contains(got, "facts_sha256") {
		t.Errorf("a reason is missing: %q", got)
	}
	for want, sources := range map[string][]profile.Source{
		"": {{Name: "p.hcl", Text: []byte("secret-in-text")}, {Name: "lib.hcl", Text: []byte("y")}},
		"lib.hcl has changed\nnew.hcl was not part of the profile":      {{Name: "p.hcl", Text: []byte("secret-in-text")}, {Name: "lib.hcl", Text: []byte("z")}, {Name: "new.hcl"}},
		"p.hcl has changed\nlib.hcl is no part of the profile any more": {{Name: "p.hcl", Text: []byte("x")}},
	} {
		if d := cmp.Diff(want, stale(s.CheckSources(sources))); d != "" {
			t.Errorf("(-want +got):\n%s", d)
		}
	}
}

// A secret is in no part of a plan, and has to be given again.
func TestSavedSecrets(t *testing.T) {
	m := newMemory("sysctl/a", "1")
	e := newEngine(t, m)
	vars := []profile.Assignment{{Name: "role", Text: "agent", From: "--var"}, {Name: "token", Text: "hunter2", From: "--var"}}
	s, text := savedPlan(t, e, wants(m, "sysctl/a", "2"), vars...)
	for _, secret := range []string{"hunter2", "secret-in-text"} {
		if strings.Contains(text, secret) {
			t.Errorf("%s is in the plan:\n%s", secret, text)
		}
	}
	if _, again := savedPlan(t, e, wants(m, "sysctl/a", "2"), vars...); s.Vars[1].Digest == "" || strings.Contains(again, s.Vars[1].Digest) {
		t.Error("the digest has no salt of its own")
	}
	for _, tt := range []struct {
		given []profile.Assignment
		want  string
	}{
		{nil, "error: saved plan: it does not hold the values of sensitive variables: give token again (--var, --var-file or NODEPROV_VAR_…)"},
		{[]profile.Assignment{{Name: "token", Text: "hunter3"}}, "variable token has another value"},
		{[]profile.Assignment{{Name: "token", Text: "hunter2", From: "--var"}}, ""},
		{[]profile.Assignment{{Name: "token", Value: cty.StringVal("hunter2"), From: "x.hclvars"}}, ""},
	} {
		as, err := s.Assignments(tt.given)
		if d := cmp.Diff(tt.want, stale(err)); d != "" {
			t.Errorf("(-want +got):\n%s", d)
		}
		if err == nil && (len(as) != 2 || as[0].Text != "agent") {
			t.Errorf("%+v", as)
		}
	}
	for _, text := range []string{"nodeprov {\n  schema = 1\n}\n", "", `{"a": 1}`} {
		if _, ok, err := ParseSavedPlan([]byte(text)); ok || err != nil {
			t.Errorf("%q: %v %v", text, ok, err)
		}
	}
	if _, ok, err := ParseSavedPlan([]byte(`{"nodeprov_plan": 2}`)); !ok || err == nil {
		t.Error("a plan of another version")
	}
}

// K3s waits for the stamp: it is there only while all of class Fail is in place.
func TestStamp(t *testing.T) {
	m := newMemory("sysctl/a", "1", "sysctl/b", "1", "sysctl/c", "1")
	e := newEngine(t, m)
	e.Stamp = e.State + ".ready"
	there := func() bool { _, err := e.Host.ReadFile(e.Stamp); return err == nil }
	ws := wants(m, "sysctl/a", "2", "sysctl/b", "2")
	ws[1].OnError = Warn
	mustApply(t, e, ws[:1], ApplyOptions{Phase: PhaseEarly})
	if there() {
		t.Error("made by the early phase")
	}
	m.onWrite = func(string) {
		if there() {
			t.Error("there while a setting is written")
		}
	}
	m.refuse = map[string]bool{"sysctl/b": true}
	if r := mustApply(t, e, ws); r.Result != Partial || !there() {
		t.Errorf("a failure of class Warn keeps it away: %+v", r)
	}
	m.onWrite = nil
	m.refuse = map[string]bool{"sysctl/c": true}
	ws = append(ws, want(m, "sysctl/c", "2"))
	if _, _, err := e.Apply(t.Context(), ws, ApplyOptions{Phase: PhaseAll}); err == nil || there() {
		t.Errorf("there after a failure of class Fail: %v", err)
	}
	m.refuse = nil
	if mustApply(t, e, ws); !there() {
		t.Error("not made again")
	}
	if mustRollback(t, e, 0); there() {
		t.Error("there without nodeprov")
	}
}
