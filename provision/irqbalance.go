package provision

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strings"

	"github.com/hashicorp/hcl/v2"
	"github.com/zclconf/go-cty/cty"
	"k8s.io/utils/cpuset"

	"github.com/nodeprov/nodeprov/provision/host"
	"github.com/nodeprov/nodeprov/provision/profile"
)

const (
	irqbalanceUnit = "irqbalance.service"
	// irqbalanceBan is the variable that irqbalance takes the CPUs from that it
	// leaves alone (since its version 1.8).
	irqbalanceBan = "IRQBALANCE_BANNED_CPULIST"
)

// irqbalanceKind stops irqbalance, or tells it which CPUs to leave alone.
func irqbalanceKind() Kind {
	return Kind{
		Name: "irqbalance",
		Schema: &profile.Schema{
			Type:      "irqbalance",
			Singleton: true,
			Doc: "The daemon that moves interrupts between CPUs, and which would undo the pinning of a nic block. Stop it where nodeprov pins the interrupts of all NICs " +
				"that matter; on AWS, where a device may come back from a reset with its interrupts on one CPU, rather ban the CPUs that it shall leave alone.",
			Attrs: []profile.Attr{
				{Name: "mode", Type: cty.String, Required: true,
					Doc: `"disable" stops and masks irqbalance, which is fulfilled where it is not installed; "ban" lets it be, and keeps it off banned_cpus.`},
				{Name: "banned_cpus", Type: cty.String, BestEffort: true,
					Doc: "With mode \"ban\": the CPUs that it gives no interrupts to, as \"2-3,8\". It is written as " + irqbalanceBan + " into irqbalance's file of variables, whose other lines stay; irqbalance is restarted if it runs."},
				{Name: "on_missing", Type: cty.String, Default: cty.StringVal("fail"),
					Doc: `What to do with banned_cpus where irqbalance is not installed: "fail" refuses it, "skip" reports it and goes on.`},
				{Name: "on_error", Type: cty.String, Default: cty.StringVal("warn"),
					Doc: `What a failure to set it does: "warn" goes on and the profile counts as partly applied, "fail" stops.`},
			},
		},
		Wanted: irqbalanceWanted,
		Open: func(name string) (Setting, error) {
			switch name {
			case "service":
				return newIrqbalanceService(), nil
			case "banned":
				return irqbalanceBanned{}, nil
			}
			return nil, fmt.Errorf("irqbalance: %q: the settings are irqbalance/service and irqbalance/banned", name)
		},
		Scope:    Machine,
		Lifetime: Persistent,
		Effect:   "now; the job is queued, not waited for",
	}
}

func irqbalanceWanted(b profile.Block, t Target) ([]Wanted, hcl.Diagnostics) {
	r := &attrReader{block: b}
	r.classes()
	mode, ds := oneOf(b, "mode", "disable", "ban")
	r.diags = append(r.diags, ds...)
	if v, ok := given(b, "mode"); !ok || !v.IsKnown() {
		r.unknown = true
	}
	online := ""
	if t.Facts != nil {
		online = t.Facts.CPU.Online
	}
	var cpus cpuset.CPUSet
	banned, has := given(b, "banned_cpus")
	if has {
		cpus, has = r.cpus(banned, "banned_cpus", online)
	}
	if all, err := cpuset.Parse(online); has && !cpus.IsEmpty() && err == nil && cpus.Equals(all) {
		r.wrong(banned, "banned_cpus", "These are all CPUs of this machine, and none would be left for interrupts.")
	}
	if has && mode == "disable" && !r.unknown && !cpus.IsEmpty() {
		r.wrong(banned, "banned_cpus", "With mode \"disable\" irqbalance does not run. Write mode = \"ban\", or remove banned_cpus.")
	}
	if r.diags.HasErrors() || r.unknown {
		return nil, r.diags
	}

	service := newIrqbalanceService()
	w := Wanted{Setting: service, Range: attrRange(b, "mode"), OnError: r.class(profile.Value{})}
	if mode == "disable" {
		yes := true
		wish := unitWish{masked: &yes, state: unitStopped}
		w.Want = func(live Value) (Value, error) {
			if live.Absent {
				return live, nil
			}
			return wish.want(live)
		}
		return []Wanted{w}, r.diags
	}
	if cpus.IsEmpty() {
		return nil, r.diags
	}
	// Last, to restart it when we were killed after the file was written.
	w.Want = func(live Value) (Value, error) {
		if live.Absent {
			return live, nil
		}
		return unitWish{}.want(live)
	}
	return []Wanted{{
		Setting: irqbalanceBanned{},
		Want:    fixed(Value{Text: cpus.String()}),
		Range:   banned.Range,
		OnError: r.class(banned),
		Unsupported: func(h *host.Host) error {
			if ok, err := h.UnitFiles().Installed(irqbalanceUnit); err != nil || ok {
				return err
			}
			return errors.New("irqbalance: it is not installed, so it can leave no CPUs alone (install it, or say on_missing = \"skip\")")
		},
	}, w}, r.diags
}

