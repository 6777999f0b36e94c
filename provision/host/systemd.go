package host

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"time"

	"github.com/coreos/go-systemd/v22/dbus"
)

// ErrNoSystemd is returned where systemd is not what started the machine:
// containers, chroots, other init systems.
var ErrNoSystemd = errors.New("systemd does not run here")

// Systemd is a connection to the machine's systemd. Close it.
type Systemd struct {
	conn *dbus.Conn
}

// UnitState is what systemd says of a unit.
type UnitState struct {
	// LoadState is "loaded", "not-found", "masked", "bad-setting"…
	LoadState string
	// ActiveState is "active", "activating", "reloading", "deactivating",
	// "inactive" or "failed".
	ActiveState string
	// SubState depends on the type of unit: "running", "auto-restart", "dead"…
	SubState string
	// UnitFileState is "enabled", "disabled", "static", "masked"…, empty for a
	// unit without a file.
	UnitFileState string
	// Job is the number of the unit's queued job, 0 if there is none, and
	// JobType is what it does: "start", "stop", "restart"…
	Job     uint32
	JobType string
	// MainStart is when the service's main process was started last, in the
	// machine's wall-clock time; zero for units that have none.
	MainStart time.Time
}

// Systemd connects to systemd: over its private socket, which is there early at
// boot and needs no D-Bus daemon but is for root only, else over the system bus.
// The error is ErrOffline with a Root, and ErrNoSystemd where systemd does not
// run. The connection ends with ctx.
func (h *Host) Systemd(ctx context.Context) (*Systemd, error) {
	if !h.Live() {
		return nil, fmt.Errorf("systemd: %w", ErrOffline)
	}
	// The directory that sd_booted(3) looks for.
	if _, err := os.Lstat("/run/systemd/system"); err != nil {
		return nil, fmt.Errorf("%w: no /run/systemd/system (run on a machine that systemd booted, or let the profile start no unit: `service = false` in an lbd block)", ErrNoSystemd)
	}
	conn, err := dbus.NewSystemdConnectionContext(ctx)
	if err == nil {
		return &Systemd{conn}, nil
	}
	conn, err2 := dbus.NewSystemConnectionContext(ctx)
	if err2 == nil {
		return &Systemd{conn}, nil
	}
	return nil, fmt.Errorf("systemd: %w (run as root)", errors.Join(err, err2))
}

// Close ends the connection.
func (s *Systemd) Close() { s.conn.Close() }

// Unit returns the state of the unit of that name, whether it is loaded,
// installed, or not there at all (LoadState "not-found").
func (s *Systemd) Unit(ctx context.Context, name string) (UnitState, error) {
	units, err := s.conn.ListUnitsByNamesContext(ctx, []string{name})
	if err != nil {
		return UnitState{}, fmt.Errorf("systemd: state of %s: %w", name, err)
	}
	if len(units) != 1 {
		return UnitState{}, fmt.Errorf("systemd: state of %s: %d units answer to that name", name, len(units))
	}
	u := units[0]
	st := UnitState{LoadState: u.LoadState, ActiveState: u.ActiveState, SubState: u.SubState, Job: u.JobId, JobType: u.JobType}
	if u.LoadState == "not-found" {
		return st, nil
	}
	p, err := s.conn.GetUnitPropertyContext(ctx, name, "UnitFileState")
	if err != nil {
		return UnitState{}, fmt.Errorf("systemd: UnitFileState of %s: %w", name, err)
	}
	st.UnitFileState, _ = p.Value.Value().(string)
	if !strings.HasSuffix(name, ".service") {
		return st, nil // targets, sockets… have no main process
	}
	p, err = s.conn.GetServicePropertyContext(ctx, name, "ExecMainStartTimestamp")
	if err != nil {
		return UnitState{}, fmt.Errorf("systemd: ExecMainStartTimestamp of %s: %w", name, err)
	}
	if us, ok := p.Value.Value().(uint64); ok && us > 0 {
		st.MainStart = time.UnixMicro(int64(us))
	}
	return st, nil
}

// Enable makes the unit start at every boot. It starts nothing now. The manager
// is reloaded, as it would not notice before.
func (s *Systemd) Enable(ctx context.Context, name string) error {
	hasInstall, _, err := s.conn.EnableUnitFilesContext(ctx, []string{name}, false, false)
	if err != nil {
		return fmt.Errorf("systemd: enable %s: %w", name, err)
	}
	if !hasInstall {
		return fmt.Errorf("systemd: enable %s: its file has no [Install] section (run `nodeprov install` to mend it)", name)
	}
	return s.Reload(ctx)
}

// Disable undoes Enable. It stops nothing now.
func (s *Systemd) Disable(ctx context.Context, name string) error {
	if _, err := s.conn.DisableUnitFilesContext(ctx, []string{name}, false); err != nil {
		return fmt.Errorf("systemd: disable %s: %w", name, err)
	}
	return s.Reload(ctx)
}

// Start queues a start job and does not wait for it: the unit may be ordered
// after the very service that runs this. A job that conflicts is replaced.
func (s *Systemd) Start(ctx context.Context, name string) error {
	if _, err := s.conn.StartUnitContext(ctx, name, "replace", nil); err != nil {
		return fmt.Errorf("systemd: start %s: %w", name, err)
	}
	return nil
}

// Restart is Start for a unit that may run.
func (s *Systemd) Restart(ctx context.Context, name string) error {
	if _, err := s.conn.RestartUnitContext(ctx, name, "replace", nil); err != nil {
		return fmt.Errorf("systemd: restart %s: %w", name, err)
	}
	return nil
}

// Stop queues a stop job and does not wait for it.
func (s *Systemd) Stop(ctx context.Context, name string) error {
	if _, err := s.conn.StopUnitContext(ctx, name, "replace", nil); err != nil {
		return fmt.Errorf("systemd: stop %s: %w", name, err)
	}
	return nil
}

// ResetFailed makes systemd forget that the unit failed, and how often it was
// started: a unit at its start limit cannot be started before.
func (s *Systemd) ResetFailed(ctx context.Context, name string) error {
	if err := s.conn.ResetFailedUnitContext(ctx, name); err != nil {
		return fmt.Errorf("systemd: reset-failed %s: %w", name, err)
	}
	return nil
}

// Reload makes systemd read all unit files again (daemon-reload).
func (s *Systemd) Reload(ctx context.Context) error {
	if err := s.conn.ReloadContext(ctx); err != nil {
		return fmt.Errorf("systemd: daemon-reload: %w", err)
	}
	return nil
}
