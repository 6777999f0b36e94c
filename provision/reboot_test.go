package provision

import (
	"context"
	"errors"
	"fmt"
	"os"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// grub is a machine whose kernel takes an argument at boot, or never does.
type grub struct {
	*testing.T
	m       *memory
	e       *Engine
	takes   bool
	reboots int
	boot    int
	asked   string
	policy  RebootPolicy
}

func newGrub(t *testing.T, takes bool, attempts int) *grub {
	m := newMemory("file/grub", "")
	g := &grub{T: t, m: m, e: newEngine(t, m), takes: takes, boot: 1, asked: "preempt=none", policy: RebootPolicy{IfNeeded: attempts > 0, MaxAttempts: attempts}}
	g.e.Boot = "boot-1"
	m.pending = map[string]string{"file/grub": "the kernel was not booted with " + g.asked}
	return g
}

func (g *grub) up() {
	g.boot++
	g.e.Boot = fmt.Sprintf("boot-%d", g.boot)
	if g.takes {
		g.m.pending = nil
	}
}

// apply is what the unit does.
func (g *grub) apply(o ApplyOptions) *Report {
	g.Helper()
	w := want(g.m, "file/grub", g.asked)
	w.Reboot = g.policy
	o.Phase, o.FailOpen = PhaseAll, true
	o.Reboot = func(context.Context) error { g.reboots++; return nil }
	return mustApply(g.T, g.e, []Wanted{w}, o)
}

func TestRebootOnce(t *testing.T) {
	g := newGrub(t, true, 1)
	r := g.apply(ApplyOptions{})
	if g.reboots != 1 || r.Reboot.State != Rebooting || len(r.Pending) != 1 {
		t.Errorf("%d reboots, %+v", g.reboots, r)
	}
	g.up()
	r = g.apply(ApplyOptions{})
	if g.reboots != 1 || r.Reboot != nil || len(r.Pending) != 0 {
		t.Errorf("%d reboots, %+v", g.reboots, r)
	}
	if s, err := g.e.Status(t.Context()); err != nil || s.State != Applied {
		t.Errorf("%v %+v", err, s)
	}
	// Another value may reboot again, but not in a machine that has been up.
	g.asked, g.m.pending = "preempt=full", map[string]string{"file/grub": "no preempt=full"}
	r = g.apply(ApplyOptions{})
	if g.reboots != 1 || r.Reboot.State != RebootNeeded {
		t.Errorf("%d reboots, %+v", g.reboots, r)
	}
	if s, err := g.e.Status(t.Context()); err != nil || s.State != NeedsReboot {
		t.Errorf("%v %+v", err, s)
	}
	g.takes = false
	g.up()
	if g.apply(ApplyOptions{}); g.reboots != 2 {
		t.Errorf("%d reboots", g.reboots)
	}
}

// A kernel that drops the argument is rebooted so often, over all boots, and then
// the state says so.
func TestRebootGivesUp(t *testing.T) {
	for attempts := range 3 {
		g := newGrub(t, false, attempts)
		for range 5 {
			g.apply(ApplyOptions{})
			g.up()
		}
		if g.reboots != attempts {
			t.Errorf("%d attempts: %d reboots", attempts, g.reboots)
		}
		r := g.apply(ApplyOptions{})
		if attempts == 0 {
			if r.Reboot.State != RebootNeeded {
				t.Errorf("%+v", r.Reboot)
			}
			continue
		}
		want := fmt.Sprintf("rebooted for it (%s), and still: the kernel was not booted with preempt=none (is the boot loader's configuration in use, and does this kernel know what is asked for?)", count(attempts, "time"))
		if d := cmp.Diff(&Reboot{State: RebootGaveUp, Attempts: attempts, Reason: want}, r.Reboot); d != "" {
			t.Errorf("(-want +got):\n%s", d)
		}
		if s, err := g.e.Status(t.Context()); err != nil || s.State != Degraded {
			t.Errorf("%v %+v", err, s)
		}
		// Asking for another value, and for the first one again, is no way round.
		first := g.asked
		g.asked = "preempt=full"
		g.apply(ApplyOptions{})
		g.asked = first
		n := g.reboots
		g.up()
		if g.apply(ApplyOptions{}); g.reboots != n {
			t.Errorf("%d attempts: rebooted again", attempts)
		}
	}
}

func TestRebootOnlyAtBoot(t *testing.T) {
	g := newGrub(t, false, 3)
	w := want(g.m, "file/grub", g.asked)
	w.Reboot = g.policy
	// At a shell; and, after that, by hand as the unit does.
	if r := mustApply(t, g.e, []Wanted{w}); r.Reboot.State != RebootNeeded || g.reboots != 0 {
		t.Errorf("%+v", r)
	}
	if g.apply(ApplyOptions{}); g.reboots != 0 {
		t.Error("rebooted a machine that was up")
	}
	// The early phase leaves it to the whole one, which may.
	g.up()
	mustApply(t, g.e, nil, ApplyOptions{Phase: PhaseEarly, Reboot: func(context.Context) error { g.reboots++; return nil }})
	if g.reboots != 0 {
		t.Error("rebooted early")
	}
	if g.apply(ApplyOptions{}); g.reboots != 1 {
		t.Error("not rebooted")
	}
	// The reboot takes its time; an apply meanwhile must not ask again.
	if g.apply(ApplyOptions{}); g.reboots != 1 {
		t.Error("rebooted twice in a boot")
	}
}

// What cannot be counted is not done.
func TestRebootUncounted(t *testing.T) {
	g := newGrub(t, false, 3)
	if err := os.MkdirAll(g.e.file(rebootFile), 0o700); err != nil {
		t.Fatal(err)
	}
	w := want(g.m, "file/grub", g.asked)
	w.Reboot = g.policy
	r, _, err := g.e.Apply(t.Context(), []Wanted{w}, ApplyOptions{Phase: PhaseAll, Reboot: func(context.Context) error { g.reboots++; return nil }})
	if err == nil || r == nil || g.reboots != 0 {
		t.Errorf("%v: %d reboots", err, g.reboots)
	}
	// systemd refuses: the error is told, and the attempt counts.
	g = newGrub(t, false, 1)
	w.Setting = fakeSetting{g.m, "file/grub"}
	why := errors.New("refused (test)")
	r, _, err = g.e.Apply(t.Context(), []Wanted{w}, ApplyOptions{Phase: PhaseAll, Reboot: func(context.Context) error { return why }})
	if !errors.Is(err, why) || r.Reboot.State != RebootNeeded || r.Reboot.Attempts != 1 {
		t.Errorf("%v %+v", err, r)
	}
}

// Arguments that the profile has no more hold until the next boot, too.
func TestRebootPutBack(t *testing.T) {
	g := newGrub(t, true, 1)
	g.e.Kinds[2].Effect = "after reboot"
	g.apply(ApplyOptions{})
	g.up()
	g.apply(ApplyOptions{})
	p, _, err := g.e.Plan(t.Context(), nil, PhaseAll)
	if err != nil || len(p.Pending()) != 1 {
		t.Errorf("%v %+v", err, p)
	}
	r := mustApply(t, g.e, nil)
	if len(r.Pending) != 1 || r.Reboot == nil || r.Reboot.State != RebootNeeded || g.reboots != 1 {
		t.Errorf("%d reboots, %+v", g.reboots, r)
	}
	if s, err := g.e.Status(t.Context()); err != nil || s.State != NeedsReboot {
		t.Errorf("%v %+v", err, s)
	}
}
