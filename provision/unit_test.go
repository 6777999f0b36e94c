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
	running := host.UnitState{ActiveState: "active", SubState: "running"}
	with := func(u host.UnitState, job string) host.UnitState { u.Job, u.JobType = 7, job; return u }
	for _, tc := range []struct {
		name  string
		u     host.UnitState
		stale bool
		want  string
	}{
		{"never started", host.UnitState{ActiveState: "inactive", SubState: "dead"}, false, unitStopped},
		{"its turn comes at boot", host.UnitState{ActiveState: "inactive", Job: 1, JobType: "start"}, false, unitStarted},
		{"starting", host.UnitState{ActiveState: "activating", SubState: "start", Job: 1, JobType: "start"}, false, unitStarted},
		{"starting with what was", host.UnitState{ActiveState: "activating", SubState: "start", Job: 1, JobType: "start"}, true, unitStale},
		{"running", running, false, unitStarted},
		{"running since before the file", running, true, unitStale},
		{"about to restart", with(running, "restart"), true, unitStarted},
		{"about to stop", with(running, "stop"), false, unitStopped},
		{"stopping", host.UnitState{ActiveState: "deactivating"}, true, unitStopped},
		{"stopping, start queued", host.UnitState{ActiveState: "deactivating", Job: 1, JobType: "start"}, true, unitStarted},
		{"reloading", host.UnitState{ActiveState: "reloading"}, false, unitStarted},
		{"waits for the next try", host.UnitState{ActiveState: "activating", SubState: "auto-restart"}, true, unitFailing},
		{"waits, as systemd 254 says", host.UnitState{ActiveState: "activating", SubState: "auto-restart-queued"}, false, unitFailing},
		{"failed", host.UnitState{ActiveState: "failed", SubState: "failed"}, false, unitFailing},
		{"failed, start queued", host.UnitState{ActiveState: "failed", Job: 1, JobType: "start"}, false, unitStarted},
	} {
		if got := activity(tc.u, tc.stale); got != tc.want {
			t.Errorf("%s: %q, want %q", tc.name, got, tc.want)
		}
	}
}

// fakeSystemd is a systemd with one unit, whose jobs are queued until run.
type fakeSystemd struct {
	state host.UnitState
	start time.Time // of the main process
	now   time.Time
	file  string // the unit file's state without a mask
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
		s.state.ActiveState, s.state.SubState, s.start = "active", "running", s.now
	case "stop":
		s.state.ActiveState, s.state.SubState = "inactive", "dead"
	}
	s.state.Job, s.state.JobType = 0, ""
}

func (s *fakeSystemd) Unit(context.Context, string) (host.UnitState, error) { return s.state, nil }
func (s *fakeSystemd) Start(context.Context, string) error                  { return s.queue("start") }
func (s *fakeSystemd) Restart(context.Context, string) error                { return s.queue("restart") }
func (s *fakeSystemd) Stop(context.Context, string) error                   { return s.queue("stop") }
func (s *fakeSystemd) Reload(context.Context) error                         { return s.call("reload") }
func (s *fakeSystemd) MainStart(context.Context, string) (time.Time, error) { return s.start, nil }

func (s *fakeSystemd) Mask(context.Context, string) error {
	s.file, s.state.LoadState, s.state.UnitFileState = s.state.UnitFileState, "masked", "masked"
	return s.call("mask")
}

