package provision

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
)

// RebootState says what is done about settings that hold after a reboot only.
type RebootState string

const (
	// RebootNeeded: nodeprov does not reboot by itself, or not now.
	RebootNeeded RebootState = "needed"
	// Rebooting: the machine was told to reboot.
	Rebooting RebootState = "rebooting"
	// RebootGaveUp: it was rebooted as often as it may be, and they still do
	// not hold.
	RebootGaveUp RebootState = "given up"
)

// Reboot is what is done about what is pending.
type Reboot struct {
	State RebootState `json:"state"`
	// Attempts is how often nodeprov has rebooted for the values that are pending,
	// over all boots.
	Attempts int `json:"attempts"`
	// Reason is the state in words.
	Reason string `json:"reason"`
}

// rebootFile counts the reboots.
const rebootFile = "reboot.json"

// rebootGuard is its content. A value that holds is forgotten, so that it may be
// rebooted for again.
type rebootGuard struct {
	Format int `json:"format"` // 1
	// Boot is the one in which the machine was told to reboot last.
	Boot string `json:"boot"`
	// Attempts is by the hash of what was wanted.
	Attempts map[string]int `json:"attempts"`
}

// reboot tells, and does, what follows from what is pending; last is the report
// before this one. The count is on the disk before the machine is told: however
// often it comes up without what is wanted, it is rebooted for it a few times only.
func (a *apply) reboot(ctx context.Context, last *Report) error {
	e, r := a.e, a.r
	if r.Result != Complete && r.Result != Partial {
		return nil
	}
	g, err := e.rebootGuard()
	if err != nil {
		return err
	}
	hash, most := a.wantedHash(), 0
	for _, p := range r.Pending {
		if rp := a.policies[p.Key]; rp.IfNeeded {
			most = max(most, rp.MaxAttempts, 1)
		}
	}
	n := g.Attempts[hash]
	if most == 0 && n > 0 {
		// It holds now.
		delete(g.Attempts, hash)
		if err := e.saveRebootGuard(g); err != nil {
			return err
		}
	}
	if len(r.Pending) == 0 {
		return nil
	}
	r.Reboot = &Reboot{State: RebootNeeded, Attempts: n, Reason: "reboot the machine when it suits"}
	// Later in a boot, something runs that would be lost.
	booting := last == nil || last.Boot != a.j.boot || last.Phase == PhaseEarly && last.Operation == "apply"
	switch {
	case most == 0:
		return nil
	case n >= most:
		r.Reboot.State = RebootGaveUp
		r.Reboot.Reason = fmt.Sprintf("rebooted for it (%s), and still: %s (is the boot loader's configuration in use, and does this kernel know what is asked for?)",
			count(n, "time"), r.Pending[0].Reason)
		return nil
	case a.o.Reboot == nil || !booting || g.Boot == a.j.boot || r.Try != nil:
		return nil
	}
	g.Boot = a.j.boot
	g.Attempts[hash] = n + 1
	if err := e.saveRebootGuard(g); err != nil {
		return err
	}
	r.Reboot = &Reboot{State: Rebooting, Attempts: n + 1, Reason: fmt.Sprintf("rebooting now, attempt %d of %d", n+1, most)}
	// The report must be there when the machine goes down.
	if err := e.saveReport(r, false); err != nil {
		return err
	}
	if err := a.o.Reboot(ctx); err != nil {
		r.Reboot.State, r.Reboot.Reason = RebootNeeded, err.Error()
		return err
	}
	return nil
}

// wantedHash stands for all wanted values that need a reboot to hold.
func (a *apply) wantedHash() string {
	h := sha256.New()
	for _, c := range a.p.Changes {
		if _, ok := c.setting.(Pender); ok && c.want.Reboot.IfNeeded {
			fmt.Fprintf(h, "%s\x00%v\x00%s\x00", c.Key, c.Want.Absent, c.Want.Text)
		}
	}
	return hex.EncodeToString(h.Sum(nil))
}

func (e *Engine) rebootGuard() (*rebootGuard, error) {
	g := &rebootGuard{Format: 1, Attempts: map[string]int{}}
	b, err := os.ReadFile(e.file(rebootFile))
	if errors.Is(err, fs.ErrNotExist) {
		return g, nil
	}
	if err == nil {
		err = json.Unmarshal(b, g)
	}
	if err == nil && (g.Format != 1 || g.Attempts == nil) {
		err = errors.New("not in a form that this version knows")
	}
	if err != nil {
		// Without the count, the machine could be rebooted for ever.
		return nil, fmt.Errorf("reboots: %s: %w (remove it to count anew)", e.file(rebootFile), err)
	}
	return g, nil
}

func (e *Engine) saveRebootGuard(g *rebootGuard) error {
	b, err := json.MarshalIndent(g, "", "  ")
	if err == nil {
		err = writeState(e.file(rebootFile), append(b, '\n'))
	}
	if err != nil {
		return fmt.Errorf("reboots: %w (make room or make %s writable)", err, e.State)
	}
	return nil
}
