package provision

import (
	"context"
	"errors"
	"fmt"
	"regexp"
	"strings"

	"k8s.io/utils/cpuset"

	"github.com/nodeprov/nodeprov/provision/host"
)

// sliceKind confines slices to CPUs.
func sliceKind() Kind {
	return Kind{
		Name:     "slice",
		Open:     func(name string) (Setting, error) { return openSlice(name) },
		Scope:    Machine,
		Lifetime: Runtime,
		Effect:   "now",
	}
}

// slice is AllowedCPUs= of a slice, or of another unit with a cgroup. Its value is
// the list of CPUs in the kernel's form, "0-3,8", and empty for a unit that is not
// confined. It is absent where the machine cannot confine cgroups to CPUs.
//
// The property and not CPUAffinity=, which pods inherit and a cpuset resets.
type slice struct {
	unit string
	// connect returns the machine's systemd; tests put another one here.
	connect func(context.Context, *host.Host) (cpuManager, error)
}

// cpuManager is what a slice needs of systemd.
type cpuManager interface {
	AllowedCPUs(ctx context.Context, name string) (cpuset.CPUSet, error)
	SetAllowedCPUs(ctx context.Context, name string, cpus cpuset.CPUSet) error
	ControlGroup(ctx context.Context, name string) (string, error)
}

func newSlice(unit string) *slice {
	return &slice{unit, func(ctx context.Context, h *host.Host) (cpuManager, error) {
		m, err := h.Systemd(ctx)
		if err != nil {
			return nil, err
		}
		return m, nil
	}}
}

func openSlice(name string) (*slice, error) {
	unit, ok := strings.CutSuffix(name, "/AllowedCPUs")
	if err := checkSliceName(unit); !ok || err != nil {
		return nil, fmt.Errorf("slice: %q is no setting of a slice (known is NAME.slice/AllowedCPUs)", name)
	}
	return newSlice(unit), nil
}

// checkSliceName takes the units that have a cgroup and can be confined.
func checkSliceName(unit string) error {
	switch {
	case unit == "-.slice":
		return errors.New("the root slice holds everything, and cannot be confined: name the slices below it, as system.slice and user.slice")
	case !regexp.MustCompile(`^[A-Za-z0-9:_.\\@-]{1,240}\.(slice|scope|service)$`).MatchString(unit):
		return fmt.Errorf("%q is no slice, scope or service: write the unit's whole name, as system.slice", unit)
	}
	return nil
}

func (s *slice) Key() string { return "slice/" + s.unit + "/AllowedCPUs" }

func (s *slice) Read(ctx context.Context, h *host.Host) (Value, error) {
	if _, err := h.CpusetRoot(); errors.Is(err, host.ErrNoCpuset) {
		return Value{Absent: true}, nil
	} else if err != nil {
		return Value{}, fmt.Errorf("slice %s: %w", s.unit, err)
	}
	m, err := s.connect(ctx, h)
	if err != nil {
		return Value{}, fmt.Errorf("slice %s: %w", s.unit, err)
	}
	cpus, err := m.AllowedCPUs(ctx, s.unit)
	if err != nil {
		return Value{}, fmt.Errorf("slice %s: %w", s.unit, err)
	}
	return Value{Text: cpus.String()}, nil
}

func (s *slice) Write(ctx context.Context, h *host.Host, v Value) error {
	if v.Absent {
		return s.unsupported(h)
	}
	cpus, err := cpuset.Parse(v.Text)
	if err != nil {
		return fmt.Errorf("slice %s: %w", s.unit, err)
	}
	m, err := s.connect(ctx, h)
	if err != nil {
		return fmt.Errorf("slice %s: %w", s.unit, err)
	}
	if cpus.IsEmpty() {
		// Without the property, systemd may leave the cgroup's cpuset as it was
		// (systemd issue 43846): so it is widened first.
		all, err := onlineCPUs(h)
		if err != nil {
			return fmt.Errorf("slice %s: %w", s.unit, err)
		}
		if err := m.SetAllowedCPUs(ctx, s.unit, all); err != nil {
			return fmt.Errorf("slice %s: %w", s.unit, err)
		}
	}
	if err := m.SetAllowedCPUs(ctx, s.unit, cpus); err != nil {
		return fmt.Errorf("slice %s: %w", s.unit, err)
	}
	return nil
}

// Verify looks at the live cgroup: systemd keeps the property where the kernel, or
// a cgroup above, lets it have no effect. A unit without processes has no cgroup
// to look at.
func (s *slice) Verify(ctx context.Context, h *host.Host, want Value) error {
	cpus, err := cpuset.Parse(want.Text)
	if err != nil || cpus.IsEmpty() {
		return err
	}
	m, err := s.connect(ctx, h)
	if err != nil {
		return fmt.Errorf("slice %s: %w", s.unit, err)
	}
	group, err := m.ControlGroup(ctx, s.unit)
	if err != nil {
		return fmt.Errorf("slice %s: %w", s.unit, err)
	}
	if group == "" {
		return nil
	}
	live, err := h.Cpuset(group)
	switch {
	case err != nil:
		return fmt.Errorf("slice %s: systemd has AllowedCPUs=%s, but %w", s.unit, cpus, err)
	case !live.CPUs.Equals(cpus):
		return fmt.Errorf("slice %s: systemd has AllowedCPUs=%s, but cpuset.cpus of the cgroup %s is %q (something else wrote it; systemctl daemon-reload writes it again)", s.unit, cpus, group, live.CPUs)
	case !live.Effective.IsSubsetOf(cpus):
		return fmt.Errorf("slice %s: AllowedCPUs=%s, but the processes in %s run on %s (a cgroup above has none of these CPUs, or they are offline)", s.unit, cpus, group, live.Effective)
	}
	return nil
}

func (s *slice) unsupported(h *host.Host) error {
	if _, err := h.CpusetRoot(); err != nil {
		return fmt.Errorf("slice %s: %w", s.unit, err)
	}
	return nil
}

func onlineCPUs(h *host.Host) (cpuset.CPUSet, error) {
	const p = "/sys/devices/system/cpu/online"
	b, err := h.ReadFile(p)
	if err != nil {
		return cpuset.CPUSet{}, fmt.Errorf("%w (is /sys mounted?)", err)
	}
	cpus, err := cpuset.Parse(strings.TrimSpace(string(b)))
	if err != nil {
		return cpuset.CPUSet{}, fmt.Errorf("%s: %w", p, err)
	}
	return cpus, nil
}
