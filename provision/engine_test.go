package provision

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/hashicorp/hcl/v2"
	"github.com/zclconf/go-cty/cty"

	"github.com/nodeprov/nodeprov/provision/host"
	"github.com/nodeprov/nodeprov/provision/profile"
)

func TestDesired(t *testing.T) {
	m := newMemory()
	e := newEngine(t, m)
	at := func(line int) hcl.Range {
		return hcl.Range{Filename: "p.hcl", Start: hcl.Pos{Line: line, Column: 3}, End: hcl.Pos{Line: line, Column: 5}}
	}
	block := func(kind string, kv ...string) profile.Block {
		v := profile.Value{}
		for i := 0; i < len(kv); i += 2 {
			v.Entries = append(v.Entries, profile.Entry{
				Key: kv[i], KeyRange: at(i + 1), Value: profile.Value{Value: cty.StringVal(kv[i+1])},
			})
		}
		return profile.Block{Type: kind, Attrs: map[string]profile.Value{kind: v}}
	}
	p := &profile.Profile{Blocks: []profile.Block{
		block("file", "/b", "x", "/a", "x"), block("sysctl", "z", "1", "a", "2", "z", "3"), block("nic", "eth0/mtu", "9000"),
	}}
	for _, tt := range []struct {
		phase Phase
		want  []string
	}{
		{PhaseAll, []string{"sysctl/z", "sysctl/a", "nic/eth0/mtu", "file//b", "file//a"}},
		{PhaseEarly, []string{"sysctl/z", "sysctl/a"}},
	} {
		ws, diags := e.Desired(p, nil, tt.phase)
		var got []string
		for _, w := range ws {
			got = append(got, w.Key())
		}
		if d := cmp.Diff(tt.want, got); d != "" {
			t.Errorf("%s: order (-want +got):\n%s", tt.phase, d)
		}
		if d := cmp.Diff("p.hcl:5,3-5: Setting asked for twice; sysctl/z is already set at p.hcl:1:3. Remove one of the two.", diags.Error()); d != "" {
			t.Errorf("%s: diagnostics (-want +got):\n%s", tt.phase, d)
		}
	}
}

func TestPlanJSON(t *testing.T) {
	m := newMemory("sysctl/a", "1", "sysctl/bin", "\xff")
	e := newEngine(t, m)
	p, _, err := e.Plan(t.Context(), wants(m, "sysctl/a", "2", "file/x", "", "sysctl/bin", "\xfe"), PhaseAll)
	if err != nil {
		t.Fatal(err)
	}
	got, err := json.Marshal(p)
	if err != nil {
		t.Fatal(err)
	}
	r := `"range":{"filename":"test.hcl","start":{"line":1,"column":1,"byte":0},"end":{"line":1,"column":2,"byte":0}}}`
	want := `{"format":1,"phase":"all","generation":1,"new_generation":true,"changes":[` +
		`{"key":"sysctl/a","kind":"sysctl","name":"a","action":"set","live":{"text":"1"},"want":{"text":"2"},"class":"fail","scope":"machine","lifetime":"runtime","effect":"now",` + r + `,` +
		`{"key":"file/x","kind":"file","name":"x","action":"none","live":{"absent":true},"want":{"absent":true},"class":"fail","scope":"machine","lifetime":"persistent","effect":"now",` + r + `,` +
		`{"key":"sysctl/bin","kind":"sysctl","name":"bin","action":"set","live":{"base64":"/w=="},"want":{"base64":"/g=="},"class":"fail","scope":"machine","lifetime":"runtime","effect":"now",` + r +
		`],"pending":[],"summary":{"set":2,"create":0,"remove":0,"restore":0,"unchanged":1,"deferred":0,"at_boot":0,"tolerated":0,"unsupported":0,"unreadable":0}}`
	if d := cmp.Diff(want, string(got)); d != "" {
		t.Errorf("(-want +got):\n%s", d)
	}
}

