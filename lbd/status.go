package lbd

import (
	"fmt"
	"strings"
	"time"

	"github.com/nodeprov/nodeprov/bpf"
)

// Status is how a daemon stands; of one that does not run, what its pins tell.
type Status struct {
	// Running is false for pins without a daemon; then everything of the daemon
	// is missing.
	Running bool `json:"running"`
	// Healthy tells that nothing is Missing.
	Healthy bool `json:"healthy"`
	// Missing are the reasons why it is not healthy, in words.
	Missing []string `json:"missing,omitempty"`

	Version string        `json:"version,omitempty"`
	PID     int           `json:"pid,omitempty"`
	Node    string        `json:"node,omitempty"`
	Started time.Time     `json:"started,omitzero"`
	Source  *SourceStatus `json:"source,omitempty"`

	BPFFS  string     `json:"bpffs"`
	Cgroup string     `json:"cgroup,omitempty"`
	Hooks  []bpf.Hook `json:"hooks"`
	// Maps tell how full the maps are.
	Maps []bpf.MapUsage `json:"maps,omitempty"`
	// Counters are the programs' own, see bpf.Datapath.Counters.
	Counters map[string]uint64 `json:"counters,omitempty"`

	// Services counts Kubernetes services that are served, Backends the
	// backends of all their ports.
	Services int `json:"services"`
	Backends int `json:"backends"`
	// Refused are services that the datapath could not take, or not as they are
	// now; they are tried again.
	Refused []Problem `json:"refused,omitempty"`
	// Problems are parts of objects that cannot be served. They are for the
	// objects' owners to mend, and do not make the daemon unhealthy.
	Problems []Problem `json:"problems,omitempty"`
}

// SourceStatus is where services come from.
type SourceStatus struct {
	Name string `json:"name"`
	SourceState
}

// String says whether and since when the source is in step.
func (s SourceStatus) String() string {
	since := s.Since.Local().Format(time.TimeOnly)
	if s.Synced {
		return fmt.Sprintf("synced with %s since %s", s.Name, since)
	}
	if len(s.Faults) == 0 {
		return fmt.Sprintf("not synced since %s: waiting for %s", since, s.Name)
	}
	text := fmt.Sprintf("not synced since %s: %s", since, s.Faults[0].Error)
	if more := len(s.Faults) - 1; more > 0 {
		text += fmt.Sprintf(" (and %d more)", more)
	}
	return text
}

// PinStatus returns the status of a daemon that does not run, from its pins.
func PinStatus(bpffs string, dp Datapath) (Status, error) {
	s := Status{BPFFS: bpffs}
	services, err := dp.Services()
	if err != nil {
		return s, fmt.Errorf("services in the pins: %w", err)
	}
	s.count(services)
	if s.Hooks, err = dp.Hooks(); err != nil {
		return s, err
	}
	if s.Maps, err = dp.Usage(); err != nil {
		return s, err
	}
	if s.Counters, err = dp.Counters(); err != nil {
		return s, err
	}
	s.judge()
	return s, nil
}

// Line is the status in one line, as `systemctl status` shows it.
func (s Status) Line() string {
	attached := 0
	for _, h := range s.Hooks {
		if h.Attached {
			attached++
		}
	}
	hooks := fmt.Sprintf("hooks %d/%d", attached, len(s.Hooks))
	counts := fmt.Sprintf("%s, %s", plural(s.Services, "service"), plural(s.Backends, "backend"))
	var parts []string
	switch {
	case s.Source == nil:
		parts = []string{"not running", "serving " + counts + " from the pins", hooks}
	case s.Source.Synced:
		parts = []string{counts + ", synced with " + s.Source.Name, hooks}
	default:
		parts = []string{s.Source.String(), "serving " + counts, hooks}
	}
	if n := len(s.Refused); n > 0 {
		parts = append(parts, fmt.Sprintf("%d refused", n))
	}
	if n := len(s.Problems); n > 0 {
		parts = append(parts, plural(n, "problem"))
	}
	return strings.Join(parts, "; ")
}

// judge fills in Healthy and Missing.
func (s *Status) judge() {
	s.Missing = nil
	if !s.Running {
		s.Missing = append(s.Missing, "lbd is not running")
	}
	if len(s.Hooks) == 0 {
		s.Missing = append(s.Missing, "no hook is known")
	}
	for _, h := range s.Hooks {
		if !h.Attached {
			s.Missing = append(s.Missing, fmt.Sprintf("hook %s is not attached: %s", h.Name, h.Detail))
		}
	}
	if s.Source != nil && !s.Source.Synced {
		if len(s.Source.Faults) == 0 {
			s.Missing = append(s.Missing, s.Source.String())
		}
		for _, f := range s.Source.Faults {
			s.Missing = append(s.Missing, fmt.Sprintf("not synced since %s: %s", f.Since.Local().Format(time.TimeOnly), f.Error))
		}
	}
	for _, p := range s.Refused {
		s.Missing = append(s.Missing, "refused: "+p.String())
	}
	s.Healthy = len(s.Missing) == 0
}

func (s *Status) count(services []bpf.Service) {
	names := map[string]bool{}
	s.Backends = 0
	for _, svc := range services {
		name, _, _ := strings.Cut(svc.Service, ":")
		names[name] = true
		s.Backends += len(svc.Backends)
	}
	s.Services = len(names)
}

func plural(n int, noun string) string {
	if n == 1 {
		return "1 " + noun
	}
	return fmt.Sprintf("%d %ss", n, noun)
}
