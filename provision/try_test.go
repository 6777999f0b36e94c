package provision

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/nodeprov/nodeprov/provision/profile"
)

// fakeTimer is a TryTimer that a test lets expire.
type fakeTimer struct {
	ready, start error
	running      bool
	before       int
	calls        []string
}

func (f *fakeTimer) Ready(context.Context) error { return f.ready }

func (f *fakeTimer) Start(_ context.Context, after time.Duration, before int) error {
	f.calls = append(f.calls, fmt.Sprintf("start %s to %d", after, before))
	if f.start == nil {
		f.running, f.before = true, before
	}
	return f.start
}

func (f *fakeTimer) Stop(context.Context) error {
	f.calls = append(f.calls, "stop")
	f.running = false
	return nil
}

// tryMachine has a good profile in force, of generation 1.
func tryMachine(t *testing.T) (*Engine, *memory, *fakeTimer) {
	t.Helper()
	m := newMemory("sysctl/a", "1", "file/f", "old")
	e := newEngine(t, m)
	timer := &fakeTimer{}
	e.Timer = timer
	mustApply(t, e, wants(m, "sysctl/a", "2"), ApplyOptions{Phase: PhaseAll, Source: profile.Source{Name: "good", Text: []byte("good")}})
	return e, m, timer
}

func tryOptions() ApplyOptions {
	return ApplyOptions{Phase: PhaseAll, Try: time.Minute, Source: profile.Source{Name: "new", Text: []byte("new")}}
}

func TestTryConfirmed(t *testing.T) {
	e, m, timer := tryMachine(t)
	// The timer runs, and the file is there, before the first write.
	m.onWrite = func(key string) {
		if tr, err := e.Trying(); err != nil || tr == nil || tr.Before != 1 || tr.Generation != 2 || !timer.running {
			t.Errorf("%s is written before the try is arranged: %v %+v", key, err, tr)
		}
	}
	ws := wants(m, "sysctl/a", "3", "file/f", "new")
	r := mustApply(t, e, ws, tryOptions())
	if r.Try == nil || r.Generation != 2 || r.Result != Complete {
		t.Errorf("%+v", r)
	}
	if s, err := e.Status(t.Context()); err != nil || s.State != Trying {
		t.Errorf("%v %+v", err, s)
	}
	if k, _ := e.LastGood(); string(k.Source().Text) != "good" {
		t.Error("what is only tried is the last good profile")
	}
	// One at a time, and nothing else meanwhile but devices.
	for _, o := range []ApplyOptions{tryOptions(), {Phase: PhaseAll}, {Phase: PhaseEarly, FailOpen: true}} {
		if r, _, err := e.Apply(t.Context(), ws, o); r != nil || err == nil || !strings.Contains(err.Error(), "new is being tried until") {
			t.Errorf("%v %+v", err, r)
		}
	}
	mustApply(t, e, wants(m, "nic/eth0/mtu", "9000"), ApplyOptions{Phase: PhaseNIC("eth0")})

	if tr, err := e.Confirm(t.Context()); err != nil || tr.Profile != "new" || timer.running {
		t.Errorf("%v %+v", err, tr)
	}
	if k, _ := e.LastGood(); string(k.Source().Text) != "new" {
		t.Error("what was confirmed is not the last good profile")
	}
	if s, err := e.Status(t.Context()); err != nil || s.State != Applied || s.Try != nil {
		t.Errorf("%v %+v", err, s)
	}
	// A timer that fires all the same does nothing.
	writes := m.writes
	if r, err := e.ExpireTry(t.Context(), 1, nil); r != nil || err != nil || m.writes != writes {
		t.Errorf("%v %+v", err, r)
	}
	if _, err := e.Confirm(t.Context()); err == nil || !strings.Contains(err.Error(), "nothing is being tried") {
		t.Errorf("error %v", err)
	}
	m.onWrite = nil
	mustRollback(t, e)
	if d := cmp.Diff("file/f = \"old\"\nsysctl/a = \"2\"\n", m.text()); d != "" {
		t.Errorf("(-want +got):\n%s", d)
	}
}