// Apply twice: the second writes nothing. Roll back: every byte is as before.
func TestApplyAndBack(t *testing.T) {
	m := newMemory("sysctl/a", "1", "sysctl/b", "\xff\x00\n", "nic/eth0/mtu", "1500", "file/gone", "old\n", "sysctl/other", "7")
	before := m.text()
	e := newEngine(t, m)
	ws := wants(m, "sysctl/a", "10", "sysctl/b", "20", "nic/eth0/mtu", "9000", "file/new", "text\n", "file/gone", "")
	r := mustApply(t, e, ws)
	if d := cmp.Diff([]string{"sysctl/a", "sysctl/b", "nic/eth0/mtu", "file/new", "file/gone"}, keys(r.Applied)); d != "" {
		t.Errorf("applied (-want +got):\n%s", d)
	}
	want := "file/new = \"text\\n\"\nnic/eth0/mtu = \"9000\"\nsysctl/a = \"10\"\nsysctl/b = \"20\"\nsysctl/other = \"7\"\n"
	if d := cmp.Diff(want, m.text()); d != "" {
		t.Errorf("machine (-want +got):\n%s", d)
	}
	journal := read(t, e.file("journal"))
	writes := m.writes
	r = mustApply(t, e, ws)
	if m.writes != writes || len(r.Applied) != 0 || len(r.Unchanged) != 5 || r.Generation != 1 {
		t.Errorf("second apply: %d writes, %+v", m.writes-writes, r)
	}
	if got := read(t, e.file("journal")); got != journal {
		t.Errorf("second apply wrote the journal:\n%s", got)
	}
	r = mustRollback(t, e)
	if d := cmp.Diff(before, m.text()); d != "" {
		t.Errorf("rolled back (-want +got):\n%s", d)
	}
	if d := cmp.Diff([]string{"file/gone", "file/new", "nic/eth0/mtu", "sysctl/b", "sysctl/a"}, keys(r.Applied)); d != "" {
		t.Errorf("order of rollback (-want +got):\n%s", d)
	}
	if r.Generation != 0 {
		t.Errorf("generation %d after rollback", r.Generation)
	}
	writes = m.writes
	if r := mustRollback(t, e); m.writes != writes || len(r.Applied) != 0 {
		t.Errorf("second rollback: %+v", r)
	}
	if r := mustApply(t, e, ws); r.Generation != 2 {
		t.Errorf("generation %d after rollback and apply, want 2", r.Generation)
	}
	for name, mode := range map[string]os.FileMode{"": 0o700 | os.ModeDir, "journal": 0o600, "report.json": 0o600, "lock": 0o600} {
		fi, err := os.Stat(e.file(name))
		if err != nil || fi.Mode() != mode {
			t.Errorf("%q: mode %v, %v; want %v", name, fi.Mode(), err, mode)
		}
	}
}

func read(tb testing.TB, path string) string {
	tb.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		tb.Fatal(err)
	}
	return string(b)
}

func TestEveryWriteFails(t *testing.T) {
	values := []string{"sysctl/a", "1", "sysctl/b", "2", "nic/c", "3", "file/d", "4"}
	ask := []string{"sysctl/a", "10", "sysctl/b", "20", "nic/c", "30", "file/d", "40", "file/e", "50"}
	for _, class := range []Class{Fail, Warn} {
		for _, halfway := range []bool{false, true} {
			for k := 1; k <= 5; k++ {
				t.Run(fmt.Sprintf("%s/halfway=%v/%d", class, halfway, k), func(t *testing.T) {
					m := newMemory(values...)
					before := m.text()
					e := newEngine(t, m)
					ws := wants(m, ask...)
					for i := range ws {
						ws[i].OnError = class
					}
					m.failAt, m.halfway = k, halfway
					r, diags, err := e.Apply(t.Context(), ws, ApplyOptions{Phase: PhaseAll})
					if diags != nil {
						t.Fatal(diags)
					}
					failed := ask[2*(k-1)]
					if d := cmp.Diff([]string{failed}, keys(r.Failed)); d != "" {
						t.Errorf("failed (-want +got):\n%s", d)
					}
					live, _ := m.get(failed)
					if r.Failed[0].Live != live {
						t.Errorf("report has %v, machine %v", r.Failed[0].Live, live)
					}
					switch class {
					case Fail:
						if err == nil || r.Result != Failed || len(r.Applied) != k-1 || len(r.NotTried) != 5-k {
							t.Errorf("%v: %+v", err, r)
						}
					case Warn:
						if err != nil || r.Result != Partial || len(r.Applied) != 4 || len(r.NotTried) != 0 {
							t.Errorf("%v: %+v", err, r)
						}
					}
					saved, err := e.LastReport()
					if d := cmp.Diff(r, saved); d != "" || err != nil {
						t.Errorf("saved report: %v\n%s", err, d)
					}
					if _, err := os.Stat(e.file("last-good.hcl")); err == nil {
						t.Error("a failed apply made a last good profile")
					}
					m.failAt = 0
					mustRollback(t, e, 0)
					if d := cmp.Diff(before, m.text()); d != "" {
						t.Errorf("rolled back (-want +got):\n%s", d)
					}
				})
			}
		}
	}
}

