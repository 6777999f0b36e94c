package provision

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/hashicorp/hcl/v2"
	"github.com/zclconf/go-cty/cty"

	"github.com/nodeprov/nodeprov/lbd/config"
	"github.com/nodeprov/nodeprov/provision/host"
	"github.com/nodeprov/nodeprov/provision/profile"
)

// unitKind enables and starts systemd units.
//
// The lifetime is Persistent because enablement is: what is enabled runs after
// the next boot too. So a value from before a reboot is restored after it, with
// both of its halves: what was "disabled, stopped" is stopped again.
func unitKind() Kind {
	return Kind{
		Name: "unit",
		Schema: &profile.Schema{
			Type:    "unit",
			Label:   "name",
			ForEach: true,
			Doc: "A systemd unit: whether it starts at boot and runs now, and, if wanted, its file and drop-ins in /etc/systemd/system. What is left out stays as it is. " +
				"Jobs are queued and never waited for, as units may be ordered after the service that applies the profile. " +
				"When its file or a drop-in changes, systemd reads its units again, and a service that runs is restarted (nodeprov's own are not). " +
				"In an image (--root), files and links are made, and the state is left to the boot.",
			Attrs: []profile.Attr{
				{Name: "name", Type: cty.String, Doc: "The unit's whole name, as chrony.service; what the label is where this is left out."},
				{Name: "enabled", Type: cty.Bool, Doc: "Whether it starts at boot. It needs an [Install] section in its file."},
				{Name: "state", Type: cty.String, Doc: `"started" or "stopped", now. A oneshot service without RemainAfterExit= is stopped when it is done.`},
				{Name: "masked", Type: cty.Bool, Doc: "true makes it impossible to start; false unmasks it. Where this is left out, a masked unit is not enabled or started: somebody wants it not to run."},
				{Name: "content", Type: cty.String, Doc: "The text of a unit file of your own, /etc/systemd/system/NAME, which goes before one of that name that a package has installed."},
				{Name: "restart_on", Type: cty.List(cty.String), Doc: "Absolute paths of files that the service reads when it starts: it is restarted when one of them is younger than its main process."},
				{Name: "on_missing", Type: cty.String, Default: cty.StringVal("fail"),
					Doc: `What to do when no such unit is installed: "fail" refuses it, "skip" reports it and goes on. A unit that shall not run need not be there.`},
				{Name: "on_error", Type: cty.String, Default: cty.StringVal("warn"),
					Doc: `What a failure to set it does: "warn" goes on and the profile counts as partly applied, "fail" stops.`},
			},
			Blocks: []profile.Schema{{
				Type:  "dropin",
				Label: "name",
				Doc:   "A drop-in of the unit, /etc/systemd/system/UNIT.d/NAME.conf.",
				Attrs: []profile.Attr{{Name: "content", Type: cty.String, Required: true, Doc: "Its text, with sections as in a unit file."}},
			}},
		},
		Wanted:   unitBlockWanted,
		Open:     func(name string) (Setting, error) { return openUnit(name) },
		Scope:    Machine,
		Lifetime: Persistent,
		Effect:   "now; the job is queued, not waited for",
	}
}

// The second half of a unit's value.
const (
	// unitStarted is running, starting, or waiting for its turn to start: at
	// boot, units come after the service that runs us.
	unitStarted = "started"
	// unitStale is running since before its configuration file was written.
	unitStale   = "started with an older configuration"
	unitStopped = "stopped"
	// unitFailing has failed, or waits for the next try after it failed.
	unitFailing = "failing"
	// unitAtBoot is what all units of an image are.
	unitAtBoot = "at boot"
)

// unitUnmasked in the place of the first half wants whatever the unit's file says
// once it is masked no more.
const unitUnmasked = "unmasked"

