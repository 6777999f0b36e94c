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

const cpuDir = "sys/devices/system/cpu/"

// laptop is a machine with two frequency policies, intel_pstate and C-states.
func laptop() map[string]string {
	files := map[string]string{
		cpuDir + "online":                    "0-3\n",
		cpuDir + "intel_pstate/no_turbo":     "1\n",
		cpuDir + "intel_pstate/min_perf_pct": "20\n",
		"proc/sys/kernel/random/boot_id":     "b\n",
	}
	for _, p := range []string{"policy0", "policy10", "policy2"} {
		files[cpuDir+"cpufreq/"+p+"/scaling_governor"] = "powersave\n"
		files[cpuDir+"cpufreq/"+p+"/scaling_available_governors"] = "performance powersave\n"
		files[cpuDir+"cpufreq/"+p+"/energy_performance_preference"] = "balance_power\n"
	}
	for i, s := range []string{"POLL 0", "C1_ACPI 0", "C3 80"} {
		name, latency, _ := strings.Cut(s, " ")
		dir := fmt.Sprintf("%scpu0/cpuidle/state%d/", cpuDir, i)
		files[dir+"name"], files[dir+"latency"] = name+"\n", latency+"\n"
	}
	files[cpuDir+"cpu0/power/energy_perf_bias"] = "6\n"
	files[cpuDir+"cpu3/power/energy_perf_bias"] = "6\n"
	files[cpuDir+"cpu4/online"] = "0\n"
	return files
}

