package provision

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path"
	"strings"
	"time"

	"github.com/hashicorp/hcl/v2"

	"github.com/nodeprov/nodeprov/lbd/config"
	"github.com/nodeprov/nodeprov/provision/host"
)

// unitKind enables and starts systemd units. No construct of the language is its
// own yet; lbd's service is one.
//
// The lifetime is Persistent because enablement is: what is enabled runs after
// the next boot too. So a value from before a reboot is restored after it, with
// both of its halves: what was "disabled, stopped" is stopped again.
func unitKind() Kind {
	return Kind{
		Name:     "unit",
		Open:     func(name string) (Setting, error) { return openUnit(name) },
		Scope:    Machine,
		Lifetime: Persistent,
		Effect:   "now; the job is queued, not waited for",
	}
}

// The second half of a unit's value.
const (
	// unitStarted is running, starting, or waiting for its turn to start: at
	// boot, units come after the service that runs us.
	unitStarted = "started"
	// unitStale is running since before its configuration file was written.
	unitStale   = "started with an older configuration"
	unitStopped = "stopped"
	// unitFailing has failed, or waits for the next try after it failed.
	unitFailing = "failing"
)

// unit is a systemd unit. Its value is "ENABLEMENT, ACTIVITY": systemd's word for
// the unit's file ("enabled", "disabled", "static", "masked"…), and one of the
// constants above. It is absent when no such unit is installed.
type unit struct {
	name string
	// config is the file that the unit reads when it starts, or empty.
	config string
	// connect returns the machine's systemd; tests put another one here.
	connect func(context.Context, *host.Host) (manager, error)
}

// manager is what a unit needs of systemd.
type manager interface {
	Unit(ctx context.Context, name string) (host.UnitState, error)
	Enable(ctx context.Context, name string) error
	Disable(ctx context.Context, name string) error
	Start(ctx context.Context, name string) error
	Restart(ctx context.Context, name string) error
	Stop(ctx context.Context, name string) error
	ResetFailed(ctx context.Context, name string) error
	Close()
}

func systemd(ctx context.Context, h *host.Host) (manager, error) {
	m, err := h.Systemd(ctx)
	if err != nil {
		return nil, err
	}
	return m, nil
}

// unitWanted asks for a unit that is enabled and started. rng is the place in the
// profile.
func unitWanted(name string, rng hcl.Range) Wanted {
	s := newUnit(name)
	want := unitValue("enabled", unitStarted)
	return Wanted{
		Setting:     s,
		Want:        func(Value) (Value, error) { return want, nil },
		Range:       rng,
		OnError:     Fail,
		Unsupported: s.unsupported,
	}
}

func newUnit(name string) *unit {
	return &unit{name: name, config: configOf(name), connect: systemd}
}

// configOf returns the file that a unit reads when it starts, empty for units
// that have none. It goes by the name, so that a journaled key is enough to go
// back.
func configOf(unit string) string {
	if unit == lbdUnit {
		return config.File
	}
	return ""
}

// unitOf is the reverse of configOf.
func unitOf(file string) string {
	if file == config.File {
		return lbdUnit
	}
	return ""
}

func openUnit(name string) (*unit, error) {
	if ext := path.Ext(name); len(ext) < 2 || ext == name || strings.ContainsAny(name, "/ \n\x00") {
		return nil, fmt.Errorf("unit: %q is no name of a unit", name)
	}
	return newUnit(name), nil
}

func (s *unit) Key() string { return "unit/" + s.name }

func (s *unit) Read(ctx context.Context, h *host.Host) (Value, error) {
	m, err := s.connect(ctx, h)
	if err != nil {
		return Value{}, fmt.Errorf("unit %s: %w", s.name, err)
	}
	defer m.Close()
	return s.read(ctx, h, m)
}

func (s *unit) read(ctx context.Context, h *host.Host, m manager) (Value, error) {
	u, err := m.Unit(ctx, s.name)
	if err != nil {
		return Value{}, fmt.Errorf("unit %s: %w", s.name, err)
	}
	var written time.Time
	if s.config != "" {
		written, err = h.ModTime(s.config)
		// Without its file it has what it had; that it is no file is the
		// file's setting to report.
		if err != nil && !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, host.ErrNotRegular) {
			return Value{}, fmt.Errorf("unit %s: %w", s.name, err)
		}
	}
	switch u.LoadState {
	case "not-found":
		return Value{Absent: true}, nil
	case "loaded", "masked":
		return unitValue(cmp.Or(u.UnitFileState, "without-file"), activity(u, written)), nil
	}
	return Value{}, fmt.Errorf("unit %s: systemd calls it %q (see `systemctl status %[1]s`, mend its file, and run `systemctl daemon-reload`)", s.name, u.LoadState)
}