// irqbalanceService is irqbalance's unit. Its value is a unit's.
type irqbalanceService struct {
	*unit
}

func newIrqbalanceService() irqbalanceService {
	s := irqbalanceService{newUnit(irqbalanceUnit)}
	s.configs = irqbalanceFiles()
	s.unmask = true // what we masked is ours to unmask, and we want nothing else
	return s
}

func (irqbalanceService) Key() string { return "irqbalance/service" }

// irqbalanceFiles are where distributions have irqbalance's variables: Debian, Red
// Hat.
func irqbalanceFiles() []string {
	return []string{"/etc/default/irqbalance", "/etc/sysconfig/irqbalance"}
}

// irqbalanceBanned is the list of CPUs that irqbalance leaves alone. Its value is
// what stands behind "IRQBALANCE_BANNED_CPULIST=" in the file of its variables,
// byte for byte; it is absent where that is not set. Other lines are not ours.
type irqbalanceBanned struct{}

func (irqbalanceBanned) Key() string { return "irqbalance/banned" }

// Same: quotes and another spelling of the same list are no difference.
func (irqbalanceBanned) Same(live, want Value) bool {
	if live.Absent || want.Absent {
		return live == want
	}
	a, err1 := cpuset.Parse(unquote(live.Text))
	b, err2 := cpuset.Parse(unquote(want.Text))
	return live == want || err1 == nil && err2 == nil && a.Equals(b)
}

func unquote(text string) string { return strings.Trim(strings.TrimSpace(text), `"'`) }

func (irqbalanceBanned) Read(_ context.Context, h *host.Host) (Value, error) {
	_, f, err := irqbalanceFile(h)
	if err != nil {
		return Value{}, err
	}
	lines := strings.Split(string(f.Content), "\n")
	i := bannedLine(lines)
	if i < 0 {
		return Value{Absent: true}, nil
	}
	_, text, _ := strings.Cut(lines[i], "=")
	return Value{Text: text}, nil
}

// Write changes that line only. A file that holds nothing else goes with it.
// irqbalance reads the variables when it starts, so it is restarted if it runs;
// never else, as it forgets the interrupts that it has seen.
func (irqbalanceBanned) Write(ctx context.Context, h *host.Host, v Value) error {
	p, f, err := irqbalanceFile(h)
	if err != nil {
		return err
	}
	lines := strings.Split(string(f.Content), "\n")
	switch i := bannedLine(lines); {
	case i < 0 && v.Absent:
		return nil
	case v.Absent:
		lines = slices.Delete(lines, i, i+1)
	case i >= 0:
		lines[i] = irqbalanceBan + "=" + v.Text
	case lines[len(lines)-1] == "": // the text ends in a newline, or is empty
		lines = slices.Insert(lines, len(lines)-1, irqbalanceBan+"="+v.Text)
	default:
		lines = append(lines, irqbalanceBan+"="+v.Text)
	}
	f.Content = []byte(strings.Join(lines, "\n"))
	if len(f.Content) == 0 {
		err = h.Remove(p)
	} else {
		err = h.WriteFile(p, f)
	}
	if err != nil {
		return fmt.Errorf("irqbalance: %w", err)
	}
	m, err := systemd(ctx, h)
	if errors.Is(err, host.ErrOffline) || errors.Is(err, host.ErrNoSystemd) {
		return nil
	}
	if err == nil {
		err = restartRunning(ctx, m, irqbalanceUnit)
	}
	if err != nil {
		return fmt.Errorf("irqbalance: %s is written, but the daemon may run with the older one: %w", p, err)
	}
	return nil
}

// bannedLine is the number of the last line that sets the variable, which counts;
// -1 where none does.
func bannedLine(lines []string) int {
	for i := len(lines) - 1; i >= 0; i-- {
		if strings.HasPrefix(lines[i], irqbalanceBan+"=") {
			return i
		}
	}
	return -1
}

// irqbalanceFile returns the file of irqbalance's variables: the one that is there,
// or else Debian's, empty.
func irqbalanceFile(h *host.Host) (string, host.File, error) {
	for _, p := range irqbalanceFiles() {
		f, err := h.File(p)
		if err == nil {
			return p, f, nil
		}
		if !errors.Is(err, fs.ErrNotExist) {
			return "", f, fmt.Errorf("irqbalance: %w", err)
		}
	}
	return irqbalanceFiles()[0], host.File{Mode: 0o644}, nil
}