func TestCPUWanted(t *testing.T) {
	full, _, _ := treeHost(t, laptop())
	virtual, _, _ := treeHost(t, map[string]string{cpuDir + "online": "0-1\n"})
	amd, _, _ := treeHost(t, map[string]string{cpuDir + "cpufreq/boost": "0\n", cpuDir + "cpufreq/policy0/scaling_governor": "schedutil\n"})
	facts := &host.Facts{CPU: host.CPUFacts{Online: "0-3"}}
	vm := &host.Facts{CPU: host.CPUFacts{Online: "0-1"}, Virtualization: "kvm"}
	for _, tc := range []struct {
		name, text string
		h          *host.Host
		f          *host.Facts
		want       string
	}{
		{"all of it", `cpu {
  governor      = "performance"
  epp           = "performance"
  epb           = 0
  boost         = true
  min_perf_pct  = 100
  force_latency = "C3"
  on_error      = "fail"
}`, full, facts, `
sysfs//sys/devices/system/cpu/cpufreq/policy0/energy_performance_preference = performance (fail)
sysfs//sys/devices/system/cpu/cpufreq/policy2/energy_performance_preference = performance (fail)
sysfs//sys/devices/system/cpu/cpufreq/policy10/energy_performance_preference = performance (fail)
sysfs//sys/devices/system/cpu/cpufreq/policy0/scaling_governor = performance (fail)
sysfs//sys/devices/system/cpu/cpufreq/policy2/scaling_governor = performance (fail)
sysfs//sys/devices/system/cpu/cpufreq/policy10/scaling_governor = performance (fail)
sysfs//sys/devices/system/cpu/cpu0/power/energy_perf_bias = 0 (fail)
sysfs//sys/devices/system/cpu/cpu3/power/energy_perf_bias = 0 (fail)
sysfs//sys/devices/system/cpu/intel_pstate/no_turbo = 0 (fail)
sysfs//sys/devices/system/cpu/intel_pstate/min_perf_pct = 100 (fail)
latency/cpu = 80 (fail)`},
		{"other preference after the governor", "cpu {\n  governor = \"powersave\"\n  epp = \"power\"\n}", amd, nil, `
sysfs//sys/devices/system/cpu/cpufreq/policy0/scaling_governor = powersave
sysfs//sys/devices/system/cpu/cpufreq/policy0/energy_performance_preference = power ! cpu: epp: there is no /sys/devices/system/cpu/cpufreq/policy0/energy_performance_preference: the frequency driver has no such setting (leave it out, or write best_effort() or on_missing = "skip")`},
		{"boost of its own, ACPI's name of a state", "cpu {\n  boost = true\n  force_latency = \"c1\"\n}", full, facts, `
sysfs//sys/devices/system/cpu/intel_pstate/no_turbo = 0
latency/cpu = 1`},
		{"boost", "cpu {\n  boost = false\n  force_latency = 10\n}", amd, nil, `
sysfs//sys/devices/system/cpu/cpufreq/boost = 0
latency/cpu = 10`},
		{"virtual", `cpu {
  governor      = best_effort("performance")
  boost         = true
  force_latency = best_effort("C1")
}`, virtual, vm, `
sysfs//sys/devices/system/cpu/cpufreq/policy0/scaling_governor = performance ! cpu: governor: there is no /sys/devices/system/cpu/cpufreq/policy0/scaling_governor: the kernel controls no frequencies here (this machine is virtual, and its hypervisor gives no control) (leave it out, or write best_effort() or on_missing = "skip") (tolerate)
sysfs//sys/devices/system/cpu/cpufreq/boost = 1 ! cpu: boost: there is no /sys/devices/system/cpu/cpufreq/boost: the frequency driver has no switch for it (this machine is virtual, and its hypervisor gives no control) (leave it out, or write best_effort() or on_missing = "skip")
latency/cpu =  ! cpu: force_latency: the kernel has no C-states here: a hypervisor keeps them to itself, or no cpuidle driver is loaded (write a number of µs, or best_effort()) (tolerate)`},
		{"skip", "cpu {\n  min_perf_pct = 100\n  on_missing = \"skip\"\n}", virtual, vm, `
sysfs//sys/devices/system/cpu/intel_pstate/min_perf_pct = 100 ! cpu: min_perf_pct: there is no /sys/devices/system/cpu/intel_pstate/min_perf_pct: only the driver intel_pstate has it (this machine is virtual, and its hypervisor gives no control) (leave it out, or write best_effort() or on_missing = "skip") (tolerate)`},
		{"no such state", "cpu {\n  force_latency = \"C6\"\n}", full, facts,
			`latency/cpu =  ! cpu: force_latency: CPU 0 has no C-state C6, but POLL, C1_ACPI, C3 (write one of them, or a number of µs)`},
		{"mistakes", `cpu {
  governor      = "full speed"
  epp           = "power"
  epb           = 16
  min_perf_pct  = 1.5
  force_latency = -1
  allowed_cpus  = {
    "system"       = "0"
    "-.slice"      = "0"
    "user.slice"   = "0-9"
    "a.slice"      = ""
    "b.slice"      = "0 1"
    "system.slice" = "x"
  }
  on_missing = "warn"
}`, full, facts, `
2,19: Invalid value of governor: "full speed" is no word of the kernel's: those are of small letters, digits and underscores.
4,19: Invalid value of epb: A whole number from 0 to 15 is needed, and 16 is not one.
5,19: Invalid value of min_perf_pct: A whole number from 0 to 100 is needed, and 1.5 is not one.
6,19: Invalid value of force_latency: A whole number from 0 to 1999999999 is needed, and -1 is not one.
8,5: Invalid name of a slice: "system" is no slice, scope or service: write the unit's whole name, as system.slice.
9,5: Invalid name of a slice: The root slice holds everything, and cannot be confined: name the slices below it, as system.slice and user.slice.
10,22: Invalid value of allowed_cpus: 0-9: this machine has no CPU 4-9; online are 0-3.
11,22: Invalid value of allowed_cpus: a.slice: the list is empty, and nothing in it could run. Write the CPUs, or leave the slice out.
12,22: Invalid value of allowed_cpus: "0 1" is no list of CPUs: write numbers and ranges with commas between them, as in "0-3,8".
13,22: Invalid value of allowed_cpus: "x" is no list of CPUs: write numbers and ranges with commas between them, as in "0-3,8".
15,16: Invalid value of on_missing: Write "fail" or "skip".`},
		{"preference and governor", "cpu {\n  governor = \"performance\"\n  epp = \"power\"\n  force_latency = true\n}", full, facts, `
3,9: Invalid value of epp: With the governor performance, the kernel refuses every preference but performance. Write "performance", or another governor.
4,19: Invalid value of force_latency: The name of a C-state as "C1", or a number of µs, is needed, not a value of type bool.`},
		{"unknown machine", "cpu {\n  governor = \"performance\"\n  boost = true\n  epb = host.cpu.count\n  force_latency = \"C 1\"\n}", nil, nil,
			`5,19: Invalid value of force_latency: "C 1" is no name of a C-state, as "C1" is; a time in µs is a number without quotes.`},
	} {
		t.Run(tc.name, func(t *testing.T) { sameText(t, tc.want, wantedOnMachine(t, tc.text, tc.h, tc.f)) })
	}
}

// pstate is a frequency driver that refuses a preference other than performance
// while the governor is performance, and forces that one then.
type pstate struct{ *memory }

func (p pstate) set(key string, v Value) error {
	if key == "sysctl/epp" && v.Text != "performance" && p.values["sysctl/governor"] == "performance" {
		return errors.New("device or resource busy")
	}
	if key == "sysctl/governor" && v.Text == "performance" {
		p.values["sysctl/epp"] = "performance"
	}
	return p.memory.set(key, v)
}

