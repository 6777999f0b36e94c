package provision

import (
	"context"
	"fmt"
	"path"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/hashicorp/hcl/v2"
	"github.com/zclconf/go-cty/cty"

	"github.com/nodeprov/nodeprov/provision/host"
	"github.com/nodeprov/nodeprov/provision/profile"
)

// cpuKind is the cpu block, which is made of sysfs keys, the latency request and slices.
func cpuKind() Kind {
	return Kind{
		Name: "cpu",
		Schema: &profile.Schema{
			Type:      "cpu",
			Singleton: true,
			Doc: "How the CPUs save power, and which of them slices may use. Most virtual machines have no say in frequencies and C-states: " +
				"there each of these settings is refused with the reason, unless it is best_effort() or on_missing is \"skip\".",
			Attrs: []profile.Attr{
				{Name: "governor", Type: cty.String, BestEffort: true,
					Doc: "Frequency governor of all CPUs: \"performance\", \"powersave\", \"schedutil\"…, as far as the driver offers it."},
				{Name: "epp", Type: cty.String, BestEffort: true,
					Doc: "Energy performance preference of all CPUs: \"performance\", \"balance_performance\", \"balance_power\", \"power\" or \"default\", " +
						"as far as the driver offers it. With the governor performance, the kernel takes \"performance\" only."},
				{Name: "epb", Type: cty.Number, BestEffort: true,
					Doc: "Energy performance bias of all CPUs: 0 (performance) to 15 (power); Intel only."},
				{Name: "boost", Type: cty.Bool, BestEffort: true,
					Doc: "Whether CPUs may run above their nominal frequency (turbo)."},
				{Name: "min_perf_pct", Type: cty.Number, BestEffort: true,
					Doc: "The least performance that a CPU may choose, in percent of the greatest, 0 to 100; with the driver intel_pstate only."},
				{Name: "force_latency", Type: cty.DynamicPseudoType, BestEffort: true,
					Doc: "The deepest C-state allowed: its name (\"C1\"), or the time in µs that a CPU may take to wake up, 0 to 1999999999, where 0 " +
						"makes idle CPUs spin. Held by nodeprov-watch as a PM-QoS request."},
				{Name: "allowed_cpus", Type: cty.Map(cty.String), BestEffort: true,
					Doc: "CPUs that slices (or scopes, or services) are confined to, by the unit's name: { \"system.slice\" = \"0-1\" }. Needs cgroup v2. " +
						"It is systemd's AllowedCPUs=, until the next boot; what a slice holds is confined with it."},
				{Name: "on_missing", Type: cty.String, Default: cty.StringVal("fail"),
					Doc: `What to do where this host cannot have a setting: "fail" refuses it, "skip" reports it and goes on, as if all values were best_effort().`},
				{Name: "on_error", Type: cty.String, Default: cty.StringVal("warn"),
					Doc: `What a failure to set one does: "warn" goes on and the profile counts as partly applied, "fail" stops.`},
			},
		},
		Wanted: cpuWanted,
		Open: func(name string) (Setting, error) {
			return nil, fmt.Errorf("cpu: %q: it has no settings but those below sysfs, latency and slice", name)
		},
		Scope:    Machine,
		Lifetime: Runtime,
		Effect:   "now",
		Early:    true,
	}
}