func TestTryExpires(t *testing.T) {
	e, m, timer := tryMachine(t)
	before := m.text()
	o := tryOptions()
	mustApply(t, e, wants(m, "sysctl/a", "3", "file/f", "new"), o)
	r, err := e.ExpireTry(t.Context(), timer.before, nil)
	if err != nil || r.Generation != 1 || r.Why != "tried, and not confirmed in time" {
		t.Errorf("%v %+v", err, r)
	}
	if d := cmp.Diff(before, m.text()); d != "" {
		t.Errorf("(-want +got):\n%s", d)
	}
	if _, err := e.Confirm(t.Context()); err == nil || !strings.Contains(err.Error(), "too late: new was reverted, as it was tried, and not confirmed in time") {
		t.Errorf("error %v", err)
	}
	// At boot, the same text is known; another one forgets it.
	if tr, err := e.Trying(); err != nil || tr == nil || tr.Digest != Digest(o.Source) {
		t.Errorf("%v %+v", err, tr)
	}
	mustApply(t, e, wants(m, "sysctl/a", "2"), ApplyOptions{Phase: PhaseAll, Degraded: "tried", Source: profile.Source{Text: []byte("good")}})
	if tr, _ := e.Trying(); tr == nil {
		t.Error("the last good profile in its place made it be forgotten")
	}
	mustApply(t, e, wants(m, "sysctl/a", "2"), ApplyOptions{Phase: PhaseAll, Source: profile.Source{Text: []byte("other")}})
	if tr, _ := e.Trying(); tr != nil {
		t.Errorf("%+v", tr)
	}
}

// What drifted is put right by a try, too, and reverted with it.
func TestTrySameProfile(t *testing.T) {
	e, m, timer := tryMachine(t)
	m.values["sysctl/a"] = "77"
	if r := mustApply(t, e, wants(m, "sysctl/a", "2"), tryOptions()); r.Generation != 2 || r.Try == nil {
		t.Errorf("%+v", r)
	}
	if _, err := e.ExpireTry(t.Context(), timer.before, nil); err != nil || m.values["sysctl/a"] != "77" {
		t.Errorf("%v\n%s", err, m.text())
	}
	// Nothing to change is nothing to try.
	m.values["sysctl/a"] = "2"
	timer.calls = nil
	if r := mustApply(t, e, wants(m, "sysctl/a", "2"), tryOptions()); r.Try != nil || timer.calls != nil {
		t.Errorf("%+v %v", r, timer.calls)
	}
}

// Without what reverts it, nothing is written.
func TestTryImpossible(t *testing.T) {
	why := errors.New("no systemd (test)")
	for name, prepare := range map[string]func(e *Engine, f *fakeTimer, o *ApplyOptions){
		"no timer":    func(e *Engine, _ *fakeTimer, _ *ApplyOptions) { e.Timer = nil },
		"not ready":   func(_ *Engine, f *fakeTimer, _ *ApplyOptions) { f.ready = why },
		"not started": func(_ *Engine, f *fakeTimer, _ *ApplyOptions) { f.start = why },
		"too short":   func(_ *Engine, _ *fakeTimer, o *ApplyOptions) { o.Try = time.Millisecond },
	} {
		t.Run(name, func(t *testing.T) {
			e, m, timer := tryMachine(t)
			o := tryOptions()
			prepare(e, timer, &o)
			e.Stamp = e.State + ".ready"
			mustApply(t, e, wants(m, "sysctl/a", "2"), ApplyOptions{Phase: PhaseAll, Source: profile.Source{Name: "good", Text: []byte("good")}})
			writes := m.writes
			r, _, err := e.Apply(t.Context(), wants(m, "sysctl/a", "3"), o)
			if r != nil || err == nil || !strings.HasSuffix(err.Error(), "; nothing was changed") || m.writes != writes || timer.running {
				t.Errorf("%v %+v", err, r)
			}
			if tr, _ := e.Trying(); tr != nil {
				t.Errorf("%+v", tr)
			}
			if s, err := e.Status(t.Context()); err != nil || s.State != Applied || s.Generation != 1 {
				t.Errorf("%v %+v", err, s)
			}
			// What was in force still is: for K3s, and for devices that come.
			if _, err := e.Host.ReadFile(e.Stamp); err != nil {
				t.Errorf("the stamp: %v", err)
			}
			if k, err := e.Applied(); err != nil || string(k.Source().Text) != "good" {
				t.Errorf("the applied profile: %v %+v", err, k)
			}
			mustApply(t, e, wants(m, "sysctl/a", "4"))
		})
	}
}