// unit is a systemd unit. Its value is "ENABLEMENT, ACTIVITY": systemd's word for
// the unit's file ("enabled", "disabled", "static", "masked"…), and one of the
// constants above. It is absent when no such unit is installed.
type unit struct {
	name string
	// configs are the files that the unit reads when it starts.
	configs []string
	// unmask tells whether Write may unmask it. A mask says that somebody wants
	// the unit not to run, so only the profile may, or going back.
	unmask bool
	// connect returns the machine's systemd; tests put another one here.
	connect func(context.Context, *host.Host) (manager, error)
}

// manager is what a unit needs of systemd.
type manager interface {
	Unit(ctx context.Context, name string) (host.UnitState, error)
	MainStart(ctx context.Context, name string) (time.Time, error)
	Enable(ctx context.Context, name string) error
	Disable(ctx context.Context, name string) error
	Mask(ctx context.Context, name string) error
	Unmask(ctx context.Context, name string) error
	Start(ctx context.Context, name string) error
	Restart(ctx context.Context, name string) error
	Stop(ctx context.Context, name string) error
	ResetFailed(ctx context.Context, name string) error
	Reload(ctx context.Context) error
}

// systemd returns the machine's systemd.
func systemd(ctx context.Context, h *host.Host) (manager, error) {
	m, err := h.Systemd(ctx)
	if err != nil {
		return nil, err
	}
	return m, nil
}

// unitManager is systemd, or in an image its files.
func unitManager(ctx context.Context, h *host.Host) (manager, error) {
	if !h.Live() {
		return h.UnitFiles(), nil
	}
	return systemd(ctx, h)
}

// unitWanted asks for a unit that is enabled and started. rng is the place in the
// profile.
func unitWanted(name string, rng hcl.Range) Wanted {
	s := newUnit(name)
	return Wanted{
		Setting:     s,
		Want:        fixed(unitValue("enabled", unitStarted)),
		Range:       rng,
		OnError:     Fail,
		Unsupported: s.unsupported,
	}
}

func newUnit(name string) *unit {
	s := &unit{name: name, connect: unitManager}
	if c := configOf(name); c != "" {
		s.configs = []string{c}
	}
	return s
}

// configOf returns the file that a unit reads when it starts, empty for units
// that have none. It goes by the name, so that a journaled key is enough to go
// back.
func configOf(unit string) string {
	if unit == lbdUnit {
		return config.File
	}
	return ""
}

// unitOf is the service that reads the file when it starts, and may be restarted
// for it; empty where there is none.
func unitOf(file string) string {
	if file == config.File {
		return lbdUnit
	}
	name, ok := strings.CutPrefix(file, host.UnitDir+"/")
	if !ok {
		return ""
	}
	if dir, conf, ok := strings.Cut(name, "/"); ok {
		name, ok = strings.CutSuffix(dir, ".d")
		if !ok || path.Ext(conf) != ".conf" || strings.Contains(conf, "/") {
			return ""
		}
	}
	switch {
	case path.Ext(name) != ".service" || checkUnitName(name) != nil:
		return "" // to restart a slice or a mount would stop what is in it
	case strings.HasPrefix(name, "nodeprov-"):
		return "" // that would be us
	case strings.HasSuffix(name, "@.service"):
		return "" // a template does not run
	}
	return name
}

func openUnit(name string) (*unit, error) {
	if err := checkUnitName(name); err != nil {
		return nil, fmt.Errorf("unit: %w", err)
	}
	s := newUnit(name)
	s.unmask = true
	return s, nil
}

// checkUnitName applies systemd's rule (unit_name_is_valid).
func checkUnitName(name string) error {
	if len(name) > 255 || !regexp.MustCompile(`^[A-Za-z0-9:_.\\@-]+\.(service|socket|target|timer|path|slice|scope|mount|automount|swap|device)$`).MatchString(name) {
		return fmt.Errorf("%q is no name of a unit: write the whole name with its type, as in chrony.service", name)
	}
	return nil
}

func (s *unit) Key() string { return "unit/" + s.name }

