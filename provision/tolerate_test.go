package provision

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// What a host may refuse is told, and never stops: not there, unreadable, refused on
// writing, clamped.
func TestTolerated(t *testing.T) {
	m := newMemory("sysctl/a", "1", "sysctl/refused", "1", "sysctl/clamped", "1", "nic/unreadable", "1")
	m.refuse = map[string]bool{"sysctl/refused": true}
	m.limit["sysctl/clamped"] = 5
	m.unreadable["nic/unreadable"] = true
	before := m.text()
	e := newEngine(t, m)
	ws := append(wants(m, "sysctl/a", "2"), tolerated(m, "sysctl/refused", "9"), tolerated(m, "sysctl/clamped", "9"),
		tolerated(m, "nic/unreadable", "9"), missing(tolerated(m, "file/none", "9")))
	r := mustApply(t, e, ws)
	got := []string{}
	for _, o := range r.Tolerated {
		got = append(got, o.Key+": "+o.Error)
	}
	want := []string{
		"sysctl/refused: write refused (test) (it has 1 now)",
		"sysctl/clamped: has 5 after 9 was written (clamped or ignored by the kernel, or set by something else at the same moment; ask for a value that it takes)",
		"nic/unreadable: read refused (test)",
		"file/none: no such thing here",
	}
	if d := cmp.Diff(want, got); d != "" || r.Result != Complete || len(r.Applied) != 1 {
		t.Errorf("%+v (-want +got):\n%s", r, d)
	}

	// The second plan is empty: what was refused is not tried again in this boot.
	p, _, err := e.Plan(t.Context(), ws, PhaseAll)
	if s := p.Summary(); err != nil || s.Due() != 0 || s.Tolerated != 4 || s.Bad() != 0 || p.New {
		t.Errorf("%v: second plan: %+v", err, s)
	}
	writes := m.writes
	r = mustApply(t, e, ws)
	if m.writes != writes || len(r.Tolerated) != 4 || r.Generation != 1 || !strings.Contains(r.Tolerated[0].Error, "refused earlier in this boot: write refused") {
		t.Errorf("%d writes: %+v", m.writes-writes, r)
	}
	// Nor is it drift.
	v, _, err := e.Verify(t.Context(), ws, nil)
	if err != nil || !v.Good() || len(v.Tolerated) != 4 {
		t.Errorf("%v %+v", err, v)
	}
	if s, err := e.Status(t.Context()); err != nil || s.State != Applied || len(s.Drift) != 0 {
		t.Errorf("%v %+v", err, s)
	}

	// Another value is tried, and so is the same one after a reboot.
	ws[1] = tolerated(m, "sysctl/refused", "8")
	if p, _, _ := e.Plan(t.Context(), ws, PhaseAll); p.Summary().Due() != 1 {
		t.Errorf("another value: %+v", p.Summary())
	}
	ws[1] = tolerated(m, "sysctl/refused", "9")
	e.Boot = "boot-2"
	if p, _, _ := e.Plan(t.Context(), ws, PhaseAll); p.Summary().Due() != 2 {
		t.Errorf("after a reboot: %+v", p.Summary())
	}
	mustApply(t, e, ws)
	e.Boot = "boot-1"

	// What has changed since it was refused is drift.
	e = newEngine(t, m)
	mustApply(t, e, ws)
	m.values["sysctl/refused"] = "3"
	if v, _, err = e.Verify(t.Context(), ws, nil); err != nil || len(v.Drifted) != 1 {
		t.Errorf("%v %+v", err, v.Drifted)
	}
	m.values["sysctl/refused"] = "1"
	m.values["sysctl/a"], m.values["sysctl/clamped"] = "1", "1"
	e = newEngine(t, m)
	mustApply(t, e, ws)
	mustRollback(t, e)
	if d := cmp.Diff(before, m.text()); d != "" {
		t.Errorf("rolled back (-want +got):\n%s", d)
	}
}

// A tolerated value that cannot be had leaves what was there before nodeprov, not
// what an earlier profile has set; and when that cannot be put back either, it is
// a failure.
func TestToleratedPutBack(t *testing.T) {
	m := newMemory("sysctl/a", "1")
	e := newEngine(t, m)
	mustApply(t, e, wants(m, "sysctl/a", "5"))
	m.failAt = m.writes + 1
	r := mustApply(t, e, []Wanted{tolerated(m, "sysctl/a", "9")})
	if m.values["sysctl/a"] != "1" || len(r.Tolerated) != 1 || r.Tolerated[0].Live.Text != "1" {
		t.Errorf("%s%+v", m.text(), r)
	}
	// It was let go of: going back to the first generation still restores its 5.
	mustRollback(t, e)
	if m.values["sysctl/a"] != "5" {
		t.Error(m.text())
	}
	mustRollback(t, e)
	if m.values["sysctl/a"] != "1" {
		t.Error(m.text())
	}

	e = newEngine(t, m)
	m.failAt, m.halfway = m.writes+1, true
	m.onWrite = func(string) {
		if m.writes == m.failAt {
			m.refuse = map[string]bool{"sysctl/a": true}
		}
	}
	r, _, err := e.Apply(t.Context(), []Wanted{tolerated(m, "sysctl/a", "9")}, ApplyOptions{Phase: PhaseAll})
	if err != nil || r.Result != Partial || len(r.Failed) != 1 || !strings.Contains(r.Failed[0].Error, "1, is not put back: write refused") || r.Failed[0].Live.Text != "9" {
		t.Errorf("%v %+v", err, r)
	}
}