// The apply is killed at its k-th write: the timer reverts what it did. The machine goes
// down at the k-th write: the next boot does, for what outlives a reboot.
func TestTryKilled(t *testing.T) {
	for _, reboot := range []bool{false, true} {
		for k := 1; k <= 3; k++ {
			e, m, timer := tryMachine(t)
			before := m.text()
			m.onWrite = func(string) {
				if m.writes == k-1 {
					panic("killed (test)")
				}
			}
			m.writes = 0
			func() {
				defer func() {
					if r := recover(); r != "killed (test)" {
						panic(r)
					}
				}()
				// The lock goes with the deferred functions, as with the process.
				_, _, _ = e.Apply(t.Context(), wants(m, "sysctl/a", "3", "file/f", "new", "file/g", "new"), tryOptions())
			}()
			m.onWrite = nil
			if _, err := e.Confirm(t.Context()); err == nil || !strings.Contains(err.Error(), "did not end well") {
				t.Errorf("%d: confirmed: %v", k, err)
			}
			var r *Report
			var err error
			if reboot {
				e.Boot, timer.running = "boot-2", false
				m.values["sysctl/a"] = "1"
				before = "file/f = \"old\"\nsysctl/a = \"1\"\n"
				if _, _, err := e.Apply(t.Context(), nil, ApplyOptions{Phase: PhaseAll}); err == nil || !strings.Contains(err.Error(), "tried before the machine rebooted") {
					t.Errorf("%d: %v", k, err)
				}
				if _, err := e.Confirm(t.Context()); err == nil || !strings.Contains(err.Error(), "too late: the machine has rebooted") {
					t.Errorf("%d: confirmed: %v", k, err)
				}
				r, err = e.RecoverTry(t.Context(), nil)
			} else {
				r, err = e.ExpireTry(t.Context(), 1, nil)
			}
			if err != nil || r == nil || r.Generation != 1 {
				t.Errorf("reboot=%v %d: %v %+v", reboot, k, err, r)
			}
			if d := cmp.Diff(before, m.text()); d != "" {
				t.Errorf("reboot=%v %d (-want +got):\n%s", reboot, k, d)
			}
			if r, err := e.RecoverTry(t.Context(), nil); r != nil || err != nil {
				t.Errorf("again: %v %+v", err, r)
			}
			mustApply(t, e, wants(m, "sysctl/a", "2"))
			mustRollback(t, e, 0)
			if m.values["sysctl/a"] != "1" || m.values["file/f"] != "old" {
				t.Error(m.text())
			}
		}
	}
}

// A rollback by hand ends the try.
func TestTryRolledBack(t *testing.T) {
	e, m, timer := tryMachine(t)
	mustApply(t, e, wants(m, "sysctl/a", "3"), tryOptions())
	mustRollback(t, e)
	if tr, err := e.Trying(); tr != nil || err != nil || timer.running || m.values["sysctl/a"] != "2" {
		t.Errorf("%v %+v %+v", err, tr, timer)
	}
}

// A rollback that fails leaves the try, so that it can be repeated.
func TestTryRevertFails(t *testing.T) {
	e, m, _ := tryMachine(t)
	mustApply(t, e, wants(m, "sysctl/a", "3", "file/f", "new"), tryOptions())
	m.failAt = m.writes + 1
	if _, err := e.ExpireTry(t.Context(), 1, nil); err == nil {
		t.Error("no error")
	}
	if tr, _ := e.Trying(); tr == nil || tr.Reverted != "" {
		t.Errorf("%+v", tr)
	}
	if r, err := e.ExpireTry(t.Context(), 1, nil); err != nil || r.Generation != 1 || m.values["file/f"] != "old" || m.values["sysctl/a"] != "2" {
		t.Errorf("%v %+v", err, r)
	}
}
