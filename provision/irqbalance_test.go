package provision

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	gocmp "github.com/google/go-cmp/cmp"

	"github.com/nodeprov/nodeprov/provision/host"
)

// Only our line changes, and going back leaves the file byte for byte as it was.
func TestIrqbalanceBanned(t *testing.T) {
	const debian = "/etc/default/irqbalance"
	for _, tc := range []struct{ name, path, text, after string }{
		{"no file", debian, "", "IRQBALANCE_BANNED_CPULIST=2-3"},
		{"not set", debian, "#IRQBALANCE_BANNED_CPULIST=\nA=1\n", "#IRQBALANCE_BANNED_CPULIST=\nA=1\nIRQBALANCE_BANNED_CPULIST=2-3\n"},
		{"no newline", debian, "A=1", "A=1\nIRQBALANCE_BANNED_CPULIST=2-3"},
		{"another list", debian, "IRQBALANCE_BANNED_CPULIST=\"5\"\nB=2\n", "IRQBALANCE_BANNED_CPULIST=2-3\nB=2\n"},
		{"the last one counts", debian, "IRQBALANCE_BANNED_CPULIST=2-3\nIRQBALANCE_BANNED_CPULIST=\n", "IRQBALANCE_BANNED_CPULIST=2-3\nIRQBALANCE_BANNED_CPULIST=2-3\n"},
		{"the same in other words", debian, "IRQBALANCE_BANNED_CPULIST='3,2'\n", "IRQBALANCE_BANNED_CPULIST='3,2'\n"},
		{"Red Hat", "/etc/sysconfig/irqbalance", "B=2\n", "B=2\nIRQBALANCE_BANNED_CPULIST=2-3\n"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			files := map[string]string{"usr/lib/systemd/system/irqbalance.service": "[Service]\n", "proc/sys/kernel/random/boot_id": "b\n"}
			if tc.text != "" {
				files[tc.path[1:]] = tc.text
			}
			h, root, text := treeHost(t, files)
			before := text()
			e := &Engine{Host: h, Kinds: Kinds(), State: t.TempDir(), Boot: "b"}
			ws, diags := e.Desired(evaluate(t, "irqbalance {\n  mode = \"ban\"\n  banned_cpus = \"2,3\"\n}", unknownHost()), nil, PhaseAll)
			if diags.HasErrors() {
				t.Fatal(diags)
			}
			mustApply(t, e, ws)
			if b, err := os.ReadFile(filepath.Join(root, tc.path)); err != nil || strings.TrimSuffix(string(b), "\n") != strings.TrimSuffix(tc.after, "\n") {
				t.Errorf("%q, %v", b, err)
			}
			// A second apply, as after a restart of nodeprov, leaves it alone.
			if r := mustApply(t, e, ws); len(r.Applied) != 0 {
				t.Errorf("applied again: %+v", r.Applied)
			}
			mustRollback(t, e, 0)
			if d := gocmp.Diff(before, text()); d != "" {
				t.Error(d)
			}
		})
	}
}

func TestIrqbalanceWanted(t *testing.T) {
	without, _, _ := treeHost(t, nil)
	with, _, _ := treeHost(t, map[string]string{"usr/lib/systemd/system/irqbalance.service": "[Install]\nWantedBy=multi-user.target\n"})
	facts := &host.Facts{CPU: host.CPUFacts{Online: "0-3"}}
	const missing = ` ! irqbalance: it is not installed, so it can leave no CPUs alone (install it, or say on_missing = "skip")`
	for _, tc := range []struct {
		name, text string
		h          *host.Host
		want       string
	}{
		{"disable", `mode = "disable"`, with, "irqbalance/service = masked, stopped"},
		{"disable what is not there", `mode = "disable"`, without, "irqbalance/service ="},
		{"ban", "mode = \"ban\"\nbanned_cpus = \"3,2\"", with, "irqbalance/banned = 2-3\nirqbalance/service = disabled, at boot"},
		{"ban what is not there", "mode = \"ban\"\nbanned_cpus = \"3,2\"", without, "irqbalance/banned = 2-3" + missing + "\nirqbalance/service ="},
		{"tolerated", "mode = \"ban\"\nbanned_cpus = \"3,2\"\non_missing = \"skip\"", without, "irqbalance/banned = 2-3" + missing + " (tolerate)\nirqbalance/service =  (tolerate)"},
		{"ban nothing", "mode = \"ban\"\nbanned_cpus = \"\"", with, ""},
		{"just let be", `mode = "ban"`, with, ""},
		{"all", "mode = \"ban\"\nbanned_cpus = \"0-3\"", with, "3,15: Invalid value of banned_cpus: These are all CPUs of this machine, and none would be left for interrupts."},
		{"not there", "mode = \"ban\"\nbanned_cpus = \"3-4\"", with, "3,15: Invalid value of banned_cpus: 3-4: this machine has no CPU 4; online are 0-3."},
		{"both", "mode = \"disable\"\nbanned_cpus = \"3\"", with, `3,15: Invalid value of banned_cpus: With mode "disable" irqbalance does not run. Write mode = "ban", or remove banned_cpus.`},
		{"mode", `mode = "stop"`, with, `2,8: Invalid value of mode: Write "disable" or "ban".`},
	} {
		t.Run(tc.name, func(t *testing.T) {
			sameText(t, tc.want, wantedOnMachine(t, "irqbalance {\n"+tc.text+"\n}", tc.h, facts))
		})
	}
	// validate knows no machine.
	sameText(t, "", wantedText(t, "irqbalance {\n  mode = host.cloud.provider == \"aws\" ? \"ban\" : \"disable\"\n}", nil))
}

// Stopped and masked, and back.
func TestIrqbalanceService(t *testing.T) {
	h, _, _ := treeHost(t, nil)
	m := &fakeSystemd{state: host.UnitState{LoadState: "loaded", UnitFileState: "enabled", ActiveState: "active", SubState: "running"}}
	s := newIrqbalanceService()
	s.connect = func(context.Context, *host.Host) (manager, error) { return m, nil }
	if s.Key() != "irqbalance/service" {
		t.Error(s.Key())
	}
	live, err := s.Read(t.Context(), h)
	if err != nil {
		t.Fatal(err)
	}
	yes := true
	want, _ := unitWish{masked: &yes, state: unitStopped}.want(live)
	if err := errors.Join(s.Write(t.Context(), h, want)); err != nil {
		t.Fatal(err)
	}
	m.run()
	stopped, err1 := s.Read(t.Context(), h)
	err2 := s.Write(t.Context(), h, live)
	m.run()
	back, err3 := s.Read(t.Context(), h)
	got := fmt.Sprint(live, " | ", stopped, " | ", back, " | ", strings.Join(m.calls, " "))
	if d := gocmp.Diff("enabled, started | masked, stopped | enabled, started | mask stop unmask start", got); d != "" || errors.Join(err1, err2, err3) != nil {
		t.Error(d, err1, err2, err3)
	}
}