// activity puts into one word what systemd says; written is when the unit's
// configuration was, zero if it has none.
func activity(u host.UnitState, written time.Time) string {
	// What is queued counts as done: jobs are never waited for.
	switch u.JobType {
	case "start", "restart":
		// A start job stays while the process comes up, which may have read an
		// older configuration already.
		if u.JobType == "restart" || u.ActiveState != "activating" {
			return unitStarted
		}
	case "stop":
		return unitStopped
	}
	switch u.ActiveState {
	case "active", "reloading", "activating", "refreshing":
		if strings.HasPrefix(u.SubState, "auto-restart") {
			return unitFailing
		}
		if !u.MainStart.IsZero() && written.After(u.MainStart) {
			return unitStale
		}
		return unitStarted
	case "failed":
		return unitFailing
	}
	return unitStopped
}

// Write enables or disables the unit, and queues the job that its activity
// needs. It waits for nothing.
func (s *unit) Write(ctx context.Context, h *host.Host, v Value) error {
	if v.Absent {
		return fmt.Errorf("unit %s: a unit is not uninstalled by a setting (remove its file and run `systemctl daemon-reload`)", s.name)
	}
	enablement, wanted, ok := strings.Cut(v.Text, ", ")
	if !ok {
		return fmt.Errorf("unit %s: the value %q has no form of a unit's, as \"enabled, started\" has", s.name, v.Text)
	}
	m, err := s.connect(ctx, h)
	if err != nil {
		return fmt.Errorf("unit %s: %w", s.name, err)
	}
	defer m.Close()
	live, err := s.read(ctx, h, m)
	if err != nil {
		return err
	}
	if live.Absent {
		return s.unsupported(h)
	}
	enabled, active, _ := strings.Cut(live.Text, ", ")
	if enabled != enablement {
		if err := s.enable(ctx, m, enabled, enablement); err != nil {
			return err
		}
	}
	if err := s.run(ctx, m, active, wanted); err != nil {
		return fmt.Errorf("%w (it is %s now)", err, enablement)
	}
	return nil
}

func (s *unit) enable(ctx context.Context, m manager, from, to string) error {
	switch {
	case strings.HasPrefix(from, "masked"):
		return fmt.Errorf("unit %s: it is masked, so somebody wants it not to run (run `systemctl unmask %[1]s` if it shall)", s.name)
	case to == "enabled":
		return m.Enable(ctx, s.name)
	case to == "disabled":
		return m.Disable(ctx, s.name)
	}
	return fmt.Errorf("unit %s: it is %s, and only enabled and disabled can be set, not %s (see `systemctl status %[1]s`)", s.name, from, to)
}

func (s *unit) run(ctx context.Context, m manager, from, to string) error {
	if to == unitStopped {
		if from == unitStopped {
			return nil
		}
		if err := m.Stop(ctx, s.name); err != nil {
			return err
		}
		if from == unitFailing {
			return m.ResetFailed(ctx, s.name)
		}
		return nil
	}
	switch from {
	case unitStopped:
		return m.Start(ctx, s.name)
	case unitStale:
		if to == unitStarted {
			return m.Restart(ctx, s.name)
		}
	case unitFailing:
		if to == unitFailing {
			return nil
		}
		// It may have reached its start limit.
		if err := m.ResetFailed(ctx, s.name); err != nil {
			return err
		}
		return m.Restart(ctx, s.name)
	}
	return nil
}

// Same: nobody can ask for a unit that fails or that has an older configuration,
// so where that was the value before, one that was started is as good.
func (s *unit) Same(live, want Value) bool {
	if live == want {
		return true
	}
	le, la, ok1 := strings.Cut(live.Text, ", ")
	we, wa, ok2 := strings.Cut(want.Text, ", ")
	return ok1 && ok2 && le == we && la == unitStarted && (wa == unitStale || wa == unitFailing)
}

func (s *unit) unsupported(*host.Host) error {
	return fmt.Errorf("unit %s: it is not installed (run `nodeprov install`)", s.name)
}

func unitValue(enablement, activity string) Value {
	return Value{Text: enablement + ", " + activity}
}

// restartRunning restarts a unit if it runs, without waiting. It does nothing
// where no systemd is, or where the unit is stopped, stopping or about to start.
func restartRunning(ctx context.Context, h *host.Host, name string) error {
	m, err := systemd(ctx, h)
	if errors.Is(err, host.ErrOffline) || errors.Is(err, host.ErrNoSystemd) {
		return nil
	}
	if err != nil {
		return err
	}
	defer m.Close()
	return restartWith(ctx, m, name)
}

func restartWith(ctx context.Context, m manager, name string) error {
	u, err := m.Unit(ctx, name)
	if err != nil {
		return err
	}
	if u.JobType == "stop" || u.JobType == "restart" {
		return nil
	}
	switch u.ActiveState {
	case "active", "activating", "reloading", "refreshing":
		return m.Restart(ctx, name)
	}
	return nil
}