// The k-th write of a rollback fails: the others are restored, and a second
// rollback finishes it.
func TestEveryRestoreFails(t *testing.T) {
	for k := 1; k <= 4; k++ {
		m := newMemory("sysctl/a", "1", "sysctl/b", "2", "nic/c", "3", "file/d", "4")
		before := m.text()
		e := newEngine(t, m)
		mustApply(t, e, wants(m, "sysctl/a", "10", "sysctl/b", "20", "nic/c", "30", "file/d", "40"))
		m.failAt = m.writes + k
		r, err := e.Rollback(t.Context(), RollbackOptions{})
		if err == nil || len(r.Failed) != 1 || len(r.Applied) != 3 || r.Generation != 1 {
			t.Errorf("%d: %v: %+v", k, err, r)
		}
		if r := mustRollback(t, e); len(r.Applied) != 1 || r.Generation != 0 {
			t.Errorf("%d, again: %+v", k, r)
		}
		if d := cmp.Diff(before, m.text()); d != "" {
			t.Errorf("%d: rolled back (-want +got):\n%s", k, d)
		}
	}
}

// faultyDisk fails the k-th operation on the journal.
type faultyDisk struct {
	journalFile
	n    *int
	k    int
	torn bool
}

var errDisk = errors.New("no space left on device (test)")

func (f faultyDisk) fail() bool { *f.n++; return *f.n == f.k }

func (f faultyDisk) Write(b []byte) (int, error) {
	if f.fail() {
		n := 0
		if f.torn {
			n, _ = f.journalFile.Write(b[:len(b)*2/3])
		}
		return n, errDisk
	}
	return f.journalFile.Write(b)
}

func (f faultyDisk) Sync() error {
	if f.fail() {
		return errDisk
	}
	return f.journalFile.Sync()
}

func (f faultyDisk) Truncate(n int64) error {
	if *f.n >= f.k { // what is broken stays so
		return errDisk
	}
	return f.journalFile.Truncate(n)
}

func TestEveryJournalWriteFails(t *testing.T) {
	for _, torn := range []bool{false, true} {
		for k := 1; ; k++ {
			m := newMemory("sysctl/a", "1", "nic/b", "2", "file/c", "3", "nic/z", "9")
			before := m.text()
			e := newEngine(t, m)
			mustApply(t, e, wants(m, "nic/z", "90"))
			n := 0
			e.open = func(path string) (journalFile, error) {
				f, err := openAppend(path)
				return faultyDisk{f, &n, k, torn}, err
			}
			r, diags, err := e.Apply(t.Context(), wants(m, "sysctl/a", "10", "nic/b", "20", "file/c", "30"), ApplyOptions{Phase: PhaseAll})
			if diags != nil {
				t.Fatal(diags)
			}
			if n < k {
				if err != nil {
					t.Errorf("no fault, but %v", err)
				}
				if k < 6 {
					t.Errorf("only %d journal operations", n)
				}
				break
			}
			if !errors.Is(err, errDisk) || r.Result != Failed {
				t.Errorf("%d: %v: %+v", k, err, r)
			}
			if len(r.Applied)+len(r.NotTried)+len(r.Unchanged) != 4 {
				t.Errorf("%d: not all settings in the report: %+v", k, r)
			}
			for _, key := range r.NotTried {
				if v, _ := m.get(key); v.Text != map[string]string{"sysctl/a": "1", "nic/b": "2", "file/c": "3", "nic/z": "90"}[key] {
					t.Errorf("%d: %s was not tried, but is %s", k, key, v)
				}
			}
			e.open = nil
			mustRollback(t, e, 0)
			if d := cmp.Diff(before, m.text()); d != "" {
				t.Errorf("%d: rolled back (-want +got):\n%s", k, d)
			}
		}
	}
}

// With a disk that takes nothing, a rollback still restores, and says so.
func TestRollbackOnFullDisk(t *testing.T) {
	m := newMemory("sysctl/a", "1", "nic/b", "2")
	before := m.text()
	e := newEngine(t, m)
	mustApply(t, e, wants(m, "sysctl/a", "10", "nic/b", "20"))
	e.open = func(string) (journalFile, error) { return nil, errDisk }
	if _, err := e.Rollback(t.Context(), RollbackOptions{}); !errors.Is(err, errDisk) {
		t.Errorf("error %v", err)
	}
	if d := cmp.Diff(before, m.text()); d != "" {
		t.Errorf("rolled back (-want +got):\n%s", d)
	}
}