func cpuWanted(b profile.Block, t Target) ([]Wanted, hcl.Diagnostics) {
	r := &attrReader{block: b}
	r.classes()
	c := &cpuWanter{r: r, h: t.Host}
	if t.Facts != nil {
		c.online, c.virtual = t.Facts.CPU.Online, t.Facts.Virtualization
	}

	governor, hasGovernor := c.word("governor")
	epp, hasEPP := c.word("epp")
	if hasGovernor && hasEPP && governor == "performance" && epp != "performance" {
		r.wrong(b.Attrs["epp"], "epp", "With the governor performance, the kernel refuses every preference but performance. Write \"performance\", or another governor.")
	}
	// The kernel takes another preference than performance only while the governor
	// is not performance. In this order that holds forwards, and also backwards,
	// when the values that were there before are put back last first.
	setGovernor := func() { c.policies("governor", "scaling_governor", governor, "scaling_available_governors") }
	setEPP := func() {
		c.policies("epp", "energy_performance_preference", epp, "energy_performance_available_preferences")
	}
	if hasEPP && epp == "performance" {
		setEPP()
	}
	if hasGovernor {
		setGovernor()
	}
	if hasEPP && epp != "performance" {
		setEPP()
	}
	if n, ok := r.number("epb", 0, 15); ok {
		c.bias(n)
	}
	if on, ok := r.flag("boost"); ok {
		c.boost(on)
	}
	if n, ok := r.number("min_perf_pct", 0, 100); ok {
		c.sysfs("min_perf_pct", host.IntelPstateDir+"/min_perf_pct", strconv.FormatInt(n, 10), "", func() string {
			return "only the driver intel_pstate has it" + c.because()
		})
	}
	c.latency()
	c.allowed()
	if r.diags.HasErrors() {
		return nil, r.diags
	}
	return c.ws, r.diags
}

// cpuWanter gathers the settings of a cpu block.
type cpuWanter struct {
	r *attrReader
	h *host.Host
	// online and virtual are facts, empty where those are unknown.
	online, virtual string
	ws              []Wanted
}

// word reads an attribute that is one of the kernel's words.
func (c *cpuWanter) word(name string) (string, bool) {
	text, ok := c.r.text(name)
	if !ok {
		return "", false
	}
	if !regexp.MustCompile(`^[a-z0-9_]+$`).MatchString(text) {
		c.r.wrong(c.r.block.Attrs[name], name, "%q is no word of the kernel's: those are of small letters, digits and underscores.", text)
		return "", false
	}
	return text, true
}

// because is what may be the reason for something missing.
func (c *cpuWanter) because() string {
	if c.virtual == "" {
		return ""
	}
	return " (this machine is virtual, and its hypervisor gives no control)"
}

// sysfs asks for one key. choices is the file that holds the words that it takes,
// or empty; missing says why it may not be there.
func (c *cpuWanter) sysfs(attr, p, want, choices string, missing func() string) {
	v := c.r.block.Attrs[attr]
	w := sysfsWanted(p, want, v.Range, c.r.class(v))
	w.Setting = cpuKey{w.Setting, choices}
	w.Unsupported = func(*host.Host) error {
		return fmt.Errorf("cpu: %s: there is no %s: %s (leave it out, or write best_effort() or on_missing = \"skip\")", attr, p, missing())
	}
	c.ws = append(c.ws, w)
}

// policies asks for the same in each frequency policy.
func (c *cpuWanter) policies(attr, file, want, choices string) {
	c.each(attr, (*host.Host).CPUFreqPolicies, host.CPUFreqDir+"/policy0", file, want, choices, func() string {
		if ps, err := c.h.CPUFreqPolicies(); err == nil && len(ps) > 0 {
			return "the frequency driver has no such setting"
		}
		return "the kernel controls no frequencies here" + c.because()
	})
}

// each asks for the same in each of the directories that list returns; first
// stands for them where there are none.
func (c *cpuWanter) each(attr string, list func(*host.Host) ([]string, error), first, file, want, choices string, missing func() string) {
	if c.h == nil {
		return
	}
	dirs, err := list(c.h)
	if err != nil {
		c.r.wrong(c.r.block.Attrs[attr], attr, "The CPUs cannot be read: %v.", err)
		return
	}
	if len(dirs) == 0 {
		dirs = []string{first}
	}
	for _, dir := range dirs {
		if choices != "" {
			c.sysfs(attr, path.Join(dir, file), want, path.Join(dir, choices), missing)
		} else {
			c.sysfs(attr, path.Join(dir, file), want, "", missing)
		}
	}
}

func (c *cpuWanter) bias(n int64) {
	const file = "power/energy_perf_bias"
	online := func(h *host.Host) ([]string, error) {
		dirs, err := h.CPUs()
		if err != nil {
			return nil, err
		}
		// A CPU that is offline has none.
		return slices.DeleteFunc(dirs, func(dir string) bool {
			_, err := h.ReadFile(path.Join(dir, file))
			return err != nil
		}), nil
	}
	c.each("epb", online, host.CPUDir+"/cpu0", file, strconv.FormatInt(n, 10), "", func() string {
		return "the CPUs have no such bias" + c.because()
	})
}