func (s *unit) Read(ctx context.Context, h *host.Host) (Value, error) {
	m, err := s.connect(ctx, h)
	if err != nil {
		return Value{}, fmt.Errorf("unit %s: %w", s.name, err)
	}
	return s.read(ctx, h, m)
}

func (s *unit) read(ctx context.Context, h *host.Host, m manager) (Value, error) {
	u, err := m.Unit(ctx, s.name)
	if err != nil {
		return Value{}, fmt.Errorf("unit %s: %w", s.name, err)
	}
	switch u.LoadState {
	case "not-found":
		return Value{Absent: true}, nil
	case "loaded", "masked":
	default:
		return Value{}, fmt.Errorf("unit %s: systemd calls it %q (see `systemctl status %[1]s`, mend its file, and run `systemctl daemon-reload`)", s.name, u.LoadState)
	}
	if !h.Live() && u.ActiveState == "" {
		return unitValue(u.UnitFileState, unitAtBoot), nil
	}
	stale, err := s.stale(ctx, h, m, u)
	if err != nil {
		return Value{}, fmt.Errorf("unit %s: %w", s.name, err)
	}
	return unitValue(cmp.Or(u.UnitFileState, "without-file"), activity(u, stale)), nil
}

// stale tells whether the unit's main process was started before one of its
// configuration files was written.
func (s *unit) stale(ctx context.Context, h *host.Host, m manager, u host.UnitState) (bool, error) {
	var written time.Time
	for _, c := range s.configs {
		t, err := h.ModTime(c)
		// Without its file it has what it had; that it is no file is the
		// file's setting to report.
		if err != nil && !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, host.ErrNotRegular) {
			return false, err
		}
		if err == nil && t.After(written) {
			written = t
		}
	}
	if written.IsZero() || u.ActiveState == "inactive" || u.ActiveState == "failed" {
		return false, nil
	}
	start, err := m.MainStart(ctx, s.name)
	return err == nil && !start.IsZero() && written.After(start), err
}

// activity puts into one word what systemd says; stale tells that the main process
// is older than its configuration.
func activity(u host.UnitState, stale bool) string {
	// What is queued counts as done: jobs are never waited for.
	switch u.JobType {
	case "start", "restart":
		// A start job stays while the process comes up, which may have read an
		// older configuration already.
		if u.JobType == "restart" || u.ActiveState != "activating" {
			return unitStarted
		}
	case "stop":
		return unitStopped
	}
	switch u.ActiveState {
	case "active", "reloading", "activating", "refreshing":
		if strings.HasPrefix(u.SubState, "auto-restart") {
			return unitFailing
		}
		if stale {
			return unitStale
		}
		return unitStarted
	case "failed":
		return unitFailing
	}
	return unitStopped
}

// Write enables, disables or masks the unit, and queues the job that its activity
// needs. It waits for nothing. To make a unit absent is to disable and stop it: its
// file is another setting.
func (s *unit) Write(ctx context.Context, h *host.Host, v Value) error {
	m, err := s.connect(ctx, h)
	if err != nil {
		return fmt.Errorf("unit %s: %w", s.name, err)
	}
	enablement, wanted, ok := strings.Cut(v.Text, ", ")
	if v.Absent {
		enablement, wanted, ok = "disabled", unitStopped, true
	}
	if !ok {
		return fmt.Errorf("unit %s: the value %q has no form of a unit's, as \"enabled, started\" has", s.name, v.Text)
	}
	live, err := s.read(ctx, h, m)
	if err != nil {
		return err
	}
	if live.Absent && enablement != "masked" {
		if v.Absent {
			return nil
		}
		return s.unsupported(h)
	}
	enabled, active, _ := strings.Cut(live.Text, ", ")
	if live.Absent {
		active = unitStopped
	}
	var refused error
	if !sameEnablement(enabled, enablement) {
		refused = s.enable(ctx, m, enabled, enablement)
	}
	// What shall not run is stopped all the same.
	if active == unitAtBoot || wanted == unitAtBoot || active == wanted || refused != nil && wanted != unitStopped {
		return refused
	}
	if slices.ContainsFunc(s.configs, isUnitFile) {
		// We may have been killed between its file and the reload.
		if err := m.Reload(ctx); err != nil {
			return err
		}
	}
	if err := s.run(ctx, m, active, wanted); err != nil && refused == nil {
		return fmt.Errorf("%w (it is %s now)", err, enablement)
	} else if err != nil {
		return errors.Join(refused, err)
	}
	return refused
}

