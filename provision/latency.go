package provision

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"strconv"
	"strings"

	"github.com/nodeprov/nodeprov/provision/host"
)

// LatencyFile holds the limit of the CPUs' wake-up latency that nodeprov-watch is
// to hold as a PM-QoS request: microseconds in decimal and a newline. Without the
// file there is no request.
const LatencyFile = "/run/nodeprov/cpu-latency"

// maxLatency is the largest limit in microseconds: the kernel takes 2000 s for
// "no limit" (PM_QOS_CPU_LATENCY_DEFAULT_VALUE).
const maxLatency = 2_000_000_000 - 1

// latencyKind limits the C-states by a PM-QoS request that nodeprov-watch holds.
func latencyKind() Kind {
	return Kind{
		Name: "latency",
		Open: func(name string) (Setting, error) {
			if name != "cpu" {
				return nil, fmt.Errorf("latency: %q: the only setting is latency/cpu", name)
			}
			return latency{}, nil
		},
		Scope:    Machine,
		Lifetime: Runtime,
		Effect:   "while nodeprov-watch runs",
	}
}

// latency is the request for a limit of the CPUs' wake-up latency. Its value is
// the number of microseconds; it is absent where there is no request.
//
// The kernel ends a request with the process that made it, so what is set here is
// what nodeprov-watch holds.
type latency struct{}

func (latency) Key() string { return "latency/cpu" }

func (latency) Read(_ context.Context, h *host.Host) (Value, error) {
	b, err := h.ReadFile(LatencyFile)
	if errors.Is(err, fs.ErrNotExist) {
		return Value{Absent: true}, nil
	}
	if err != nil {
		return Value{}, fmt.Errorf("latency: %w", err)
	}
	return Value{Text: strings.TrimSuffix(string(b), "\n")}, nil
}

func (latency) Write(_ context.Context, h *host.Host, v Value) error {
	if v.Absent {
		if err := h.Remove(LatencyFile); err != nil {
			return fmt.Errorf("latency: %w", err)
		}
		return nil
	}
	if err := h.WriteFileAtomic(LatencyFile, []byte(v.Text+"\n"), 0o644); err != nil {
		return fmt.Errorf("latency: %w", err)
	}
	return nil
}

// Verify asks the kernel: our request is worth nothing before it is held.
func (latency) Verify(_ context.Context, h *host.Host, want Value) error {
	if want.Absent {
		return nil
	}
	us, err := strconv.Atoi(want.Text)
	if err != nil {
		return fmt.Errorf("latency: %s holds %q, which is no number of microseconds (apply again)", LatencyFile, want.Text)
	}
	have, err := h.EffectiveLatency()
	if err != nil {
		return fmt.Errorf("latency: %w", err)
	}
	if have > us {
		return fmt.Errorf("latency: the kernel's limit is %d µs, not %d or less: nobody holds the request (start nodeprov-watch.service)", have, us)
	}
	return nil
}

// noLatency is the request on a host that cannot tell what it shall be: as if it
// were not there, so that its Wanted says why.
type noLatency struct{ latency }

func (noLatency) Read(context.Context, *host.Host) (Value, error) { return Value{Absent: true}, nil }

// stateLatency is the limit in microseconds that allows the C-state of that name
// and those that are shallower.
func stateLatency(h *host.Host, name string) (int, error) {
	states, err := h.IdleStates()
	if err != nil {
		return 0, fmt.Errorf("idle states: %w", err)
	}
	if len(states) == 0 {
		return 0, errors.New("the kernel has no C-states here: a hypervisor keeps them to itself, or no cpuidle driver is loaded (write a number of µs, or best_effort())")
	}
	names := make([]string, len(states))
	for i, s := range states {
		names[i] = s.Name
		// The ACPI driver calls its states C1_ACPI, C2_ACPI…
		if strings.EqualFold(s.Name, name) || strings.EqualFold(strings.TrimSuffix(s.Name, "_ACPI"), name) {
			// Firmware may claim that C1 costs nothing. A limit of 0 would
			// forbid it, and have the CPUs spin.
			return max(1, s.Latency), nil
		}
	}
	return 0, fmt.Errorf("CPU 0 has no C-state %s, but %s (write one of them, or a number of µs)", name, strings.Join(names, ", "))
}