// Whatever there was, the order that the cpu block has works forwards, and
// backwards when it is undone.
func TestCPUOrder(t *testing.T) {
	full, _, _ := treeHost(t, laptop())
	states := [][2]string{{"performance", "performance"}, {"powersave", "power"}, {"powersave", "performance"}}
	for _, from := range states {
		for _, to := range states {
			text := fmt.Sprintf("cpu {\n  governor = %q\n  epp = %q\n}", to[0], to[1])
			m := pstate{newMemory("sysctl/governor", from[0], "sysctl/epp", from[1])}
			var ws []Wanted
			ws, diags := (&Engine{Host: full, Kinds: Kinds()}).Desired(evaluate(t, text, unknownHost()), nil, PhaseAll)
			if diags.HasErrors() {
				t.Fatal(diags)
			}
			var kv []string
			for _, w := range ws {
				switch w.Key() {
				case "sysfs//" + cpuDir + "cpufreq/policy0/scaling_governor":
					kv = append(kv, "sysctl/governor", to[0])
				case "sysfs//" + cpuDir + "cpufreq/policy0/energy_performance_preference":
					kv = append(kv, "sysctl/epp", to[1])
				}
			}
			if len(kv) != 4 {
				t.Fatal(kv)
			}
			e := newEngine(t, m)
			before := m.text()
			mustApply(t, e, wants(m, kv...))
			want := newMemory("sysctl/governor", to[0], "sysctl/epp", to[1]).text()
			if d := gocmp.Diff(want, m.text()); d != "" {
				t.Errorf("%v to %v: %s", from, to, d)
			}
			mustRollback(t, e, 0)
			if d := gocmp.Diff(before, m.text()); d != "" {
				t.Errorf("%v to %v and back: %s", from, to, d)
			}
		}
	}
}

// A word that the driver does not have is refused with those that it has.
func TestCPUKeyRefused(t *testing.T) {
	h, _, _ := treeHost(t, laptop())
	const p = "/sys/devices/system/cpu/cpufreq/policy0/scaling_available_governors"
	refused := errors.New("invalid argument")
	for text, want := range map[string]string{
		"ondemand":  "invalid argument (the driver offers: performance, powersave)",
		"powersave": "invalid argument", // it is offered, so that is not why
	} {
		s := cpuKey{refusing{refused}, p}
		if err := s.Write(t.Context(), h, Value{Text: text}); err == nil || err.Error() != want || !errors.Is(err, refused) {
			t.Errorf("%s: %v", text, err)
		}
	}
}

// refusing is a setting that cannot be written.
type refusing struct{ err error }

func (refusing) Key() string                                      { return "sysfs//x" }
func (refusing) Read(context.Context, *host.Host) (Value, error)  { return Value{}, nil }
func (s refusing) Write(context.Context, *host.Host, Value) error { return s.err }

func TestLatency(t *testing.T) {
	h, root, text := treeHost(t, map[string]string{"dev/cpu_dma_latency": "\x00\x94\x35\x77", "proc/sys/kernel/random/boot_id": "b\n"})
	before := text()
	e := &Engine{Host: h, Kinds: Kinds(), State: t.TempDir(), Boot: "b"}
	wanted := func(us string) []Wanted {
		p := evaluate(t, "cpu {\n  force_latency = "+us+"\n}", unknownHost())
		ws, diags := e.Desired(p, nil, PhaseAll)
		if diags.HasErrors() || len(ws) != 1 {
			t.Fatal(ws, diags)
		}
		return ws
	}
	w := wanted("10")
	verify := func() string {
		err := w[0].Setting.(Verifier).Verify(t.Context(), h, Value{Text: "10"})
		return fmt.Sprint(err)
	}
	if v, err := w[0].Read(t.Context(), h); err != nil || !v.Absent {
		t.Fatal(v, err)
	}
	for range 2 {
		if err := w[0].Write(t.Context(), h, Value{Text: "10"}); err != nil {
			t.Fatal(err)
		}
	}
	if b, err := os.ReadFile(filepath.Join(root, LatencyFile)); err != nil || string(b) != "10\n" {
		t.Errorf("%q, %v", b, err)
	}
	// Nothing reads the file: the kernel has no limit.
	if got := verify(); got != "latency: the kernel's limit is 2000000000 µs, not 10 or less: nobody holds the request (start nodeprov-watch.service)" {
		t.Error(got)
	}
	f, err := h.HoldLatency(10)
	if err != nil {
		t.Fatal(err)
	}
	if got := verify(); got != "<nil>" {
		t.Error(got)
	}
	if err := errors.Join(f.Close(), w[0].Write(t.Context(), h, Value{Absent: true}), os.WriteFile(filepath.Join(root, "dev/cpu_dma_latency"), []byte("\x00\x94\x35\x77"), 0o644)); err != nil {
		t.Fatal(err)
	}
	if d := gocmp.Diff(before, text()); d != "" {
		t.Error(d)
	}
	for key, ok := range map[string]bool{"cpu": true, "": false, "gpu": false} {
		if _, err := latencyKind().Open(key); (err == nil) != ok {
			t.Errorf("%q: %v", key, err)
		}
	}
}