// Inexact: some of systemd's words come of links that were made by hand or by other
// programs, and it cannot be asked for them.
func (s *unit) Inexact(live, want Value) string {
	from, _, _ := strings.Cut(live.Text, ", ")
	to, _, _ := strings.Cut(want.Text, ", ")
	switch from {
	case "enabled-runtime", "linked", "linked-runtime", "masked-runtime", "alias":
		if !sameEnablement(from, to) && to != "masked" {
			return "systemd cannot be asked to make a unit " + from
		}
	}
	return ""
}

func (s *unit) enable(ctx context.Context, m manager, from, to string) error {
	if strings.HasPrefix(from, "masked") && to != "masked" {
		if !s.unmask {
			return fmt.Errorf("unit %s: it is masked, so somebody wants it not to run (write masked = false in a unit block, or run `systemctl unmask %[1]s`, if it shall)", s.name)
		}
		if err := m.Unmask(ctx, s.name); err != nil {
			return err
		}
		u, err := m.Unit(ctx, s.name)
		if err != nil {
			return err
		}
		if from = u.UnitFileState; u.LoadState == "not-found" || sameEnablement(from, to) {
			return nil // there was nothing but the mask
		}
	}
	switch to {
	case "masked":
		return m.Mask(ctx, s.name)
	case "enabled":
		return m.Enable(ctx, s.name)
	case "disabled":
		return m.Disable(ctx, s.name)
	}
	return fmt.Errorf("unit %s: it is %s, and only enabled, disabled and masked can be set, not %s (see `systemctl status %[1]s`)", s.name, from, to)
}

// sameEnablement tells whether the live word of a unit's file is as good as the
// wanted one: what has no [Install] section is not enabled either.
func sameEnablement(live, want string) bool {
	switch want {
	case unitUnmasked:
		return !strings.HasPrefix(live, "masked")
	case "disabled":
		switch live {
		case "static", "indirect", "generated", "transient", "without-file":
			return true
		}
	}
	return live == want
}

func (s *unit) run(ctx context.Context, m manager, from, to string) error {
	if to == unitStopped {
		if from == unitStopped {
			return nil
		}
		if err := m.Stop(ctx, s.name); err != nil {
			return err
		}
		if from == unitFailing {
			return m.ResetFailed(ctx, s.name)
		}
		return nil
	}
	switch from {
	case unitStopped:
		return m.Start(ctx, s.name)
	case unitStale:
		if to == unitStarted {
			return m.Restart(ctx, s.name)
		}
	case unitFailing:
		if to == unitFailing {
			return nil
		}
		// It may have reached its start limit.
		if err := m.ResetFailed(ctx, s.name); err != nil {
			return err
		}
		return m.Restart(ctx, s.name)
	}
	return nil
}

// Same: nobody can ask for a unit that fails or that has an older configuration,
// so where that was the value before, one that was started is as good. In an
// image nothing runs. One that neither is enabled nor runs is as good as none.
func (s *unit) Same(live, want Value) bool {
	if live == want {
		return true
	}
	le, la, ok1 := strings.Cut(live.Text, ", ")
	we, wa, ok2 := strings.Cut(want.Text, ", ")
	switch {
	case live.Absent && ok2:
		return sameEnablement("static", we) && (wa == unitStopped || wa == unitAtBoot)
	case want.Absent && ok1:
		return sameEnablement(le, "disabled") && (la == unitStopped || la == unitAtBoot)
	case !ok1 || !ok2 || !sameEnablement(le, we):
		return false
	case la == wa, la == unitAtBoot, wa == unitAtBoot:
		return true
	}
	return la == unitStarted && (wa == unitStale || wa == unitFailing)
}

