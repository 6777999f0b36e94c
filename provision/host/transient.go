package host

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"time"

	"github.com/coreos/go-systemd/v22/dbus"
	godbus "github.com/godbus/dbus/v5"
)

// Timer is a command that systemd runs later, whatever becomes of this process. It
// is in memory only: a reboot ends it.
type Timer struct {
	// Name is that of both units, without ".timer" and ".service".
	Name        string
	Description string
	After       time.Duration
	// Command has an absolute path first.
	Command []string
}

// StartTimer starts t. One of the same name that still runs is an error. Errors are
// those of Systemd too.
func (h *Host) StartTimer(ctx context.Context, t Timer) error {
	conn, err := h.systemdConn(ctx)
	if err != nil {
		return err
	}
	defer conn.Close()
	// What an earlier one left as failed would keep the name.
	_ = conn.ResetFailedUnitContext(ctx, t.Name+".service")
	timer, service := t.properties()
	aux := []dbus.PropertyCollection{{Name: t.Name + ".service", Properties: service}}
	done := make(chan string, 1)
	if _, err := conn.StartTransientUnitAux(ctx, t.Name+".timer", "fail", timer, aux, done); err != nil {
		return fmt.Errorf("systemd: start timer %s: %w", t.Name, err)
	}
	// Nothing may be waited for but this: it depends on no other unit.
	select {
	case res := <-done:
		if res != "done" {
			return fmt.Errorf("systemd: start timer %s: the job ended as %q", t.Name, res)
		}
		return nil
	case <-ctx.Done():
		return fmt.Errorf("systemd: start timer %s: %w", t.Name, context.Cause(ctx))
	}
}

// StopTimer stops the timer of that name, if it runs; a command that has begun is
// left alone.
func (h *Host) StopTimer(ctx context.Context, name string) error {
	conn, err := h.systemdConn(ctx)
	if err != nil {
		return err
	}
	defer conn.Close()
	_, err = conn.StopUnitContext(ctx, name+".timer", "replace", nil)
	var answer godbus.Error
	if errors.As(err, &answer) && answer.Name == "org.freedesktop.systemd1.NoSuchUnit" {
		return nil
	}
	if err != nil {
		return fmt.Errorf("systemd: stop timer %s: %w", name, err)
	}
	return nil
}

// properties are those of the timer's and of the service's unit.
func (t Timer) properties() (timer, service []dbus.Property) {
	prop := func(name string, v any) dbus.Property { return dbus.Property{Name: name, Value: godbus.MakeVariant(v)} }
	type monotonic struct {
		Base string
		Usec uint64
	}
	timer = []dbus.Property{
		dbus.PropDescription(t.Description),
		prop("TimersMonotonic", []monotonic{{"OnActiveSec", uint64(t.After.Microseconds())}}),
		// The default accuracy is a minute.
		prop("AccuracyUSec", uint64(100*time.Millisecond/time.Microsecond)),
		prop("RemainAfterElapse", false),
	}
	service = []dbus.Property{
		dbus.PropDescription(t.Description),
		dbus.PropType("oneshot"),
		dbus.PropExecStart(t.Command, false),
		prop("CollectMode", "inactive-or-failed"),
	}
	return timer, service
}

// Reboot asks systemd to stop all units in order and to reboot, and does not wait.
// The Reboot method of systemd's own D-Bus interface would stop nothing in order.
func (h *Host) Reboot(ctx context.Context) error {
	conn, err := h.systemdConn(ctx)
	if err != nil {
		return fmt.Errorf("reboot: %w", err)
	}
	defer conn.Close()
	if _, err := conn.StartUnitContext(ctx, "reboot.target", "replace-irreversibly", nil); err != nil {
		return fmt.Errorf("reboot: systemd: start reboot.target: %w", err)
	}
	return nil
}

// HasSystemd tells whether systemd runs the machine and answers; nil if so. Errors
// are those of Systemd.
func (h *Host) HasSystemd(ctx context.Context) error {
	conn, err := h.systemdConn(ctx)
	if err != nil {
		return err
	}
	conn.Close()
	return nil
}

// systemdConn connects to systemd: over its private socket, which is there when the
// D-Bus daemon is not, else over the system bus.
func (h *Host) systemdConn(ctx context.Context) (*dbus.Conn, error) {
	if !h.Live() {
		return nil, fmt.Errorf("systemd: %w", ErrOffline)
	}
	if _, err := os.Lstat("/run/systemd/system"); err != nil { // what sd_booted(3) looks at
		return nil, fmt.Errorf("%w: no /run/systemd/system", ErrNoSystemd)
	}
	conn, err := dbus.NewSystemdConnectionContext(ctx)
	if err == nil {
		return conn, nil
	}
	conn, err2 := dbus.NewSystemConnectionContext(ctx)
	if err2 == nil {
		return conn, nil
	}
	return nil, fmt.Errorf("systemd: %s (run as root)", strings.ReplaceAll(errors.Join(err, err2).Error(), "\n", "; "))
}
