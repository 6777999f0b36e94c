package provision

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	gocmp "github.com/google/go-cmp/cmp"
	"github.com/hashicorp/hcl/v2"

	"github.com/nodeprov/nodeprov/provision/host"
)

func TestActivity(t *testing.T) {
	start := time.Unix(1000, 0)
	running := host.UnitState{ActiveState: "active", SubState: "running", MainStart: start}
	with := func(u host.UnitState, job string) host.UnitState { u.Job, u.JobType = 7, job; return u }
	for _, tc := range []struct {
		name    string
		u       host.UnitState
		written time.Time
		want    string
	}{
		{"never started", host.UnitState{ActiveState: "inactive", SubState: "dead"}, start, unitStopped},
		{"its turn comes at boot", host.UnitState{ActiveState: "inactive", Job: 1, JobType: "start"}, start, unitStarted},
		{"starting", host.UnitState{ActiveState: "activating", SubState: "start", Job: 1, JobType: "start", MainStart: start}, start.Add(-1), unitStarted},
		{"starting with what was", host.UnitState{ActiveState: "activating", SubState: "start", Job: 1, JobType: "start", MainStart: start}, start.Add(1), unitStale},
		{"ExecStartPre", host.UnitState{ActiveState: "activating", SubState: "start-pre", Job: 1, JobType: "start"}, start, unitStarted},
		{"running", running, time.Time{}, unitStarted},
		{"running since after the file", running, start.Add(-time.Microsecond), unitStarted},
		{"running since before the file", running, start.Add(time.Microsecond), unitStale},
		{"about to restart", with(running, "restart"), start.Add(1), unitStarted},
		{"about to stop", with(running, "stop"), time.Time{}, unitStopped},
		{"stopping", host.UnitState{ActiveState: "deactivating", MainStart: start}, time.Time{}, unitStopped},
		{"stopping, start queued", host.UnitState{ActiveState: "deactivating", Job: 1, JobType: "start"}, time.Time{}, unitStarted},
		{"reloading", host.UnitState{ActiveState: "reloading", MainStart: start}, time.Time{}, unitStarted},
		{"waits for the next try", host.UnitState{ActiveState: "activating", SubState: "auto-restart", MainStart: start}, start.Add(1), unitFailing},
		{"waits, as systemd 254 says", host.UnitState{ActiveState: "activating", SubState: "auto-restart-queued"}, time.Time{}, unitFailing},
		{"failed", host.UnitState{ActiveState: "failed", SubState: "failed", MainStart: start}, time.Time{}, unitFailing},
		{"failed, start queued", host.UnitState{ActiveState: "failed", Job: 1, JobType: "start"}, time.Time{}, unitStarted},
	} {
		if got := activity(tc.u, tc.written); got != tc.want {
			t.Errorf("%s: %q, want %q", tc.name, got, tc.want)
		}
	}
}

// fakeSystemd is a systemd with one unit, whose jobs are queued until run.
type fakeSystemd struct {
	state host.UnitState
	now   time.Time
	calls []string
	fail  string // the call that fails
}

func (s *fakeSystemd) call(what string) error {
	s.calls = append(s.calls, what)
	if what == s.fail {
		return errors.New("systemd: " + what + " lbd.service: no")
	}
	return nil
}

func (s *fakeSystemd) queue(job string) error {
	err := s.call(job)
	if err == nil {
		s.state.Job, s.state.JobType = 1, job
	}
	return err
}

func (s *fakeSystemd) run() {
	switch s.state.JobType {
	case "start", "restart":
		s.state.ActiveState, s.state.SubState, s.state.MainStart = "active", "running", s.now
	case "stop":
		s.state.ActiveState, s.state.SubState = "inactive", "dead"
	}
	s.state.Job, s.state.JobType = 0, ""
}

func (s *fakeSystemd) Unit(context.Context, string) (host.UnitState, error) { return s.state, nil }
func (s *fakeSystemd) Start(context.Context, string) error                  { return s.queue("start") }
func (s *fakeSystemd) Restart(context.Context, string) error                { return s.queue("restart") }
func (s *fakeSystemd) Stop(context.Context, string) error                   { return s.queue("stop") }
func (s *fakeSystemd) Close()                                               {}

func (s *fakeSystemd) Enable(context.Context, string) error {
	err := s.call("enable")
	if err == nil {
		s.state.UnitFileState = "enabled"
	}
	return err
}

func (s *fakeSystemd) Disable(context.Context, string) error {
	err := s.call("disable")
	if err == nil {
		s.state.UnitFileState = "disabled"
	}
	return err
}

func (s *fakeSystemd) ResetFailed(context.Context, string) error {
	if s.state.ActiveState == "failed" {
		s.state.ActiveState, s.state.SubState = "inactive", "dead"
	}
	return s.call("reset-failed")
}