func TestStateDirUnusable(t *testing.T) {
	m := newMemory("sysctl/a", "1")
	e := newEngine(t, m)
	e.State = filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(e.State, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, _, err := e.Apply(t.Context(), wants(m, "sysctl/a", "2"), ApplyOptions{}); err == nil || m.writes != 0 {
		t.Errorf("error %v, %d writes", err, m.writes)
	}
	e = newEngine(t, m)
	if err := os.MkdirAll(e.file("report.json"), 0o700); err != nil { // cannot be replaced by a file
		t.Fatal(err)
	}
	if _, _, err := e.Apply(t.Context(), wants(m, "sysctl/a", "2"), ApplyOptions{}); err == nil || m.writes != 0 {
		t.Errorf("error %v, %d writes", err, m.writes)
	}
}

func TestClamped(t *testing.T) {
	m := newMemory("sysctl/rmem", "4096")
	m.limit["sysctl/rmem"] = 212992
	e := newEngine(t, m)
	r, _, err := e.Apply(t.Context(), wants(m, "sysctl/rmem", "1048576"), ApplyOptions{Phase: PhaseAll})
	want := "sysctl/rmem: has 212992 after 1048576 was written (clamped or ignored by the kernel, or set by something else at the same moment; ask for a value that it takes)"
	if err == nil || err.Error() != want || r.Failed[0].Live.Text != "212992" {
		t.Errorf("%v: %+v", err, r)
	}
	mustRollback(t, e)
	if m.values["sysctl/rmem"] != "4096" {
		t.Error(m.text())
	}
}

// What cannot be had is known before the first write.
func TestHopeless(t *testing.T) {
	m := newMemory("sysctl/a", "1", "nic/u", "1")
	e := newEngine(t, m)
	ws := wants(m, "sysctl/a", "2", "sysctl/none", "1")
	ws[1].Unsupported = func(*host.Host) error { return errors.New("no such key") }
	r, diags, err := e.Apply(t.Context(), ws, ApplyOptions{Phase: PhaseAll})
	if r != nil || err != nil || m.writes != 0 || diags.Error() != "test.hcl:1,1-2: Setting not possible on this host; no such key." {
		t.Errorf("%v %v %v", r, diags, err)
	}
	// The class Warn changes nothing about that; failing open does.
	ws[1].OnError = Warn
	if r, diags, _ := e.Apply(t.Context(), ws, ApplyOptions{Phase: PhaseAll}); r != nil || !diags.HasErrors() || m.writes != 0 {
		t.Errorf("%+v %v", r, diags)
	}
	r, diags, err = e.Apply(t.Context(), ws, ApplyOptions{Phase: PhaseAll, FailOpen: true})
	if err != nil || diags.HasErrors() {
		t.Fatal(err, diags)
	}
	if r.Result != Partial || len(r.Applied) != 1 || len(r.Failed) != 1 {
		t.Errorf("%+v", r)
	}
	// What an earlier kind may bring is waited for.
	m.onWrite = func(key string) {
		if key == "sysctl/a" {
			m.values["nic/new"] = "5"
		}
	}
	ws = wants(m, "sysctl/a", "3", "nic/new", "6")
	ws[1].Unsupported = func(*host.Host) error { return errors.New("no such device") }
	if r := mustApply(t, e, ws); r.Result != Complete || m.values["nic/new"] != "6" {
		t.Errorf("%+v", r)
	}
	// Want's refusal is a diagnostic.
	m.onWrite, m.writes = nil, 0
	_, diags, _ = e.Apply(t.Context(), []Wanted{want(m, "sysctl/a", "9"), atLeast(m, "file/x", 1)}, ApplyOptions{Phase: PhaseAll})
	if !diags.HasErrors() || m.writes != 0 {
		t.Errorf("%v", diags)
	}
	// So is what cannot be read.
	m.unreadable["nic/u"] = true
	m.writes = 0
	_, diags, _ = e.Apply(t.Context(), wants(m, "sysctl/a", "9", "nic/u", "2"), ApplyOptions{Phase: PhaseAll})
	if !diags.HasErrors() || m.writes != 0 {
		t.Errorf("%v", diags)
	}
}

// at_least raises, keeps what is larger, and lowers what an earlier profile
// raised.
func TestAtLeast(t *testing.T) {
	m := newMemory("sysctl/a", "128")
	e := newEngine(t, m)
	for _, step := range []struct {
		live    string // set from outside, unless empty
		ask     int
		want    string
		gen     int
		comment string
	}{
		{"", 4096, "4096", 1, "raised"},
		{"", 4096, "4096", 1, "again"},
		{"9000", 4096, "9000", 1, "raised by someone else"},
		{"4096", 4096, "4096", 1, "lowered again"},
		{"", 2048, "2048", 2, "the profile asks for less"},
		{"", 64, "128", 3, "less than there was"},
	} {
		if step.live != "" {
			m.values["sysctl/a"] = step.live
		}
		r := mustApply(t, e, []Wanted{atLeast(m, "sysctl/a", step.ask)})
		if got := m.values["sysctl/a"]; got != step.want || r.Generation != step.gen {
			t.Errorf("%s: %s in generation %d, want %s in %d", step.comment, got, r.Generation, step.want, step.gen)
		}
	}
}

func TestEarlyThenAll(t *testing.T) {
	m := newMemory("sysctl/a", "1", "nic/eth0", "1500")
	e := newEngine(t, m)
	all := wants(m, "sysctl/a", "2", "sysctl/late", "5", "nic/eth0", "9000")
	all[1].Unsupported = func(*host.Host) error { return errors.New("no such key") }
	r := mustApply(t, e, all[:2], ApplyOptions{Phase: PhaseEarly})
	if d := cmp.Diff([]string{"sysctl/late"}, keys(r.Deferred)); d != "" || r.Generation != 1 || r.Result != Complete {
		t.Errorf("early: %+v\n%s", r, d)
	}
	m.values["sysctl/late"] = "4"
	if r := mustApply(t, e, all); r.Generation != 1 || len(r.Applied) != 2 {
		t.Errorf("all: %+v", r)
	}
	// A boot later: runtime values are the kernel's again.
	m.values = map[string]string{"sysctl/a": "1", "nic/eth0": "1500"}
	e.Boot = "boot-2"
	if r := mustApply(t, e, all[:2], ApplyOptions{Phase: PhaseEarly}); r.Generation != 1 || len(r.Applied) != 1 {
		t.Errorf("early, second boot: %+v", r)
	}
	m.values["sysctl/late"] = "4"
	if r := mustApply(t, e, all); r.Generation != 1 || len(r.Applied) != 2 {
		t.Errorf("all, second boot: %+v", r)
	}
	// A changed profile: the early phase opens its generation, the other ends it.
	all[0] = want(m, "sysctl/a", "3")
	if r := mustApply(t, e, all[:2], ApplyOptions{Phase: PhaseEarly}); r.Generation != 2 {
		t.Errorf("early, changed: %+v", r)
	}
	if r := mustApply(t, e, all); r.Generation != 2 || len(r.Applied) != 0 {
		t.Errorf("all, changed: %+v", r)
	}
	if r := mustApply(t, e, all); r.Generation != 2 {
		t.Errorf("all, again: %+v", r)
	}
}

// Values of an older boot are never restored, files are.
func TestReboot(t *testing.T) {
	m := newMemory("sysctl/a", "1", "file/f", "old")
	e := newEngine(t, m)
	mustApply(t, e, wants(m, "sysctl/a", "10", "file/f", "new"))
	mustApply(t, e, wants(m, "sysctl/a", "11", "file/f", "newer"))
	e.Boot = "boot-2"
	m.values["sysctl/a"] = "2"
	s, err := e.Status(t.Context())
	if err != nil || s.State != Stale || s.Generation != 2 {
		t.Errorf("%v: %+v", err, s)
	}
	size := len(read(t, e.file("journal")))
	if r := mustApply(t, e, wants(m, "sysctl/a", "11", "file/f", "newer")); r.Generation != 2 || len(r.Applied) != 1 {
		t.Errorf("%+v", r)
	}
	if strings.Contains(read(t, e.file("journal")), `"text":"1"`) || len(read(t, e.file("journal"))) > size {
		t.Errorf("journal is not compacted:\n%s", read(t, e.file("journal")))
	}
	mustRollback(t, e, 0)
	if d := cmp.Diff("file/f = \"old\"\nsysctl/a = \"2\"\n", m.text()); d != "" {
		t.Errorf("(-want +got):\n%s", d)
	}
	if r := mustApply(t, e, wants(m, "sysctl/a", "10")); r.Generation != 3 {
		t.Errorf("generation numbers are used again: %d", r.Generation)
	}
	e.Boot = "boot-3"
	mustRollback(t, e) // nothing of this boot
	if r := mustApply(t, e, wants(m, "sysctl/a", "12")); r.Generation != 4 {
		t.Errorf("generation numbers are used again: %d", r.Generation)
	}
}

// Every generation can be gone back to, one at a time.
func TestGenerations(t *testing.T) {
	m := newMemory("sysctl/a", "1", "nic/b", "1", "file/c", "1")
	e := newEngine(t, m)
	texts := []string{m.text()}
	for _, ask := range [][]string{
		{"sysctl/a", "2", "file/c", "2"},
		{"sysctl/a", "3", "nic/b", "3"}, // file/c goes back
		{"nic/b", "3", "file/c", "4"},   // sysctl/a goes back
		{"file/d", "5"},
	} {
		mustApply(t, e, wants(m, ask...))
		texts = append(texts, m.text())
	}
	if d := cmp.Diff("file/c = \"1\"\nfile/d = \"5\"\nnic/b = \"1\"\nsysctl/a = \"1\"\n", m.text()); d != "" {
		t.Errorf("last profile only (-want +got):\n%s", d)
	}
	for gen := 3; gen >= 0; gen-- {
		r := mustRollback(t, e)
		if d := cmp.Diff(texts[gen], m.text()); d != "" || r.Generation != gen {
			t.Errorf("generation %d, want %d (-want +got):\n%s", r.Generation, gen, d)
		}
		// Still managed: the next profile takes what it does not ask for back.
		if gen == 2 {
			p, _, err := e.Plan(t.Context(), nil, PhaseAll)
			if err != nil || p.Summary().Restore != 2 {
				t.Errorf("%v: %+v", err, p)
			}
		}
	}
	if _, err := e.Rollback(t.Context(), RollbackOptions{To: new(int(7))}); err == nil || !strings.Contains(err.Error(), "no generation 7") {
		t.Errorf("error %v", err)
	}
}

func TestChangedBySomeoneElse(t *testing.T) {
	m := newMemory("sysctl/a", "1", "sysctl/b", "1")
	e := newEngine(t, m)
	mustApply(t, e, wants(m, "sysctl/a", "2", "sysctl/b", "2"))
	m.values["sysctl/a"] = "77"
	s, err := e.Status(t.Context())
	if err != nil || s.State != Drifting {
		t.Errorf("%v %+v", err, s)
	}
	if d := cmp.Diff([]Drift{{Key: "sysctl/a", Applied: Value{Text: "2"}, Live: Value{Text: "77"}}}, s.Drift); d != "" {
		t.Errorf("drift (-want +got):\n%s", d)
	}
	v, _, err := e.Verify(t.Context(), wants(m, "sysctl/a", "2", "sysctl/b", "2"), nil)
	if err != nil || len(v.OK) != 1 || len(v.Drifted) != 1 || v.Drifted[0].Key != "sysctl/a" {
		t.Errorf("%v %+v", err, v)
	}
	r := mustRollback(t, e)
	if d := cmp.Diff("had 77, not the 2 that was applied: something else had set it since", r.Applied[len(r.Applied)-1].Note); d != "" {
		t.Errorf("(-want +got):\n%s", d)
	}
	if d := cmp.Diff("sysctl/a = \"1\"\nsysctl/b = \"1\"\n", m.text()); d != "" {
		t.Errorf("(-want +got):\n%s", d)
	}
}

// A key that was let go of belongs to others: it is not restored again.
func TestReleased(t *testing.T) {
	m := newMemory("sysctl/a", "1", "sysctl/b", "1")
	e := newEngine(t, m)
	mustApply(t, e, wants(m, "sysctl/a", "2", "sysctl/b", "2"))
	mustApply(t, e, wants(m, "sysctl/b", "2"))
	if m.values["sysctl/a"] != "1" {
		t.Error(m.text())
	}
	m.values["sysctl/a"] = "2" // the same, but someone else's
	if r := mustApply(t, e, wants(m, "sysctl/b", "2")); len(r.Applied) != 0 {
		t.Errorf("%+v", r)
	}
	mustApply(t, e, wants(m, "sysctl/a", "5", "sysctl/b", "2"))
	mustApply(t, e, wants(m, "sysctl/b", "2"))
	if m.values["sysctl/a"] != "2" {
		t.Error(m.text())
	}
}

func TestCancel(t *testing.T) {
	for k := 1; k <= 3; k++ {
		m := newMemory("sysctl/a", "1", "sysctl/b", "1", "nic/c", "1")
		e := newEngine(t, m)
		ctx, cancel := context.WithCancelCause(t.Context())
		why := errors.New("terminated (test)")
		m.onWrite = func(string) {
			if m.writes == k-1 {
				cancel(why)
			}
		}
		r, _, err := e.Apply(ctx, wants(m, "sysctl/a", "2", "sysctl/b", "2", "nic/c", "2"), ApplyOptions{Phase: PhaseAll})
		if k == 3 {
			// It was writing the last one.
			if err != nil || r.Result != Complete {
				t.Errorf("%v: %+v", err, r)
			}
			continue
		}
		if !errors.Is(err, why) || r.Result != Cancelled || len(r.Applied) != k || len(r.NotTried) != 3-k {
			t.Errorf("%d: %v: %+v", k, err, r)
		}
	}
}

func TestLock(t *testing.T) {
	m := newMemory("sysctl/a", "1")
	e := newEngine(t, m)
	release, err := e.lock(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	other := newEngine(t, m)
	other.State = e.State
	waiting := make(chan string, 1)
	other.Waiting = func(path string) { waiting <- path }
	if s, err := other.Status(t.Context()); err != nil || s.State != Working {
		t.Errorf("%v: %+v", err, s)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() {
		_, _, err := other.Apply(ctx, wants(m, "sysctl/a", "2"), ApplyOptions{Phase: PhaseAll})
		done <- err
	}()
	if got := <-waiting; got != e.file("lock") {
		t.Errorf("waits for %s", got)
	}
	cancel()
	if err := <-done; !errors.Is(err, context.Canceled) || m.writes != 0 {
		t.Errorf("error %v", err)
	}
	go func() {
		_, _, err := other.Apply(t.Context(), wants(m, "sysctl/a", "2"), ApplyOptions{Phase: PhaseAll})
		done <- err
	}()
	<-waiting
	release()
	if err := <-done; err != nil || m.values["sysctl/a"] != "2" {
		t.Errorf("error %v", err)
	}
}

// A device that went took its values along: going back does not wait for it.
func TestRollbackVanished(t *testing.T) {
	m := newMemory("sysctl/a", "1", "nic/gone", "1500")
	e := newEngine(t, m)
	mustApply(t, e, wants(m, "sysctl/a", "2", "nic/gone", "9000"))
	delete(m.values, "nic/gone")
	r := mustRollback(t, e)
	if r.Result != Complete || m.values["sysctl/a"] != "1" || len(r.Unchanged) != 1 || !strings.Contains(r.Unchanged[0].Note, "no longer there") {
		t.Errorf("%+v", r)
	}
	if _, back := m.values["nic/gone"]; back {
		t.Error("it was made again")
	}
}

// A pattern early at boot does not find yet what a disk or a module brings later: that
// is no change of the profile.
func TestEarlyFindsLess(t *testing.T) {
	m := newMemory("sysctl/a", "1", "sysctl/disk", "1")
	e := newEngine(t, m)
	all := wants(m, "sysctl/a", "2", "sysctl/disk", "5")
	mustApply(t, e, all)
	for _, boot := range []string{"boot-2", "boot-3"} {
		e.Boot = boot
		m.values = map[string]string{"sysctl/a": "1"}
		if r := mustApply(t, e, all[:1], ApplyOptions{Phase: PhaseEarly}); r.Generation != 1 {
			t.Errorf("%s, early: generation %d", boot, r.Generation)
		}
		m.values["sysctl/disk"] = "1"
		if r := mustApply(t, e, all); r.Generation != 1 || len(r.Applied) != 1 {
			t.Errorf("%s, all: %+v", boot, r)
		}
	}
	// One that the profile has no more is a change, and is put back.
	if r := mustApply(t, e, all[:1], ApplyOptions{Phase: PhaseEarly}); r.Generation != 2 || m.values["sysctl/disk"] != "1" {
		t.Errorf("%+v\n%s", r, m.text())
	}
}

// What is put back first is what at_least then sees: the next plan asks for the same.
func TestAtLeastAfterRestore(t *testing.T) {
	m := newMemory("sysctl/a", "1", "sysctl/alias", "1")
	e := newEngine(t, m)
	m.onWrite = func(key string) {
		// Two names of one value of the kernel, as two keys of huge pages are.
		if key == "sysctl/a" {
			m.values["sysctl/alias"] = map[string]string{"1": "10", "10": "1"}[m.values["sysctl/a"]]
		}
	}
	mustApply(t, e, wants(m, "sysctl/a", "10"))
	ws := []Wanted{atLeast(m, "sysctl/alias", 5)}
	if r := mustApply(t, e, ws); r.Generation != 2 || m.values["sysctl/alias"] != "5" {
		t.Fatalf("%+v\n%s", r, m.text())
	}
	p, _, err := e.Plan(t.Context(), ws, PhaseAll)
	if err != nil || p.New || p.Generation != 2 || p.Summary().Due() > 0 {
		t.Errorf("the second plan: %v generation %d, new %v, %+v", err, p.Generation, p.New, p.Summary())
	}
}

// A report that finds no room leaves the last one.
func TestReportWithoutRoom(t *testing.T) {
	m := newMemory("sysctl/a", "1")
	e := newEngine(t, m)
	mustApply(t, e, wants(m, "sysctl/a", "2"))
	before := read(t, e.file("report.json"))
	// As far as the next write is concerned, the disk is full.
	if err := os.Symlink("/dev/full", e.file(".report.json0")); err != nil {
		t.Fatal(err)
	}
	if err := e.saveReport(e.newReport("apply", "boot-1"), true); err == nil {
		t.Error("no error")
	}
	if fi, err := os.Lstat(e.file("report.json")); err != nil || !fi.Mode().IsRegular() {
		t.Fatalf("%v %v", err, fi)
	}
	if d := cmp.Diff(before, read(t, e.file("report.json"))); d != "" {
		t.Errorf("(-before +after):\n%s", d)
	}
}

// A device that goes while it is set is no failure, but where the profile says so.
func TestDeviceGoesMeanwhile(t *testing.T) {
	for _, class := range []Class{Warn, Tolerate, Fail} {
		t.Run(string(class), func(t *testing.T) {
			m := newMemory("nic/veth1/mtu", "1500", "nic/veth2/mtu", "1500")
			e := newEngine(t, m)
			ws := wants(m, "nic/veth1/mtu", "9000", "nic/veth2/mtu", "9000")
			ws[0].OnError = class
			m.onWrite = func(key string) {
				m.onWrite = nil
				delete(m.values, key)
				m.refuse = map[string]bool{key: true}
			}
			r, _, err := e.Apply(t.Context(), ws, ApplyOptions{Phase: PhaseAll})
			if class == Fail {
				if err == nil || r.Result != Failed {
					t.Errorf("%v %+v", err, r)
				}
				return
			}
			if err != nil || r.Result != Complete || len(r.Unchanged) != 1 || r.Unchanged[0].Note == "" || m.values["nic/veth2/mtu"] != "9000" {
				t.Errorf("%v %+v", err, r)
			}
		})
	}
}

// While a rollback is at work, and when it was killed, nothing is in force that a
// device could be healed to.
func TestRollbackKilled(t *testing.T) {
	m := newMemory("nic/eth0/mtu", "1500", "nic/eth0/x", "1")
	e := newEngine(t, m)
	mustApply(t, e, wants(m, "nic/eth0/mtu", "9000", "nic/eth0/x", "2"))
	m.onWrite = func(string) {
		var not NotInForce
		if _, err := e.InForce(); !errors.As(err, &not) {
			t.Errorf("in force in the middle of a rollback: %v", err)
		}
		panic("killed")
	}
	func() {
		defer func() { _ = recover() }()
		_, _ = e.Rollback(t.Context(), RollbackOptions{})
	}()
	m.onWrite = nil
	if s, err := e.Status(t.Context()); err != nil || s.State != Interrupted {
		t.Errorf("%v %+v", err, s)
	}
	mustRollback(t, e)
	if s, err := e.Status(t.Context()); err != nil || s.State != RolledBack {
		t.Errorf("%v %+v", err, s)
	}
}

// Settings that change each other: the last word is the profile's, going back is exact,
// and what cannot be had together is told.
func TestEntangled(t *testing.T) {
	m := newMemory("sysctl/forward", "0", "sysctl/redirects", "0", "sysctl/all", "0")
	e := newEngine(t, m)
	e.Kinds[0].Entangled = true
	before := m.text()
	values := m.values
	m.after = func(key string) {
		switch key {
		case "sysctl/forward": // as the kernel does it
			values["sysctl/redirects"] = strconv.Itoa(1 - number(values[key]))
			values["sysctl/all"] = values[key]
		case "sysctl/all":
			values["sysctl/forward"] = values[key]
		}
	}
	ws := wants(m, "sysctl/redirects", "1", "sysctl/forward", "1")
	if r := mustApply(t, e, ws); r.Result != Complete || len(r.Applied) != 2 {
		t.Errorf("%+v", r)
	}
	p, _, err := e.Plan(t.Context(), ws, PhaseAll)
	if err != nil || p.Summary().Due() > 0 {
		t.Errorf("second plan: %v %+v", err, p.Summary())
	}
	mustRollback(t, e, 0)
	values["sysctl/all"] = "0" // nobody asked for that one
	if d := cmp.Diff(before, m.text()); d != "" {
		t.Errorf("(-want +got):\n%s", d)
	}
	ws = wants(m, "sysctl/forward", "1", "sysctl/all", "0")
	ws[0].OnError, ws[1].OnError = Warn, Warn
	if r := mustApply(t, e, ws); r.Result != Partial || len(r.Failed) != 1 || !strings.Contains(r.Failed[0].Error, "cannot have both") {
		t.Errorf("%+v", r)
	}
	mustRollback(t, e, 0)
	values["sysctl/redirects"] = "0"
	if d := cmp.Diff(before, m.text()); d != "" {
		t.Errorf("(-want +got):\n%s", d)
	}
}
