package provision

import (
	"fmt"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func nicRun(t *testing.T, e *Engine, ws []Wanted) *Report {
	t.Helper()
	return mustApply(t, e, ws, ApplyOptions{Phase: PhaseNIC("eth1")})
}

// A device that appears gets its settings, in the generation in force; what others
// have is left alone.
func TestPhaseNIC(t *testing.T) {
	m := newMemory("sysctl/a", "1", "nic/eth0/mtu", "1500")
	e := newEngine(t, m)
	eth0, eth1 := wants(m, "sysctl/a", "2", "nic/eth0/mtu", "9000"), wants(m, "nic/eth1/mtu", "9000", "nic/eth1/ring", "512")
	eth1[1] = missing(eth1[1])
	mustApply(t, e, eth0)

	m.values["nic/eth1/mtu"] = "1500" // plugged in; its rings come later
	r := nicRun(t, e, eth1)
	if d := cmp.Diff([]string{"nic/eth1/mtu"}, keys(r.Applied)); d != "" || r.Generation != 1 || len(r.Deferred) != 1 {
		t.Errorf("%+v\n%s", r, d)
	}
	// The report is still that of the whole apply, and knows of the device.
	last, err := e.LastReport()
	if err != nil || last.Phase != PhaseAll || len(last.Applied) != 3 || last.Result != Complete {
		t.Errorf("%v %+v", err, last)
	}
	m.values["nic/eth1/ring"] = "256"
	if r := nicRun(t, e, eth1); len(r.Applied) != 1 || len(r.Unchanged) != 1 {
		t.Errorf("%+v", r)
	}
	if r := nicRun(t, e, eth1); len(r.Applied) != 0 || len(r.Unchanged) != 2 {
		t.Errorf("again: %+v", r)
	}

	// For the whole apply, that the device is there is no other profile; nor that
	// it is gone. Its settings are no drift then.
	both := append(append([]Wanted{}, eth0...), eth1...)
	if r := mustApply(t, e, both); r.Generation != 1 || len(r.Applied) != 0 {
		t.Errorf("%+v", r)
	}
	delete(m.values, "nic/eth1/mtu")
	delete(m.values, "nic/eth1/ring")
	if s, err := e.Status(t.Context()); err != nil || s.State != Applied || len(s.Drift) != 0 {
		t.Errorf("%v %+v", err, s)
	}
	if r := mustApply(t, e, eth0); r.Generation != 1 || len(r.Applied) != 0 || r.Result != Complete {
		t.Errorf("%+v", r)
	}
	// It is plugged in again, with its driver's values.
	m.values["nic/eth1/mtu"] = "1500"
	m.values["nic/eth1/ring"] = "256"
	if r := nicRun(t, e, eth1); len(r.Applied) != 2 || r.Generation != 1 {
		t.Errorf("%+v", r)
	}
	// But another value is another profile, for a device that was there.
	both[2] = want(m, "nic/eth1/mtu", "8000")
	if r := mustApply(t, e, both); r.Generation != 2 || len(r.Applied) != 1 {
		t.Errorf("%+v", r)
	}
	// So is one more setting of it.
	both = append(both, want(m, "nic/eth1/gro", "on"))
	if r := mustApply(t, e, both); r.Generation != 3 {
		t.Errorf("%+v", r)
	}
	mustRollback(t, e, 0)
	want := "nic/eth0/mtu = \"1500\"\nnic/eth1/mtu = \"1500\"\nnic/eth1/ring = \"256\"\nsysctl/a = \"1\"\n"
	if d := cmp.Diff(want, m.text()); d != "" {
		t.Errorf("(-want +got):\n%s", d)
	}
}

// A node's pods have a device each, for ever: neither the generation nor the report
// grows with those that have gone.
func TestPhaseNICChurn(t *testing.T) {
	const stay, churn = 3, 20
	m := newMemory()
	e := newEngine(t, m)
	var asked []string
	for i := range stay {
		key := fmt.Sprintf("nic/veth%d/mtu", i)
		m.values[key] = "1500"
		asked = append(asked, key, "9000")
	}
	mustApply(t, e, wants(m, asked...))
	for i := range churn {
		pod := fmt.Sprintf("pod%d", i)
		key := "nic/" + pod + "/mtu"
		m.values[key] = "1500"
		if r := mustApply(t, e, wants(m, key, "9000"), ApplyOptions{Phase: PhaseNIC(pod)}); len(r.Applied) != 1 || r.Generation != 1 {
			t.Fatalf("%+v", r)
		}
		delete(m.values, key)
	}
	j, err := e.openJournal()
	if err != nil {
		t.Fatal(err)
	}
	last, err := e.LastReport()
	if err != nil || len(last.Applied) > stay+2 || len(last.Unchanged) > 0 {
		t.Errorf("report: %v %v", keys(last.Applied), err)
	}
	if n := len(j.current().Asked); n > stay+2 {
		t.Errorf("%d asked for", n)
	}
	if r := mustApply(t, e, wants(m, asked...)); r.Generation != 1 || len(r.Applied) != 0 {
		t.Errorf("generation %d, %v", r.Generation, keys(r.Applied))
	}
	mustRollback(t, e, 0)
	for key, v := range m.values {
		if v != "1500" {
			t.Errorf("%s = %s", key, v)
		}
	}
}

// Only the device's own settings are put back.
func TestPhaseNICRestores(t *testing.T) {
	m := newMemory("sysctl/a", "1", "nic/eth0/mtu", "1500", "nic/eth1/mtu", "1500", "nic/eth1/ring", "1")
	e := newEngine(t, m)
	mustApply(t, e, wants(m, "sysctl/a", "2", "nic/eth0/mtu", "9000", "nic/eth1/mtu", "9000", "nic/eth1/ring", "2"))
	r := nicRun(t, e, wants(m, "nic/eth1/mtu", "9000"))
	if d := cmp.Diff([]string{"nic/eth1/ring"}, keys(r.Applied)); d != "" || r.Generation != 1 {
		t.Errorf("%+v\n%s", r, d)
	}
}

// At boot, devices come before the whole apply: their runs open the generation, and it
// completes it.
func TestPhaseNICFirst(t *testing.T) {
	m := newMemory("sysctl/a", "1", "nic/eth0/mtu", "1500", "nic/eth1/mtu", "1500")
	e := newEngine(t, m)
	if r := nicRun(t, e, wants(m, "nic/eth1/mtu", "9000")); r.Generation != 1 || len(r.Applied) != 1 {
		t.Errorf("%+v", r)
	}
	if last, err := e.LastReport(); err != nil || last != nil {
		t.Errorf("%v %+v", err, last)
	}
	all := wants(m, "sysctl/a", "2", "nic/eth0/mtu", "9000", "nic/eth1/mtu", "9000")
	if r := mustApply(t, e, all); r.Generation != 1 || len(r.Applied) != 2 {
		t.Errorf("%+v", r)
	}
	mustRollback(t, e)
	if d := cmp.Diff("nic/eth0/mtu = \"1500\"\nnic/eth1/mtu = \"1500\"\nsysctl/a = \"1\"\n", m.text()); d != "" {
		t.Errorf("(-want +got):\n%s", d)
	}
	// In a later boot, early, then a device, then all.
	mustApply(t, e, all)
	e.Boot = "boot-2"
	m.values = map[string]string{"sysctl/a": "1", "nic/eth1/mtu": "1500"}
	mustApply(t, e, all[:1], ApplyOptions{Phase: PhaseEarly})
	if r := nicRun(t, e, all[2:]); r.Generation != 2 {
		t.Errorf("%+v", r)
	}
	m.values["nic/eth0/mtu"] = "1500"
	if r := mustApply(t, e, all); r.Generation != 2 || len(r.Applied) != 1 {
		t.Errorf("%+v", r)
	}
}