func TestUnitWrite(t *testing.T) {
	at := time.Unix(2000, 0)
	dead := host.UnitState{LoadState: "loaded", UnitFileState: "disabled", ActiveState: "inactive", SubState: "dead"}
	running := host.UnitState{LoadState: "loaded", UnitFileState: "enabled", ActiveState: "active", SubState: "running", MainStart: at}
	old := running
	old.MainStart = at.Add(-time.Hour) // before the file
	failed := host.UnitState{LoadState: "loaded", UnitFileState: "enabled", ActiveState: "failed", SubState: "failed"}
	masked := host.UnitState{LoadState: "masked", UnitFileState: "masked", ActiveState: "inactive"}
	static := host.UnitState{LoadState: "loaded", UnitFileState: "static", ActiveState: "inactive"}
	for _, tc := range []struct {
		name             string
		u                host.UnitState
		live, want       string
		calls, after, er string
		fail             string
	}{
		{name: "first start", u: dead, live: "disabled, stopped", want: "enabled, started", calls: "enable start", after: "enabled, started"},
		{name: "way back", u: running, live: "enabled, started", want: "disabled, stopped", calls: "disable stop", after: "disabled, stopped"},
		{name: "nothing to do", u: running, live: "enabled, started", want: "enabled, started", after: "enabled, started"},
		{name: "older file", u: old, live: "enabled, started with an older configuration", want: "enabled, started", calls: "restart", after: "enabled, started"},
		{name: "failed", u: failed, live: "enabled, failing", want: "enabled, started", calls: "reset-failed restart", after: "enabled, started"},
		{name: "failed, way back", u: failed, live: "enabled, failing", want: "disabled, stopped", calls: "disable stop reset-failed", after: "disabled, stopped"},
		{name: "back to failing", u: running, live: "enabled, started", want: "enabled, failing", after: "enabled, started"},
		{name: "back to failing from stopped", u: dead, live: "disabled, stopped", want: "disabled, failing", calls: "start", after: "disabled, started"},
		{name: "back to an older file", u: old, live: "enabled, started with an older configuration", want: "enabled, started with an older configuration", after: "enabled, started with an older configuration"},
		{name: "masked", u: masked, live: "masked, stopped", want: "enabled, started", after: "masked, stopped",
			er: "unit lbd.service: it is masked, so somebody wants it not to run (run `systemctl unmask lbd.service` if it shall)"},
		{name: "static", u: static, live: "static, stopped", want: "static, started", calls: "start", after: "static, started"},
		{name: "to static", u: running, live: "enabled, started", want: "static, started", after: "enabled, started",
			er: "unit lbd.service: it is enabled, and only enabled and disabled can be set, not static (see `systemctl status lbd.service`)"},
		{name: "enable fails", u: dead, live: "disabled, stopped", want: "enabled, started", calls: "enable", after: "disabled, stopped", fail: "enable", er: "systemd: enable lbd.service: no"},
		{name: "start fails", u: dead, live: "disabled, stopped", want: "enabled, started", calls: "enable start", after: "enabled, stopped", fail: "start", er: "systemd: start lbd.service: no (it is enabled now)"},
		{name: "no value of a unit", u: dead, live: "disabled, stopped", want: "started", after: "disabled, stopped", er: `unit lbd.service: the value "started" has no form of a unit's, as "enabled, started" has`},
	} {
		t.Run(tc.name, func(t *testing.T) {
			h, root, _ := treeHost(t, map[string]string{"etc/lbd/lbd.hcl": "x"})
			if err := os.Chtimes(filepath.Join(root, "etc/lbd/lbd.hcl"), at, at.Add(-time.Minute)); err != nil {
				t.Fatal(err)
			}
			m := &fakeSystemd{state: tc.u, now: at, fail: tc.fail}
			s := newUnit("lbd.service")
			s.connect = func(context.Context, *host.Host) (manager, error) { return m, nil }
			read := func() string {
				v, err := s.Read(t.Context(), h)
				if err != nil {
					t.Fatal(err)
				}
				return v.Text
			}
			live := read()
			err := s.Write(t.Context(), h, Value{Text: tc.want})
			er := ""
			if err != nil {
				er = err.Error()
			}
			queued := read()
			m.run()
			got := []string{live, strings.Join(m.calls, " "), er, queued, read()}
			if d := gocmp.Diff([]string{tc.live, tc.calls, tc.er, tc.after, tc.after}, got); d != "" {
				t.Error(d)
			}
			if er == "" {
				if want := (Value{Text: tc.want}); !s.Same(Value{Text: tc.after}, want) {
					t.Errorf("%s is not %s", tc.after, tc.want)
				}
				m.calls = nil
				if err := s.Write(t.Context(), h, Value{Text: tc.want}); err != nil || len(m.calls) > 0 {
					t.Errorf("written again: %v, %v", m.calls, err)
				}
			}
		})
	}
}