func (s *unit) unsupported(*host.Host) error {
	if s.name == lbdUnit {
		return fmt.Errorf("unit %s: it is not installed (run `nodeprov install`)", s.name)
	}
	return fmt.Errorf("unit %s: no such unit is installed (install what brings it, give the block the content of its file, or say on_missing = \"skip\")", s.name)
}

func unitValue(enablement, activity string) Value {
	return Value{Text: enablement + ", " + activity}
}

// restartRunning restarts a unit if it runs, without waiting. It does nothing
// where the unit is stopped, stopping or about to start.
func restartRunning(ctx context.Context, m manager, name string) error {
	u, err := m.Unit(ctx, name)
	if err != nil {
		return err
	}
	if u.JobType == "stop" || u.JobType == "restart" || u.LoadState != "loaded" {
		return nil
	}
	switch u.ActiveState {
	case "active", "activating", "reloading", "refreshing":
		return m.Restart(ctx, name)
	}
	return nil
}

// unitWish is what a unit block asks of its unit; nil and empty leave it as it is.
type unitWish struct {
	enabled, masked *bool
	state           string
	// installed is what the unit's file is when it is new, "disabled" or "static";
	// empty for a unit whose file is not ours.
	installed string
}

// idle tells whether a unit that is not there fulfils the wish.
func (w unitWish) idle() bool {
	return w.installed == "" && (w.masked == nil || !*w.masked) && (w.enabled == nil || !*w.enabled) && w.state != unitStarted
}

func (w unitWish) want(live Value) (Value, error) {
	masked := w.masked != nil && *w.masked
	if live.Absent && w.idle() && (w.enabled != nil || w.masked != nil || w.state != "") {
		return live, nil
	}
	enablement, activity, _ := strings.Cut(live.Text, ", ")
	if live.Absent {
		enablement, activity = cmp.Or(w.installed, "disabled"), unitStopped
	}
	if activity == unitStale {
		activity = unitStarted
	}
	switch {
	case masked:
		enablement = "masked"
	case w.enabled != nil && *w.enabled:
		enablement = "enabled"
	case w.enabled != nil && !sameEnablement(enablement, "disabled"):
		if !strings.HasPrefix(enablement, "masked") || w.masked != nil {
			enablement = "disabled"
		}
	case w.masked != nil && strings.HasPrefix(enablement, "masked"):
		enablement = unitUnmasked
	}
	return unitValue(enablement, cmp.Or(w.state, activity)), nil
}

func unitBlockWanted(b profile.Block, _ Target) ([]Wanted, hcl.Diagnostics) {
	r := &attrReader{block: b}
	r.classes()
	name, at := b.Label, b.Range
	if v, ok := given(b, "name"); ok {
		name, _ = r.text("name")
		at = v.Range
	}
	if name != "" {
		if err := checkUnitName(name); err != nil {
			r.diags = append(r.diags, wrongAt(at, "Invalid name of a unit", "%v.", err))
		}
	}
	text, own := r.content("content")
	w := r.unitWish(text, own)
	s := newUnit(name)
	s.unmask = w.masked != nil && !*w.masked
	ws := r.unitFiles(s, text, own)
	if v, ok := r.value("restart_on"); ok {
		for it := v.ElementIterator(); it.Next(); {
			_, e := it.Element()
			if e.IsNull() || e.Type() != cty.String || checkFilePath(e.AsString()) != nil {
				r.wrong(v, "restart_on", "Absolute paths of files are needed, as in [\"/etc/chrony/chrony.conf\"].")
				break
			}
			s.configs = append(s.configs, e.AsString())
		}
	}
	if len(ws) == 0 && w == (unitWish{}) && len(s.configs) == 0 && !r.unknown && !r.diags.HasErrors() {
		r.diags = append(r.diags, wrongAt(b.Range, "Unit without a wish", "The block asks for nothing. Write what the unit shall be, as in enabled = true and state = \"started\"."))
	}
	if r.diags.HasErrors() || r.unknown || name == "" {
		return nil, r.diags
	}
	return append(ws, Wanted{
		Setting: s,
		Want:    w.want,
		Range:   b.Range,
		OnError: r.class(profile.Value{}),
		Unsupported: func(h *host.Host) error {
			if w.idle() && (w.enabled != nil || w.masked != nil || w.state != "") || w.installed != "" || w.masked != nil && *w.masked {
				return nil
			}
			return s.unsupported(h)
		},
	}), r.diags
}

