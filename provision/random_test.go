package provision

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// randomMachine is one with devices that come and go, values that are refused or
// clamped, and one that can only be raised.
type randomMachine struct {
	*memory
	start map[string]string
}

func newRandomMachine(start map[string]string) *randomMachine {
	m := newMemory()
	m.values = maps.Clone(start)
	m.refuse = map[string]bool{"sysctl/refused": true}
	m.limit["sysctl/clamped"] = 40
	m.oneWay = map[string]bool{"sysctl/up": true}
	m.inexact = map[string]string{"sysctl/up": "it can only be raised"}
	return &randomMachine{m, start}
}

// unplug takes a device away; plug brings it back, with its driver's values.
func (m *randomMachine) unplug(device string) {
	maps.DeleteFunc(m.values, func(key, _ string) bool { return strings.HasPrefix(key, "nic/"+device+"/") })
}

func (m *randomMachine) plug(device string) {
	if _, there := m.values["nic/"+device+"/mtu"]; there {
		return
	}
	for key, v := range m.start {
		if strings.HasPrefix(key, "nic/"+device+"/") {
			m.values[key] = v
		}
	}
}

// comparable is the machine without what cannot be restored exactly.
func (m *randomMachine) comparable() string {
	v := maps.Clone(m.values)
	delete(v, "sysctl/up")
	return render(v)
}

// lenient are keys that are asked for as tolerated.
var lenient = []string{"sysctl/refused", "sysctl/clamped", "sysctl/up", "sysctl/none"}

// ask is one line of a random profile.
type ask struct {
	key   string
	n     int
	least bool
}

// wants are those of the devices that there are, as for_each over them gives.
func (m *randomMachine) wants(asks []ask, only func(Wanted) bool) []Wanted {
	var ws []Wanted
	for _, a := range asks {
		w := want(m.memory, a.key, fmt.Sprint(a.n))
		switch {
		case slices.Contains(lenient, a.key):
			w = missing(tolerated(m.memory, a.key, fmt.Sprint(a.n)))
		case a.least:
			w = atLeast(m.memory, a.key, a.n)
		}
		if d := deviceOf(w.Setting); d != "" && m.values["nic/"+d+"/mtu"] == "" {
			continue
		}
		if only == nil || only(w) {
			ws = append(ws, w)
		}
	}
	return ws
}

// The end state depends on the last profile only, whatever came before: other
// profiles, killed runs, rollbacks, devices that come and go, early runs and those of
// one device. And going back to 0 restores the machine as it was.
func TestRandomProfiles(t *testing.T) {
	names := []string{
		"sysctl/a", "sysctl/b", "sysctl/refused", "sysctl/clamped", "sysctl/up", "sysctl/none",
		"nic/eth0/mtu", "nic/eth0/ring", "nic/eth1/mtu", "nic/eth1/ring", "file/f", "file/g",
	}
	for seed := range uint64(150) {
		rnd := rand.New(rand.NewPCG(seed, 1))
		start := make(map[string]string)
		for _, n := range names {
			if n != "sysctl/none" && (n[0] != 'f' || rnd.IntN(2) == 0) {
				start[n] = fmt.Sprint(1 + rnd.IntN(99))
			}
		}
		start["sysctl/clamped"] = "30" // within its limit
		m := newRandomMachine(start)
		e := newEngine(t, m.memory)
		var log []string
		step := func(format string, args ...any) { log = append(log, fmt.Sprintf(format, args...)) }
		fail := func(format string, args ...any) {
			t.Helper()
			t.Fatalf("seed %d: %s\nsteps:\n  %s", seed, fmt.Sprintf(format, args...), strings.Join(log, "\n  "))
		}
		run := func(ws []Wanted, ph Phase) {
			t.Helper()
			step("apply %s of %d", ph, len(ws))
			r, diags, err := e.Apply(t.Context(), ws, ApplyOptions{Phase: ph})
			if err != nil || diags.HasErrors() || r.Result != Complete {
				fail("%s: %v %v %+v", ph, err, diags, r)
			}
		}
		killed := func(ws []Wanted) {
			at := m.writes + rnd.IntN(5)
			m.onWrite = func(string) {
				if m.writes == at {
					panic("killed (test)")
				}
			}
			defer func() {
				m.onWrite = nil
				if r := recover(); r != nil && r != "killed (test)" {
					panic(r)
				}
			}()
			step("killed at write %d", at)
			_, _, _ = e.Apply(t.Context(), ws, ApplyOptions{Phase: PhaseAll})
		}
		var asks []ask
		for range 1 + rnd.IntN(6) {
			asks = nil
			for _, n := range names {
				if rnd.IntN(3) > 0 {
					asks = append(asks, ask{n, 1 + rnd.IntN(99), n[0] != 'f' && rnd.IntN(2) == 0})
				}
			}
			step("profile %v", asks)
			for range 1 + rnd.IntN(4) {
				device := fmt.Sprintf("eth%d", rnd.IntN(2))
				switch rnd.IntN(8) {
				case 0:
					step("unplug %s", device)
					m.unplug(device)
				case 1:
					step("plug %s", device)
					m.plug(device)
					run(m.wants(asks, func(w Wanted) bool { return deviceOf(w.Setting) == device }), PhaseNIC(device))
				case 2:
					run(m.wants(asks, func(w Wanted) bool { return kindName(w.Key()) == "sysctl" }), PhaseEarly)
				case 3:
					killed(m.wants(asks, nil))
				case 4:
					m.failAt, m.halfway = m.writes+1+rnd.IntN(4), rnd.IntN(2) == 0
					step("write %d fails", m.failAt)
					m.onWrite = func(key string) {
						// That a tolerated value was refused holds for this boot: not at
						// random here.
						if m.writes+1 == m.failAt && slices.Contains(lenient, key) {
							m.failAt++
						}
					}
					_, _, _ = e.Apply(t.Context(), m.wants(asks, nil), ApplyOptions{Phase: PhaseAll})
					m.failAt, m.onWrite = 0, nil
				case 5:
					step("rollback")
					if _, err := e.Rollback(t.Context(), RollbackOptions{}); err != nil {
						fail("rollback: %v", err)
					}
				default:
					run(m.wants(asks, nil), PhaseAll)
				}
			}
		}
		m.plug("eth0")
		m.plug("eth1")
		run(m.wants(asks, nil), PhaseAll)
		fresh := newRandomMachine(start)
		mustApply(t, newEngine(t, fresh.memory), fresh.wants(asks, nil))
		if d := cmp.Diff(fresh.comparable(), m.comparable()); d != "" {
			fail("depends on the past (-want +got):\n%s", d)
		}
		if p, _, err := e.Plan(t.Context(), m.wants(asks, nil), PhaseAll); err != nil || p.Summary().Due() != 0 || p.New {
			fail("the second plan is not empty: %v %+v", err, p.Summary())
		}
		step("rollback to 0")
		if _, err := e.Rollback(t.Context(), RollbackOptions{To: new(int)}); err != nil {
			fail("rollback: %v", err)
		}
		was := newRandomMachine(start)
		if d := cmp.Diff(was.comparable(), m.comparable()); d != "" {
			fail("rolled back (-want +got):\n%s", d)
		}
	}
}