func TestUnitRead(t *testing.T) {
	h, root, _ := treeHost(t, nil)
	s := newUnit("lbd.service")
	m := &fakeSystemd{}
	s.connect = func(context.Context, *host.Host) (manager, error) { return m, nil }

	m.state = host.UnitState{LoadState: "not-found", ActiveState: "inactive"}
	if v, err := s.Read(t.Context(), h); err != nil || !v.Absent {
		t.Errorf("%v, %v", v, err)
	}
	const missing = "unit lbd.service: it is not installed (run `nodeprov install`)"
	if err := s.Write(t.Context(), h, Value{Text: "enabled, started"}); fmt.Sprint(err) != missing {
		t.Errorf("%v", err)
	}
	if err := unitWanted("lbd.service", hcl.Range{}).Unsupported(h); fmt.Sprint(err) != missing {
		t.Errorf("%v", err)
	}
	if err := s.Write(t.Context(), h, Value{Absent: true}); err == nil {
		t.Error("a unit was made absent")
	}

	m.state = host.UnitState{LoadState: "bad-setting", ActiveState: "inactive"}
	if _, err := s.Read(t.Context(), h); fmt.Sprint(err) != "unit lbd.service: systemd calls it \"bad-setting\" (see `systemctl status lbd.service`, mend its file, and run `systemctl daemon-reload`)" {
		t.Errorf("%v", err)
	}

	// What stands in the way of its file is the file's to report.
	m.state = host.UnitState{LoadState: "loaded", UnitFileState: "enabled", ActiveState: "active", MainStart: time.Unix(1, 0)}
	if err := os.MkdirAll(filepath.Join(root, "etc/lbd/lbd.hcl"), 0o755); err != nil {
		t.Fatal(err)
	}
	if v, err := s.Read(t.Context(), h); err != nil || v.Text != "enabled, started" {
		t.Errorf("%v, %v", v, err)
	}

	s = newUnit("lbd.service")
	if _, err := s.Read(t.Context(), h); !errors.Is(err, host.ErrOffline) {
		t.Errorf("with a root: %v", err)
	}
}

func TestUnitSame(t *testing.T) {
	s := newUnit("lbd.service")
	for _, tc := range []struct {
		live, want string
		same       bool
	}{
		{"enabled, started", "enabled, started", true},
		{"enabled, failing", "enabled, started", false},
		{"enabled, started with an older configuration", "enabled, started", false},
		{"enabled, started", "enabled, failing", true},
		{"enabled, started", "enabled, started with an older configuration", true},
		{"disabled, started", "enabled, failing", false},
		{"enabled, stopped", "enabled, failing", false},
	} {
		if got := s.Same(Value{Text: tc.live}, Value{Text: tc.want}); got != tc.same {
			t.Errorf("%q for %q: %v", tc.live, tc.want, got)
		}
	}
	if s.Same(Value{Absent: true}, Value{Text: "enabled, started"}) {
		t.Error("absent is started")
	}
}

// A file's write restarts its unit when that has read the older one, and else
// leaves it alone.
func TestRestartWith(t *testing.T) {
	for _, tc := range []struct {
		u    host.UnitState
		want int
	}{
		{host.UnitState{ActiveState: "active"}, 1},
		{host.UnitState{ActiveState: "activating", JobType: "start"}, 1},
		{host.UnitState{ActiveState: "activating", SubState: "auto-restart"}, 1},
		{host.UnitState{ActiveState: "reloading"}, 1},
		{host.UnitState{ActiveState: "inactive"}, 0},
		{host.UnitState{ActiveState: "inactive", JobType: "start"}, 0},
		{host.UnitState{ActiveState: "active", JobType: "stop"}, 0},
		{host.UnitState{ActiveState: "active", JobType: "restart"}, 0},
		{host.UnitState{ActiveState: "deactivating"}, 0},
		{host.UnitState{ActiveState: "failed"}, 0},
	} {
		m := &fakeSystemd{state: tc.u}
		if err := restartWith(t.Context(), m, "lbd.service"); err != nil || len(m.calls) != tc.want {
			t.Errorf("%+v: %v, %v", tc.u, m.calls, err)
		}
	}
	m := &fakeSystemd{state: host.UnitState{ActiveState: "active"}, fail: "restart"}
	if err := restartWith(t.Context(), m, "lbd.service"); err == nil {
		t.Error("a failure is lost")
	}
}