// unitWish reads what the block asks of the unit, whose own file has that text.
func (r *attrReader) unitWish(text string, own bool) unitWish {
	var w unitWish
	if on, ok := r.flag("enabled"); ok {
		w.enabled = &on
	}
	if on, ok := r.flag("masked"); ok {
		w.masked = &on
	}
	state, hasState := given(r.block, "state")
	if hasState {
		word, ds := oneOf(r.block, "state", unitStarted, unitStopped)
		r.diags = append(r.diags, ds...)
		if state.IsKnown() && len(ds) == 0 {
			w.state = word
		}
		r.unknown = r.unknown || !state.IsKnown()
	}
	if w.masked != nil && *w.masked {
		if w.enabled != nil && *w.enabled {
			r.wrong(r.block.Attrs["enabled"], "enabled", "The unit shall be masked, and a masked unit is never started. Remove one of the two.")
		}
		if w.state == unitStarted {
			r.wrong(state, "state", "The unit shall be masked, and a masked unit cannot be started. Remove one of the two.")
		}
		if v, ok := given(r.block, "content"); ok {
			r.wrong(v, "content", "The unit shall be masked, and the mask takes the place of its file in %s. Remove one of the two.", host.UnitDir)
		}
	}
	if own {
		w.installed = "static"
		if in, err := host.ParseUnitInstall([]byte(text)); err != nil {
			r.wrong(r.block.Attrs["content"], "content", "It is no unit file: %v.", err)
		} else if in.Found {
			w.installed = "disabled"
		} else if w.enabled != nil && *w.enabled {
			r.wrong(r.block.Attrs["enabled"], "enabled", "The content has no [Install] section, so nothing would start the unit at boot. Add one, as [Install] and WantedBy=multi-user.target.")
		}
	}
	return w
}

// unitFiles are the settings of the unit's own file and drop-ins, which become its
// configuration.
func (r *attrReader) unitFiles(s *unit, text string, own bool) []Wanted {
	class := r.class(profile.Value{})
	var ws []Wanted
	add := func(p, text string, rng hcl.Range) {
		w := fileWanted(p, 0o644, []byte(text), rng)
		w.OnError = class
		ws = append(ws, w)
		s.configs = append(s.configs, p)
	}
	if own {
		add(path.Join(host.UnitDir, s.name), text, r.block.Attrs["content"].Range)
	}
	for _, d := range r.block.Blocks {
		if !regexp.MustCompile(`^[A-Za-z0-9_.@-]{1,200}$`).MatchString(d.Label) || strings.HasSuffix(d.Label, ".conf") || strings.HasPrefix(d.Label, ".") {
			r.diags = append(r.diags, wrongAt(d.Range, "Invalid name of a drop-in", "%q: letters, digits, _, ., @ and - make a name, and .conf is added to it.", d.Label))
			continue
		}
		dr := &attrReader{block: d}
		text, ok := dr.content("content")
		if _, err := host.ParseUnitInstall([]byte(text)); ok && err != nil {
			dr.wrong(d.Attrs["content"], "content", "It is no drop-in of a unit: %v.", err)
		}
		r.diags, r.unknown = append(r.diags, dr.diags...), r.unknown || dr.unknown
		if ok {
			add(path.Join(host.UnitDir, s.name+".d", d.Label+".conf"), text, d.Range)
		}
	}
	return ws
}
