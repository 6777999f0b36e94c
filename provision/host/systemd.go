package host

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path"
	"strings"
	"time"

	"github.com/coreos/go-systemd/v22/dbus"
	godbus "github.com/godbus/dbus/v5"
	"k8s.io/utils/cpuset"
)

// ErrNoSystemd is returned where systemd is not what started the machine:
// containers, chroots, other init systems.
var ErrNoSystemd = errors.New("systemd does not run here")

// Systemd is a connection to the machine's systemd, which Host.Systemd opens.
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
}

// Systemd connects to systemd: over its private socket, which is there early at
// boot and needs no D-Bus daemon but is for root only, else over the system bus.
// The error is ErrOffline with a Root, and ErrNoSystemd where systemd does not
// run. The connection is the Host's, made once and again when systemd has ended
// it (systemctl daemon-reexec); it lives until Host.Close.
func (h *Host) Systemd(ctx context.Context) (*Systemd, error) {
	if !h.Live() {
		return nil, fmt.Errorf("systemd: %w", ErrOffline)
	}
	if h.systemd != nil && h.systemd.conn.Connected() {
		return h.systemd, nil
	}
	// The directory that sd_booted(3) looks for.
	if _, err := os.Lstat("/run/systemd/system"); err != nil {
		return nil, fmt.Errorf("%w: no /run/systemd/system (run on a machine that systemd booted, or let the profile ask for nothing of systemd: `service = false` in an lbd block, no unit and irqbalance blocks, no allowed_cpus)", ErrNoSystemd)
	}
	// It serves later calls too, so it must not end with this one's context.
	ctx = context.WithoutCancel(ctx)
	conn, err := dbus.NewSystemdConnectionContext(ctx)
	if err != nil {
		var err2 error
		if conn, err2 = dbus.NewSystemConnectionContext(ctx); err2 != nil {
			return nil, fmt.Errorf("systemd: %w (run as root)", errors.Join(err, err2))
		}
	}
	h.systemd = &Systemd{conn}
	return h.systemd, nil
}

// Close ends the connections that the Host keeps. It can be used again; then it
// opens new ones. A process that ends need not call it.
func (h *Host) Close() {
	if h.systemd != nil {
		h.systemd.Close()
		h.systemd = nil
	}
}

// Close ends the connection. The Host opens a new one when it is asked to.
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
	return st, nil
}

// MainStart is when the service's main process was started last, in the machine's
// wall-clock time; zero for units that have none.
func (s *Systemd) MainStart(ctx context.Context, name string) (time.Time, error) {
	if !strings.HasSuffix(name, ".service") {
		return time.Time{}, nil // targets, sockets… have no main process
	}
	p, err := s.conn.GetServicePropertyContext(ctx, name, "ExecMainStartTimestamp")
	if err != nil {
		return time.Time{}, fmt.Errorf("systemd: ExecMainStartTimestamp of %s: %w", name, err)
	}
	if us, ok := p.Value.Value().(uint64); ok && us > 0 {
		return time.UnixMicro(int64(us)), nil
	}
	return time.Time{}, nil
}

// Enable makes the unit start at every boot. It starts nothing now. The manager
// is reloaded, as it would not notice before.
func (s *Systemd) Enable(ctx context.Context, name string) error {
	hasInstall, _, err := s.conn.EnableUnitFilesContext(ctx, []string{name}, false, false)
	if err != nil {
		return fmt.Errorf("systemd: enable %s: %w", name, err)
	}
	if !hasInstall {
		return fmt.Errorf("systemd: enable %s: its file has no [Install] section, so nothing would start it at boot (give it one, or ask for its state only)", name)
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

// Mask makes the unit impossible to start. It stops nothing now.
func (s *Systemd) Mask(ctx context.Context, name string) error {
	if _, err := s.conn.MaskUnitFilesContext(ctx, []string{name}, false, false); err != nil {
		return fmt.Errorf("systemd: mask %s: %w (a unit file in /etc/systemd/system is in the way of the mask: remove it)", name, err)
	}
	return s.Reload(ctx)
}

// Unmask undoes Mask, also one that lasts until the next boot only.
func (s *Systemd) Unmask(ctx context.Context, name string) error {
	for _, runtime := range []bool{false, true} {
		if _, err := s.conn.UnmaskUnitFilesContext(ctx, []string{name}, runtime); err != nil {
			return fmt.Errorf("systemd: unmask %s: %w", name, err)
		}
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

// AllowedCPUs returns the unit's property AllowedCPUs=, which is empty where it
// confines to none.
func (s *Systemd) AllowedCPUs(ctx context.Context, name string) (cpuset.CPUSet, error) {
	p, err := s.conn.GetUnitTypePropertyContext(ctx, name, unitType(name), "AllowedCPUs")
	if err != nil {
		return cpuset.CPUSet{}, fmt.Errorf("systemd: AllowedCPUs of %s: %w", name, err)
	}
	mask, ok := p.Value.Value().([]byte)
	if !ok {
		return cpuset.CPUSet{}, fmt.Errorf("systemd: AllowedCPUs of %s: it is %s, not an array of bytes", name, p.Value.Signature())
	}
	return maskCPUs(mask), nil
}

// SetAllowedCPUs sets the unit's property AllowedCPUs= until the next boot, and
// with it the cpuset of its cgroup, if the unit has one. No CPUs undo the
// confinement.
func (s *Systemd) SetAllowedCPUs(ctx context.Context, name string, cpus cpuset.CPUSet) error {
	p := dbus.Property{Name: "AllowedCPUs", Value: godbus.MakeVariant(cpuMask(cpus))}
	if err := s.conn.SetUnitPropertiesContext(ctx, name, true, p); err != nil {
		return fmt.Errorf("systemd: AllowedCPUs of %s: %w", name, err)
	}
	return nil
}

// ControlGroup returns the path of the unit's cgroup below the cgroup file
// system; empty for a unit that has none now.
func (s *Systemd) ControlGroup(ctx context.Context, name string) (string, error) {
	p, err := s.conn.GetUnitTypePropertyContext(ctx, name, unitType(name), "ControlGroup")
	if err != nil {
		return "", fmt.Errorf("systemd: ControlGroup of %s: %w", name, err)
	}
	group, _ := p.Value.Value().(string)
	return group, nil
}

// unitType is the last part of the D-Bus interface of the unit's type: "Slice"
// for system.slice.
func unitType(name string) string {
	t := strings.TrimPrefix(path.Ext(name), ".")
	return strings.ToUpper(t[:1]) + t[1:]
}

// cpuMask is the form that systemd has CPU sets in on D-Bus: bit n%8 of byte n/8
// is CPU n.
func cpuMask(cpus cpuset.CPUSet) []byte {
	mask := []byte{}
	for _, n := range cpus.List() { // sorted
		for len(mask) <= n/8 {
			mask = append(mask, 0)
		}
		mask[n/8] |= 1 << (n % 8)
	}
	return mask
}

func maskCPUs(mask []byte) cpuset.CPUSet {
	var cpus []int
	for i, b := range mask {
		for bit := range 8 {
			if b&(1<<bit) != 0 {
				cpus = append(cpus, 8*i+bit)
			}
		}
	}
	return cpuset.New(cpus...)
}