// The k-th operation on the journal fails, with refusals and releases among its
// records: the machine still goes back to what it was.
func TestToleratedJournalFails(t *testing.T) {
	for k := 1; ; k++ {
		m := newMemory("sysctl/a", "1", "sysctl/refused", "1", "sysctl/clamped", "2", "nic/eth0/mtu", "1500", "file/f", "3")
		before := m.text()
		m.refuse = map[string]bool{"sysctl/refused": true}
		m.limit["sysctl/clamped"] = 5
		m.inexact = map[string]string{"file/f": "test"}
		e := newEngine(t, m)
		n := 0
		e.open = func(path string) (journalFile, error) {
			f, err := openAppend(path)
			return faultyDisk{f, &n, k, k%2 == 0}, err
		}
		ws := append(wants(m, "sysctl/a", "2"), tolerated(m, "sysctl/refused", "9"), tolerated(m, "sysctl/clamped", "9"))
		ws = append(ws, wants(m, "nic/eth0/mtu", "9000", "file/f", "4")...)
		r, diags, err := e.Apply(t.Context(), ws, ApplyOptions{Phase: PhaseAll})
		if diags != nil {
			t.Fatal(diags)
		}
		if n < k {
			if err != nil || k < 8 {
				t.Errorf("%d operations, %v", n, err)
			}
			return
		}
		if !errors.Is(err, errDisk) || r.Result != Failed {
			t.Errorf("%d: %v: %+v", k, err, r)
		}
		told := 0
		for _, l := range r.lists() {
			told += len(*l)
		}
		if told+len(r.NotTried) != len(ws) {
			t.Errorf("%d: not all settings in the report: %+v", k, r)
		}
		e.open = nil
		mustRollback(t, e, 0)
		if d := cmp.Diff(before, m.text()); d != "" {
			t.Errorf("%d: rolled back (-want +got):\n%s", k, d)
		}
	}
}

// What cannot be restored exactly is told, and is no failure; nor is it tried for
// ever.
func TestInexact(t *testing.T) {
	m := newMemory("sysctl/pages", "0", "sysctl/a", "1")
	m.inexact = map[string]string{"sysctl/pages": "pages in use stay"}
	e := newEngine(t, m)
	p, _, err := e.Plan(t.Context(), wants(m, "sysctl/pages", "8", "sysctl/a", "2"), PhaseAll)
	if err != nil || p.Changes[0].Inexact != "pages in use stay" {
		t.Errorf("%v %+v", err, p.Changes[0])
	}
	mustApply(t, e, wants(m, "sysctl/pages", "8", "sysctl/a", "2"))
	m.refuse = map[string]bool{"sysctl/pages": true}
	r := mustRollback(t, e)
	if r.Result != Complete || r.Generation != 0 || len(r.Inexact) != 1 || r.Inexact[0].Inexact != "pages in use stay" || r.Inexact[0].Live.Text != "8" || m.values["sysctl/a"] != "1" {
		t.Errorf("%+v", r)
	}
	if r := mustRollback(t, e); len(r.Inexact)+len(r.Applied) != 0 {
		t.Errorf("again: %+v", r)
	}

	// The same where a profile does not ask for it any more.
	m.refuse = nil
	m.values["sysctl/pages"] = "0"
	mustApply(t, e, wants(m, "sysctl/pages", "8", "sysctl/a", "2"))
	m.refuse = map[string]bool{"sysctl/pages": true}
	r = mustApply(t, e, wants(m, "sysctl/a", "2"))
	if r.Result != Complete || len(r.Inexact) != 1 {
		t.Errorf("%+v", r)
	}
	if p, _, err := e.Plan(t.Context(), wants(m, "sysctl/a", "2"), PhaseAll); err != nil || p.Summary().Due() != 0 {
		t.Errorf("%v %+v", err, p.Summary())
	}
}

// A tolerated setting that fails at the k-th write, for every k, leaves the others
// as they are wanted.
func TestEveryToleratedWriteFails(t *testing.T) {
	ask := []string{"sysctl/a", "10", "sysctl/b", "20", "nic/c", "30", "file/d", "40", "file/e", "50"}
	for _, halfway := range []bool{false, true} {
		for k := 1; k <= 5; k++ {
			t.Run(fmt.Sprintf("halfway=%v/%d", halfway, k), func(t *testing.T) {
				m := newMemory("sysctl/a", "1", "sysctl/b", "2", "nic/c", "3", "file/d", "4")
				before := newMemory()
				for key, v := range m.values {
					before.values[key] = v
				}
				e := newEngine(t, m)
				ws := wants(m, ask...)
				for i := range ws {
					ws[i].OnError = Tolerate
				}
				m.failAt, m.halfway = k, halfway
				r := mustApply(t, e, ws)
				failed := ask[2*(k-1)]
				if r.Result != Complete || len(r.Applied) != 4 || len(r.Tolerated) != 1 || r.Tolerated[0].Key != failed {
					t.Errorf("%+v", r)
				}
				got, _ := m.get(failed)
				was, _ := before.get(failed)
				if got != was {
					t.Errorf("%s has %s, and had %s", failed, got, was)
				}
				mustRollback(t, e, 0)
				if d := cmp.Diff(before.text(), m.text()); d != "" {
					t.Errorf("rolled back (-want +got):\n%s", d)
				}
			})
		}
	}
}