// boost is a switch of its own, or intel_pstate's, which is the other way round.
func (c *cpuWanter) boost(on bool) {
	if c.h == nil {
		return
	}
	const common, turbo = host.CPUFreqDir + "/boost", host.IntelPstateDir + "/no_turbo"
	p, want := common, on
	if _, err := c.h.ReadFile(turbo); err == nil {
		p, want = turbo, !on
	}
	text := map[bool]string{true: "1", false: "0"}[want]
	c.sysfs("boost", p, text, "", func() string {
		return "the frequency driver has no switch for it" + c.because()
	})
}

func (c *cpuWanter) latency() {
	const attr = "force_latency"
	v, ok := c.r.value(attr)
	if !ok {
		return
	}
	w := Wanted{Setting: latency{}, Range: v.Range, OnError: c.r.class(v)}
	switch {
	case v.Type() == cty.Number:
		n, ok := c.r.number(attr, 0, maxLatency)
		if !ok {
			return
		}
		w.Want = fixed(Value{Text: strconv.FormatInt(n, 10)})
	case v.Type() == cty.String:
		name := v.AsString()
		if !regexp.MustCompile(`^[A-Za-z][A-Za-z0-9_]*$`).MatchString(name) {
			c.r.wrong(v, attr, "%q is no name of a C-state, as \"C1\" is; a time in µs is a number without quotes.", name)
			return
		}
		if c.h == nil {
			return
		}
		us, err := stateLatency(c.h, name)
		if err != nil {
			w.Setting, w.Want = noLatency{}, fixed(Value{Absent: true})
			w.Unsupported = func(*host.Host) error { return fmt.Errorf("cpu: force_latency: %w", err) }
			break
		}
		w.Want = fixed(Value{Text: strconv.Itoa(us)})
	default:
		c.r.wrong(v, attr, "The name of a C-state as \"C1\", or a number of µs, is needed, not a value of type %s.", v.Type().FriendlyName())
		return
	}
	c.ws = append(c.ws, w)
}

func (c *cpuWanter) allowed() {
	const attr = "allowed_cpus"
	v, ok := given(c.r.block, attr)
	switch {
	case !ok:
		return
	case v.IsMarked():
		c.r.usable(v, attr)
		return
	}
	for _, e := range v.Entries {
		if err := checkSliceName(e.Key); err != nil {
			c.r.diags = append(c.r.diags, wrongAt(e.KeyRange, "Invalid name of a slice", "%s.", upperFirst(err.Error())))
			continue
		}
		cpus, ok := c.r.cpus(e.Value, attr, c.online)
		if !ok {
			continue
		}
		if cpus.IsEmpty() {
			c.r.wrong(e.Value, attr, "%s: the list is empty, and nothing in it could run. Write the CPUs, or leave the slice out.", e.Key)
			continue
		}
		s := newSlice(e.Key)
		class := c.r.class(e.Value)
		if v.BestEffort {
			class = Tolerate
		}
		c.ws = append(c.ws, Wanted{
			Setting:     s,
			Want:        fixed(Value{Text: cpus.String()}),
			Range:       hcl.RangeBetween(e.KeyRange, e.Value.Range),
			OnError:     class,
			Unsupported: s.unsupported,
		})
	}
}

func upperFirst(text string) string {
	return strings.ToUpper(text[:1]) + text[1:]
}

// cpuKey is a key below /sys whose refusal can name the words that it takes.
type cpuKey struct {
	Setting
	// choices is the file that holds them, or empty.
	choices string
}

func (s cpuKey) Write(ctx context.Context, h *host.Host, v Value) error {
	err := s.Setting.Write(ctx, h, v)
	if err == nil || s.choices == "" {
		return err
	}
	b, rerr := h.ReadFile(s.choices)
	words := strings.Fields(string(b))
	if rerr != nil || slices.Contains(words, v.Text) {
		return err
	}
	return fmt.Errorf("%w (the driver offers: %s)", err, strings.Join(words, ", "))
}

// Same is that of the key inside.
func (s cpuKey) Same(live, want Value) bool { return same(s.Setting, live, want) }