func (s *fakeSystemd) Unmask(context.Context, string) error {
	s.state.LoadState, s.state.UnitFileState = "loaded", s.file
	if s.file == "" {
		s.state.LoadState = "not-found"
	}
	return s.call("unmask")
}

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
	running := host.UnitState{LoadState: "loaded", UnitFileState: "enabled", ActiveState: "active", SubState: "running"}
	absent := host.UnitState{LoadState: "not-found", ActiveState: "inactive"}
	failed := host.UnitState{LoadState: "loaded", UnitFileState: "enabled", ActiveState: "failed", SubState: "failed"}
	masked := host.UnitState{LoadState: "masked", UnitFileState: "masked", ActiveState: "inactive"}
	static := host.UnitState{LoadState: "loaded", UnitFileState: "static", ActiveState: "inactive"}
	for _, tc := range []struct {
		name             string
		u                host.UnitState
		live, want       string
		calls, after, er string
		fail             string
		file             string // below the mask
		old              bool   // started before its file was written
		unmask           bool
	}{
		{name: "first start", u: dead, live: "disabled, stopped", want: "enabled, started", calls: "enable start", after: "enabled, started"},
		{name: "way back", u: running, live: "enabled, started", want: "disabled, stopped", calls: "disable stop", after: "disabled, stopped"},
		{name: "nothing to do", u: running, live: "enabled, started", want: "enabled, started", after: "enabled, started"},
		{name: "older file", u: running, old: true, live: "enabled, started with an older configuration", want: "enabled, started", calls: "restart", after: "enabled, started"},
		{name: "failed", u: failed, live: "enabled, failing", want: "enabled, started", calls: "reset-failed restart", after: "enabled, started"},
		{name: "failed, way back", u: failed, live: "enabled, failing", want: "disabled, stopped", calls: "disable stop reset-failed", after: "disabled, stopped"},
		{name: "back to failing", u: running, live: "enabled, started", want: "enabled, failing", after: "enabled, started"},
		{name: "back to failing from stopped", u: dead, live: "disabled, stopped", want: "disabled, failing", calls: "start", after: "disabled, started"},
		{name: "back to an older file", u: running, old: true, live: "enabled, started with an older configuration", want: "enabled, started with an older configuration", after: "enabled, started with an older configuration"},
		{name: "masked", u: masked, live: "masked, stopped", want: "enabled, started", after: "masked, stopped",
			er: "unit lbd.service: it is masked, so somebody wants it not to run (write masked = false in a unit block, or run `systemctl unmask lbd.service`, if it shall)"},
		{name: "mask", u: running, live: "enabled, started", want: "masked, stopped", calls: "mask stop", after: "masked, stopped"},
		{name: "mask what is not there", u: absent, want: "masked, stopped", calls: "mask", after: "masked, stopped"},
		{name: "unmask", u: masked, file: "enabled", unmask: true, live: "masked, stopped", want: "enabled, started", calls: "unmask start", after: "enabled, started"},
		{name: "unmask and enable", u: masked, file: "disabled", unmask: true, live: "masked, stopped", want: "enabled, stopped", calls: "unmask enable", after: "enabled, stopped"},
		{name: "unmask only", u: masked, file: "static", unmask: true, live: "masked, stopped", want: "unmasked, stopped", calls: "unmask", after: "static, stopped"},
		{name: "disable what is static", u: static, live: "static, stopped", want: "disabled, stopped", after: "static, stopped"},
		{name: "static", u: static, live: "static, stopped", want: "static, started", calls: "start", after: "static, started"},
		{name: "to static", u: running, live: "enabled, started", want: "static, started", after: "enabled, started",
			er: "unit lbd.service: it is enabled, and only enabled, disabled and masked can be set, not static (see `systemctl status lbd.service`)"},
		{name: "enable fails", u: dead, live: "disabled, stopped", want: "enabled, started", calls: "enable", after: "disabled, stopped", fail: "enable", er: "systemd: enable lbd.service: no"},
		{name: "start fails", u: dead, live: "disabled, stopped", want: "enabled, started", calls: "enable start", after: "enabled, stopped", fail: "start", er: "systemd: start lbd.service: no (it is enabled now)"},
		{name: "no value of a unit", u: dead, live: "disabled, stopped", want: "started", after: "disabled, stopped", er: `unit lbd.service: the value "started" has no form of a unit's, as "enabled, started" has`},
	} {
		t.Run(tc.name, func(t *testing.T) {
			h, root, _ := treeHost(t, map[string]string{"etc/lbd/lbd.hcl": "x"})
			if err := os.Chtimes(filepath.Join(root, "etc/lbd/lbd.hcl"), at, at.Add(-time.Minute)); err != nil {
				t.Fatal(err)
			}
			m := &fakeSystemd{state: tc.u, now: at, start: at, fail: tc.fail, file: tc.file}
			if tc.old {
				m.start = at.Add(-time.Hour)
			}
			s := newUnit("lbd.service")
			s.unmask = tc.unmask
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
	if err := s.Write(t.Context(), h, Value{Absent: true}); err != nil || len(m.calls) > 0 {
		t.Errorf("what is absent was made absent: %v, %v", m.calls, err)
	}

	m.state = host.UnitState{LoadState: "bad-setting", ActiveState: "inactive"}
	if _, err := s.Read(t.Context(), h); fmt.Sprint(err) != "unit lbd.service: systemd calls it \"bad-setting\" (see `systemctl status lbd.service`, mend its file, and run `systemctl daemon-reload`)" {
		t.Errorf("%v", err)
	}

	// What stands in the way of its file is the file's to report.
	m.state = host.UnitState{LoadState: "loaded", UnitFileState: "enabled", ActiveState: "active"}
	m.start = time.Unix(1, 0)
	if err := os.MkdirAll(filepath.Join(root, "etc/lbd/lbd.hcl"), 0o755); err != nil {
		t.Fatal(err)
	}
	if v, err := s.Read(t.Context(), h); err != nil || v.Text != "enabled, started" {
		t.Errorf("%v, %v", v, err)
	}

	// What a unit file brought goes with it; until then the unit is idle.
	m.state = host.UnitState{LoadState: "loaded", UnitFileState: "enabled", ActiveState: "active"}
	if err := s.Write(t.Context(), h, Value{Absent: true}); err != nil || strings.Join(m.calls, " ") != "disable stop" {
		t.Errorf("%v, %v", m.calls, err)
	}
	if v, err := s.Read(t.Context(), h); err != nil || !s.Same(v, Value{Absent: true}) {
		t.Errorf("%v is not as good as absent, %v", v, err)
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
		{"enabled, at boot", "enabled, started", true},
		{"disabled, at boot", "enabled, started", false},
		{"enabled, stopped", "enabled, at boot", true},
		{"static, stopped", "disabled, stopped", true},
		{"masked, stopped", "disabled, stopped", false},
		{"static, started", "unmasked, started", true},
		{"masked, started", "unmasked, started", false},
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
func TestRestartRunning(t *testing.T) {
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
		for load, want := range map[string]int{"loaded": tc.want, "not-found": 0} {
			m := &fakeSystemd{state: tc.u}
			m.state.LoadState = load
			if err := restartRunning(t.Context(), m, "lbd.service"); err != nil || len(m.calls) != want {
				t.Errorf("%+v: %v, %v", m.state, m.calls, err)
			}
		}
	}
	m := &fakeSystemd{state: host.UnitState{LoadState: "loaded", ActiveState: "active"}, fail: "restart"}
	if err := restartRunning(t.Context(), m, "lbd.service"); err == nil {
		t.Error("a failure is lost")
	}
}

// systemd reads its units again before anything is done with a unit whose file is
// ours, and after such a file was written; only then is a service restarted.
func TestUnitReload(t *testing.T) {
	h, _, _ := treeHost(t, nil)
	for _, tc := range []struct{ path, active, want string }{
		{"/etc/systemd/system/a.service", "active", "reload restart"},
		{"/etc/systemd/system/a.service.d/x.conf", "active", "reload restart"},
		{"/etc/systemd/system/a.service.d/x.conf", "inactive", "reload"},
		{"/etc/systemd/system/a.slice.d/x.conf", "active", "reload"},
		{"/etc/lbd/lbd.hcl", "active", "restart"},
	} {
		m := &fakeSystemd{state: host.UnitState{LoadState: "loaded", ActiveState: tc.active}}
		if err := (file{tc.path}).announce(t.Context(), m); err != nil || strings.Join(m.calls, " ") != tc.want {
			t.Errorf("%s: %v, %v", tc.path, m.calls, err)
		}
		m.calls, m.fail = nil, "reload"
		if err := (file{tc.path}).announce(t.Context(), m); (err == nil) == isUnitFile(tc.path) {
			t.Errorf("%s: %v, %v", tc.path, m.calls, err)
		}
	}
	m := &fakeSystemd{state: host.UnitState{LoadState: "loaded", UnitFileState: "enabled", ActiveState: "inactive"}}
	s := newUnit("a.service")
	s.connect = func(context.Context, *host.Host) (manager, error) { return m, nil }
	s.configs = []string{"/etc/systemd/system/a.service.d/x.conf"}
	if err := s.Write(t.Context(), h, Value{Text: "enabled, started"}); err != nil || strings.Join(m.calls, " ") != "reload start" {
		t.Errorf("%v, %v", m.calls, err)
	}
}

// Only services are restarted for a file: a slice or a mount would take what is in
// it along, and nodeprov would end itself.
func TestUnitOf(t *testing.T) {
	for file, want := range map[string]string{
		"/etc/lbd/lbd.hcl":                                    "lbd.service",
		"/etc/systemd/system/a.service":                       "a.service",
		"/etc/systemd/system/a@b.service":                     "a@b.service",
		"/etc/systemd/system/a.service.d/10-x.conf":           "a.service",
		"/etc/systemd/system/a@.service.d/10-x.conf":          "",
		"/etc/systemd/system/a.service.d/README":              "",
		"/etc/systemd/system/a.service.d/d/x.conf":            "",
		"/etc/systemd/system/a.service.wants/b.service":       "",
		"/etc/systemd/system/service.d/x.conf":                "",
		"/etc/systemd/system/a.slice.d/x.conf":                "",
		"/etc/systemd/system/a.mount":                         "",
		"/etc/systemd/system/nodeprov-apply.service.d/x.conf": "",
		"/usr/lib/systemd/system/a.service":                   "",
		"/etc/motd":                                           "",
	} {
		if got := unitOf(file); got != want {
			t.Errorf("%s: %q, want %q", file, got, want)
		}
	}
}

func TestUnitWish(t *testing.T) {
	yes, no := true, false
	for _, tc := range []struct {
		name string
		w    unitWish
		// live values and what is wanted then; "" is absent.
		want map[string]string
	}{
		{"enabled", unitWish{enabled: &yes}, map[string]string{
			"disabled, stopped": "enabled, stopped", "disabled, started": "enabled, started", "static, stopped": "enabled, stopped",
			"enabled, started with an older configuration": "enabled, started", "enabled, failing": "enabled, failing", "": "enabled, stopped",
		}},
		{"disabled", unitWish{enabled: &no}, map[string]string{
			"enabled, started": "disabled, started", "static, started": "static, started", "masked, stopped": "masked, stopped", "": "",
			"enabled-runtime, stopped": "disabled, stopped",
		}},
		{"stopped", unitWish{state: unitStopped}, map[string]string{"enabled, failing": "enabled, stopped", "": ""}},
		{"started", unitWish{state: unitStarted}, map[string]string{"static, stopped": "static, started", "": "disabled, started"}},
		{"masked", unitWish{masked: &yes}, map[string]string{"enabled, started": "masked, started", "": "masked, stopped"}},
		{"unmasked", unitWish{masked: &no}, map[string]string{"enabled, started": "enabled, started", "masked, stopped": "unmasked, stopped", "": ""}},
		{"unmasked and disabled", unitWish{masked: &no, enabled: &no}, map[string]string{"masked, stopped": "disabled, stopped", "": ""}},
		{"drop-ins only", unitWish{}, map[string]string{"enabled, started with an older configuration": "enabled, started", "masked, stopped": "masked, stopped"}},
		{"own file", unitWish{installed: "static"}, map[string]string{"": "static, stopped", "static, started": "static, started"}},
		{"own file, started", unitWish{installed: "disabled", state: unitStarted}, map[string]string{"": "disabled, started"}},
		{"own file, disabled", unitWish{installed: "disabled", enabled: &no}, map[string]string{"": "disabled, stopped"}},
	} {
		got := map[string]string{}
		for live := range tc.want {
			v, err := tc.w.want(Value{Text: live, Absent: live == ""})
			if err != nil {
				t.Error(err)
			}
			got[live] = v.Text
			// To ask again where it is as wanted changes nothing.
			if again, _ := tc.w.want(v); v.Text != "" && !newUnit("a.service").Same(again, v) {
				t.Errorf("%s: %q, then %q", tc.name, v.Text, again.Text)
			}
		}
		if d := gocmp.Diff(tc.want, got); d != "" {
			t.Errorf("%s: %s", tc.name, d)
		}
	}
}

func TestUnitBlock(t *testing.T) {
	const install = `[Install]\nWantedBy=multi-user.target\n`
	for _, tc := range []struct{ name, text, want string }{
		{"state", "unit \"chrony.service\" {\n  enabled = true\n  state = \"started\"\n}", "unit/chrony.service = enabled, started"},
		{"name", "unit \"clock\" {\n  name = \"chrony.service\"\n  enabled = true\n}", "unit/chrony.service = enabled, stopped"},
		{"file", `unit "a.service" {
  enabled = true
  content = "[Service]\nExecStart=/bin/true\n` + install + `"
}`, `
file//etc/systemd/system/a.service = 0644 0:0
[Service]
ExecStart=/bin/true
[Install]
WantedBy=multi-user.target

unit/a.service = enabled, stopped`},
		{"drop-ins", `unit "a.service" {
  dropin "10-x" {
    content = "[Service]\nNice=1\n"
  }
  dropin "20-y" {
    content = "[Service]\nNice=2\n"
  }
}`, `
file//etc/systemd/system/a.service.d/10-x.conf = 0644 0:0
[Service]
Nice=1

file//etc/systemd/system/a.service.d/20-y.conf = 0644 0:0
[Service]
Nice=2

unit/a.service = disabled, stopped`},
		{"unknown", "unit \"a.service\" {\n  enabled = host.cpu.count > 1\n  state = \"on\"\n}",
			`3,11: error: Invalid value of state: Write "started" or "stopped".`},
		{"nothing", "unit \"a.service\" {\n}",
			`1,1: error: Unit without a wish: The block asks for nothing. Write what the unit shall be, as in enabled = true and state = "started".`},
		{"bad names", "unit \"a\" {\n  enabled = true\n}\nunit \"b\" {\n  name = \"../b.service\"\n  enabled = true\n}", `
1,1: error: Invalid name of a unit: "a" is no name of a unit: write the whole name with its type, as in chrony.service.
5,10: error: Invalid name of a unit: "../b.service" is no name of a unit: write the whole name with its type, as in chrony.service.`},
		{"masked and more", `unit "a.service" {
  masked  = true
  enabled = true
  state   = "started"
  content = "[Service]\n"
}`, `
3,13: error: Invalid value of enabled: The unit shall be masked, and a masked unit is never started. Remove one of the two.
3,13: error: Invalid value of enabled: The content has no [Install] section, so nothing would start the unit at boot. Add one, as [Install] and WantedBy=multi-user.target.
4,13: error: Invalid value of state: The unit shall be masked, and a masked unit cannot be started. Remove one of the two.
5,13: error: Invalid value of content: The unit shall be masked, and the mask takes the place of its file in /etc/systemd/system. Remove one of the two.`},
		{"bad drop-ins", `unit "a.service" {
  dropin "x.conf" {
    content = "[Service]\n"
  }
  dropin "y" {
    content = "Nice=1\n"
  }
}`, `
2,3: error: Invalid name of a drop-in: "x.conf": letters, digits, _, ., @ and - make a name, and .conf is added to it.
6,15: error: Invalid value of content: It is no drop-in of a unit: "Nice=1" stands before the first section, as [Unit] or [Service] are.`},
		{"secret", `variable "s" {
  type      = string
  default   = "x"
  sensitive = true
}
unit "a.service" {
  content = "[Service]\nEnvironment=TOKEN=${var.s}\n"
}`, `7,13: error: Sensitive value: content cannot be made of a secret: plan and journal hold files byte for byte. Give the secret to the unit that needs it, as a systemd credential (LoadCredential= in a drop-in of the unit).`},
		{"restart_on", "unit \"a.service\" {\n  restart_on = [\"etc/x\"]\n}",
			`2,16: error: Invalid value of restart_on: Absolute paths of files are needed, as in ["/etc/chrony/chrony.conf"].`},
	} {
		t.Run(tc.name, func(t *testing.T) { sameText(t, tc.want, wantedText(t, tc.text, nil)) })
	}
}

// In an image, files and links are made, twice without a change, and going back
// leaves the tree byte for byte as it was.
func TestUnitImage(t *testing.T) {
	h, root, text := treeHost(t, map[string]string{
		"usr/lib/systemd/system/chrony.service": "[Service]\nExecStart=x\n[Install]\nWantedBy=multi-user.target\nAlias=ntp.service\n",
		"usr/lib/systemd/system/off.service":    "[Install]\nWantedBy=multi-user.target\n",
		"etc/systemd/system/keep":               "x",
	})
	p := evaluate(t, `
unit "chrony.service" {
  enabled = true
  state   = "started"
}
unit "own@.service" {
  content = "[Service]\nExecStart=x %i\n[Install]\nWantedBy=a.target\nDefaultInstance=one\n"
}
unit "own@two.service" {
  enabled = true
  state   = "started"
}
unit "off.service" {
  masked = true
}
unit "gone.service" {
  enabled = false
  state   = "stopped"
}
irqbalance {
  mode = "disable"
}`, unknownHost())
	e := &Engine{Host: h, Kinds: Kinds(), State: t.TempDir(), Boot: "b"}
	ws, diags := e.Desired(p, nil, PhaseAll)
	if diags.HasErrors() {
		t.Fatal(diags)
	}
	links := func() string {
		var b strings.Builder
		for _, l := range []string{"multi-user.target.wants/chrony.service", "ntp.service", "a.target.wants/own@two.service", "a.target.wants", "off.service", "gone.service", "irqbalance.service"} {
			to, err := os.Readlink(filepath.Join(root, "etc/systemd/system", l))
			if err == nil {
				fmt.Fprintf(&b, "%s -> %s\n", l, to)
			} else if _, err := os.Lstat(filepath.Join(root, "etc/systemd/system", l)); err == nil {
				fmt.Fprintf(&b, "%s\n", l)
			}
		}
		return b.String()
	}
	files, before := text(), links()
	mustApply(t, e, ws)
	sameText(t, `
multi-user.target.wants/chrony.service -> /usr/lib/systemd/system/chrony.service
ntp.service -> /usr/lib/systemd/system/chrony.service
a.target.wants/own@two.service -> /etc/systemd/system/own@.service
a.target.wants
off.service -> /dev/null`, links())
	if r := mustApply(t, e, ws); len(r.Applied) != 0 {
		t.Errorf("applied again: %+v", r.Applied)
	}
	mustRollback(t, e, 0)
	if d := gocmp.Diff(files+before, text()+links()); d != "" {
		t.Error(d)
	}
}

// Where systemd has no way back, a rollback says so, goes on, and stops what did not run.
func TestUnitNoWayBack(t *testing.T) {
	for _, word := range []string{"linked", "enabled-runtime", "masked-runtime"} {
		fake := &fakeSystemd{state: host.UnitState{LoadState: "loaded", UnitFileState: "enabled", ActiveState: "active", SubState: "running"}}
		s := newUnit("chrony.service")
		s.connect = func(context.Context, *host.Host) (manager, error) { return fake, nil }
		h, err := host.New(host.Options{})
		if err != nil {
			t.Fatal(err)
		}
		before := Value{Text: word + ", stopped"}
		if s.Inexact(before, Value{Text: "enabled, started"}) == "" {
			t.Errorf("%s can be restored", word)
		}
		if err := s.Write(t.Context(), h, before); err == nil || strings.Join(fake.calls, " ") != "stop" {
			t.Errorf("%s: %v, %q", word, err, fake.calls)
		}
	}
	s := newUnit("chrony.service")
	for _, same := range []string{"disabled", "static", "enabled", "masked"} {
		if why := s.Inexact(Value{Text: same + ", stopped"}, Value{Text: "enabled, started"}); why != "" {
			t.Errorf("%s: %s", same, why)
		}
	}
}
