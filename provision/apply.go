package provision

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/hashicorp/hcl/v2"

	"github.com/nodeprov/nodeprov/provision/profile"
)

// ApplyOptions say what an apply is of.
type ApplyOptions struct {
	Phase Phase
	// Source, all Sources that it is made of (Profile.Sources; nil stands for Source
	// alone) and Vars are what the settings were made from. After a complete
	// apply of PhaseAll they are kept as the last good profile.
	Source  profile.Source
	Sources []profile.Source
	Vars    []profile.Assignment
	// Degraded says why Source is the last good profile and not the newest;
	// empty when it is the newest.
	Degraded string
	// FailOpen goes on where this host cannot have a setting of class Warn: the
	// machine boots with the rest, and the report tells. Otherwise nothing is
	// written then.
	FailOpen bool
	// Guard is asked once the lock is held, before anything is done; its error ends
	// the apply. For callers that decided before they had the lock, as another
	// process may have rolled back meanwhile. May be nil.
	Guard func() error
	// Saved is the plan that must still be exactly what is to be done; else the
	// error is a *StaleError. May be nil.
	Saved *SavedPlan
	// Try is after how long what was applied is reverted, unless Confirm comes before;
	// 0 applies for good. An apply that has nothing to write is not tried.
	Try time.Duration
	// Reboot reboots the machine, for settings that hold after that only and
	// whose RebootPolicy says so. It is called at the end of the first apply of
	// PhaseAll in a boot only. Nil never reboots.
	Reboot func(context.Context) error
	// Progress is called after each setting that was written, failed, was tolerated
	// or deferred. May be nil.
	Progress func(Outcome)
}

func (o *ApplyOptions) sources() []profile.Source {
	if o.Sources != nil {
		return o.Sources
	}
	return []profile.Source{o.Source}
}

// Apply makes the host have what is wanted. The same call again changes
// nothing.
//
// Diagnostics are mistakes that were found before the first write; nothing was
// written then, and the report is nil. Otherwise the report says what is true
// now, also when there is an error. The error is nil for the results Complete
// and Partial. When ctx ends, it stops between two settings.
func (e *Engine) Apply(ctx context.Context, ws []Wanted, o ApplyOptions) (*Report, hcl.Diagnostics, error) {
	release, err := e.lock(ctx)
	if err != nil {
		return nil, nil, err
	}
	defer release()
	if o.Guard != nil {
		if err := o.Guard(); err != nil {
			return nil, nil, err
		}
	}
	j, err := e.openJournal()
	if err != nil {
		return nil, nil, err
	}
	if o.Phase.Device() == "" {
		if err := e.untried(j, o.FailOpen); err != nil {
			return nil, nil, err
		}
	}
	p, diags, err := e.plan(ctx, j, ws, o.Phase, false)
	if err != nil {
		return nil, nil, err
	}
	if !diags.HasErrors() && o.Saved != nil {
		if err := o.Saved.check(p, j); err != nil {
			return nil, nil, err
		}
	}
	diags = append(diags, e.hopeless(p, o.FailOpen)...)
	if diags.HasErrors() {
		return nil, diags, nil
	}
	if err := j.compact(); err != nil {
		return nil, diags, err
	}

	last, _ := e.LastReport() // one that is damaged is replaced
	r := e.newReport("apply", j.boot)
	r.Phase, r.Profile, r.Digest, r.Degraded = o.Phase, o.Source.Name, Digest(o.sources()...), o.Degraded
	a := &apply{e: e, j: j, r: r, p: p, o: o}
	due := p.Summary().Due() > 0
	trying := o.Try > 0 && due
	if trying {
		// What drifted in a generation is reverted only if it is another one's.
		devices, err := e.devices()
		if err != nil {
			return nil, nil, err
		}
		p.open(j, devices)
	}
	r.Generation = p.Generation
	if trying {
		// First of all: what cannot be reverted leaves everything as it is.
		if r.Try, err = e.try(ctx, j, r, o); err != nil {
			return nil, diags, err
		}
	}
	if err := a.begin(due); err != nil {
		if trying {
			err = errors.Join(err, e.forgetTry(), e.Timer.Stop(context.WithoutCancel(ctx)))
		}
		return nil, diags, err
	}
	err = a.run(ctx, ws)
	r.finish(ctx, err)
	r.Finished = e.now()
	if o.Phase.Device() == "" {
		err = errors.Join(err, a.conclude(ctx, ws, last))
		return r, diags, errors.Join(err, e.saveReport(r, !due && r.Result == Complete && len(r.Pending) == 0))
	}
	// The report of the whole apply stays, with what is now true of the device.
	if last != nil && last.Operation == "apply" && last.Phase == PhaseAll && last.Boot == j.boot && last.Result != Running {
		last.merge(r)
		e.dropGone(last)
		err = errors.Join(err, e.saveReport(last, !due))
	}
	return r, diags, err
}

// begin does what comes before the first write: it keeps the profile, says that an
// apply is at work, and takes the stamp away.
func (a *apply) begin(due bool) error {
	e, o := a.e, &a.o
	if o.Phase == PhaseAll && o.Source.Text != nil {
		// In force from here on, for devices that are plugged in later.
		if err := e.keep(appliedFile, Kept{o.sources(), o.Vars}); err != nil {
			return err
		}
	}
	if due && o.Phase.Device() == "" {
		// Besides telling of a crash, this finds a disk that is full or
		// read-only before anything is written to the machine.
		if err := e.saveReport(a.r, false); err != nil {
			return err
		}
	}
	if o.Phase == PhaseAll && a.p.shakes() {
		return e.unstamp()
	}
	return nil
}

// conclude does what follows from how a run of all or of the early phase ended: the
// last good profile, the stamp, a reboot.
func (a *apply) conclude(ctx context.Context, ws []Wanted, last *Report) error {
	e, r := a.e, a.r
	if a.o.Phase != PhaseAll {
		return nil
	}
	var err error
	if a.o.Source.Text != nil && r.Result == Complete && a.o.Degraded == "" && r.Try == nil {
		err = e.keep(lastGoodFile, Kept{a.o.sources(), a.o.Vars})
	}
	if r.Try == nil && a.o.Degraded == "" && (r.Result == Complete || r.Result == Partial) {
		// What was reverted once has been replaced, or is meant now.
		err = errors.Join(err, e.forgetTry())
	}
	err = errors.Join(err, e.stamp(r, ws))
	return errors.Join(err, a.reboot(ctx, last))
}

// shakes tells whether the plan writes what K3s needs, or takes something back.
func (p *Plan) shakes() bool {
	for _, cs := range [][]Change{p.Restores, p.Changes} {
		for _, c := range cs {
			if c.due() && (c.want == nil || c.want.OnError == Fail) {
				return true
			}
		}
	}
	return false
}

// unstamp removes the stamp; stamp writes it where r has all that K3s needs.
func (e *Engine) unstamp() error {
	if e.Stamp == "" {
		return nil
	}
	if err := e.Host.Remove(e.Stamp); err != nil {
		return fmt.Errorf("stamp: %w", err)
	}
	return nil
}

func (e *Engine) stamp(r *Report, ws []Wanted) error {
	if e.Stamp == "" {
		return nil
	}
	had := make(map[string]bool)
	for _, os := range [][]Outcome{r.Applied, r.Unchanged} {
		for _, o := range os {
			had[o.Key] = true
		}
	}
	for _, w := range ws {
		if w.OnError == Fail && !had[w.Key()] {
			return e.unstamp()
		}
	}
	text := fmt.Sprintf("%d\n", r.Generation)
	if b, err := e.Host.ReadFile(e.Stamp); err == nil && string(b) == text {
		return nil
	}
	if err := e.Host.WriteFileAtomic(e.Stamp, []byte(text), 0o644); err != nil {
		return fmt.Errorf("stamp: %w", err)
	}
	return nil
}

// hopeless are the settings that cannot be had. They stop the apply before its
// first write, unless something that an earlier kind writes may yet bring them
// or, with failOpen, they are of class Warn.
func (e *Engine) hopeless(p *Plan, failOpen bool) hcl.Diagnostics {
	var diags hcl.Diagnostics
	firstDue := len(e.Kinds)
	for _, c := range p.Changes {
		if c.due() {
			firstDue = min(firstDue, e.rank(c.Key))
		}
	}
	for _, c := range p.Changes {
		var bad *wantError
		if c.Err == nil || c.Action == Tolerated || failOpen && !c.fatal() || errors.As(c.Err, &bad) || c.Action == Unsupported && e.rank(c.Key) > firstDue {
			continue
		}
		diags = append(diags, &hcl.Diagnostic{
			Severity: hcl.DiagError,
			Summary:  "Setting " + map[Action]string{Unsupported: "not possible on this host", Unreadable: "cannot be read"}[c.Action],
			Detail:   fmt.Sprintf("%v.", c.Err),
			Subject:  c.Range.Ptr(),
		})
	}
	return diags
}

// apply is one run.
type apply struct {
	e *Engine
	j *journal
	r *Report
	p *Plan
	o ApplyOptions
	// opened says that the generation is in the journal.
	opened bool
	// policies are those of what is pending, by key.
	policies map[string]RebootPolicy
}

// errStop ends a run whose reason is in the report already.
var errStop = errors.New("stopped")

func (a *apply) run(ctx context.Context, ws []Wanted) error {
	// What is no longer wanted goes first, as a rollback would do it: what
	// comes may need its room (a name, an address, a limit).
	err := a.group(ctx, a.p.Restores)
	asked := make(map[string]*Value, len(ws))
	for rest := ws; len(rest) > 0; {
		n := 1
		for n < len(rest) && kindName(rest[n].Key()) == kindName(rest[0].Key()) {
			n++
		}
		group := rest[:n]
		rest = rest[n:]
		if err != nil {
			for _, w := range group {
				a.r.NotTried = append(a.r.NotTried, w.Key())
			}
			continue
		}
		// Read again: an earlier kind may have changed what this one sees.
		h := a.j.history()
		cs := make([]Change, len(group))
		for i := range group {
			cs[i] = a.e.examine(ctx, &group[i], h, a.o.Phase)
			if c := &cs[i]; c.Action == None || c.due() {
				asked[c.Key] = &c.Want
			}
		}
		if err = a.group(ctx, cs); err == nil && a.e.Kinds[cs[0].rank].Entangled {
			err = a.lookAgain(ctx, group, cs)
		}
	}
	if err == nil {
		err = a.open(asked)
	}
	switch {
	case err == nil:
		return nil
	case errors.Is(err, errStop) && interrupted(ctx):
		return fmt.Errorf("apply: %w", context.Cause(ctx))
	case errors.Is(err, errStop):
		f := a.r.Failed[len(a.r.Failed)-1]
		return fmt.Errorf("%s: %s", f.Key, f.Error)
	}
	return err
}

// open puts the generation into the journal, if nothing has yet, and once more where
// something else was asked for than was planned: what an earlier kind has loaded or put
// back shows in a live value that at_least keeps.
func (a *apply) open(asked map[string]*Value) error {
	planned := a.p.head
	if planned == nil {
		return nil
	}
	for key, v := range asked {
		if p := planned.Asked[key]; p == nil || *p != *v {
			head := *planned
			head.Asked = maps.Clone(planned.Asked)
			maps.Copy(head.Asked, asked)
			a.p.head, a.opened = &head, false
			break
		}
	}
	err := a.j.append(a.head()...)
	a.opened = a.opened || err == nil
	return err
}

func (a *apply) head() []record {
	if a.opened || a.p.head == nil {
		return nil
	}
	head := *a.p.head
	if head.Time == nil {
		t := a.e.now()
		head.Time, head.Profile, head.Digest = &t, a.r.Profile, a.r.Digest
	}
	return []record{head}
}

// group journals what is due in one go, and then does it. Its error means that
// the run must end here; all of the group is in the report then.
func (a *apply) group(ctx context.Context, cs []Change) (err error) {
	at := 0
	defer func() {
		for _, c := range cs[at:] {
			if !c.release {
				a.r.NotTried = append(a.r.NotTried, c.Key)
			}
		}
	}()
	records := a.head()
	head := len(records) > 0
	for i := range cs {
		if c := &cs[i]; c.due() {
			records = append(records, record{
				Type: recChange, Gen: a.p.Generation, Boot: a.j.boot, Key: c.Key,
				Before: &c.Live, Want: &c.Want, Lifetime: c.Lifetime, Restore: c.Action == Restore,
			})
		}
		if cs[i].fatal() {
			break
		}
	}
	if len(records) > 0 && interrupted(ctx) {
		return errStop
	}
	// A generation alone can wait for the end.
	if !head || len(records) > 1 {
		if err := a.j.append(records...); err != nil {
			return err
		}
		a.opened = a.opened || head
	}

	var after []record // that keys were let go of, or refused
	defer func() {
		// The failed setting of an errStop is in the report already.
		if jerr := a.j.append(after...); jerr != nil {
			err = jerr
		}
	}()
	for ; at < len(cs); at++ {
		c := &cs[at]
		if c.due() && interrupted(ctx) {
			return errStop
		}
		o := Outcome{Key: c.Key, Action: c.Action, Before: c.Live, Want: c.Want, Live: c.Live, Note: c.Note}
		err := c.Err
		if c.due() {
			o.Live, err = a.e.write(ctx, c)
		}
		let := record{Type: recReleased, Gen: a.p.Generation, Boot: a.j.boot, Key: c.Key}
		list := &a.r.Unchanged
		switch {
		case c.Action == Deferred, c.Action == AtBoot:
			list = &a.r.Deferred
		case c.due() && err != nil && c.class() != Fail && a.e.gone(c.device):
			o.Action, o.Live, o.Note = None, Value{Absent: true}, "the device went meanwhile, and its value with it"
		case c.Action == Restore && err != nil && c.Inexact != "":
			// It cannot be had back, so it is as good as let go of.
			o.Inexact, o.Note = c.Inexact, err.Error()
			list, after = &a.r.Inexact, append(after, let)
		case err == nil && c.release:
			after = append(after, let)
			continue
		case err == nil && c.Action == Restore:
			list, after = &a.r.Applied, append(after, let)
		case err == nil && c.due():
			list = &a.r.Applied
		case err == nil:
		case c.class() == Tolerate && c.due():
			var rs []record
			if rs, err = a.refused(ctx, c, &o, err); err != nil {
				o.Error, o.Class = err.Error(), Warn
				list = &a.r.Failed
				break
			}
			list, after = &a.r.Tolerated, append(after, rs...)
		case c.class() == Tolerate:
			o.Error, o.Class = err.Error(), Tolerate
			list = &a.r.Tolerated
		default:
			o.Error, o.Class = err.Error(), c.class()
			list = &a.r.Failed
		}
		*list = append(*list, o)
		if list != &a.r.Unchanged {
			a.progress(o)
		}
		if list == &a.r.Applied || list == &a.r.Unchanged {
			a.pending(ctx, c)
		}
		if o.Class == Fail {
			at++
			return errStop
		}
	}
	return nil
}

// lookAgain writes once more what has lost its value to a later setting of its kind:
// net.ipv4.ip_forward writes net.ipv4.conf.all.accept_redirects, and others. What then
// loses it again cannot be had together. cs are the group's changes, which are done.
func (a *apply) lookAgain(ctx context.Context, group []Wanted, cs []Change) error {
	if !slices.ContainsFunc(cs, func(c Change) bool { return c.due() }) {
		return nil
	}
	lost := func() []Change {
		had := make(map[string]bool)
		for _, l := range []*[]Outcome{&a.r.Applied, &a.r.Unchanged} {
			for _, o := range *l {
				had[o.Key] = true
			}
		}
		h := a.j.history()
		var lost []Change
		for i := range group {
			if !had[cs[i].Key] {
				continue
			}
			c := a.e.examine(ctx, &group[i], h, a.o.Phase)
			if c.due() {
				c.Note = "another setting of this profile changed it in between"
				lost = append(lost, c)
			}
		}
		for _, l := range []*[]Outcome{&a.r.Applied, &a.r.Unchanged} {
			*l = slices.DeleteFunc(*l, func(o Outcome) bool {
				i := slices.IndexFunc(lost, func(c Change) bool { return c.Key == o.Key })
				if i >= 0 {
					lost[i].Live = o.Before // what a rollback is to lead to
				}
				return i >= 0
			})
		}
		return lost
	}
	again := lost()
	if len(again) == 0 {
		return nil
	}
	if err := a.group(ctx, again); err != nil {
		return err
	}
	var err error
	for _, c := range lost() {
		o := Outcome{
			Key: c.Key, Action: c.Action, Before: c.Live, Want: c.Want, Class: c.class(),
			Error: "another setting of this profile keeps changing it: the kernel cannot have both (take one of the two out)",
		}
		o.Live, _ = c.setting.Read(ctx, a.e.Host) // it was read a moment ago
		a.r.Failed = append(a.r.Failed, o)
		a.progress(o)
		if o.Class == Fail {
			err = errStop
		}
	}
	return err
}

// refused is what becomes of a tolerated setting that the host did not take: what
// the kernel made of the value stays, and after a failed write it gets what it would
// have without nodeprov, so that the end state depends on this profile only. The
// error is that of a value that cannot be put back.
func (a *apply) refused(ctx context.Context, c *Change, o *Outcome, why error) ([]record, error) {
	var rs []record
	var other *otherValueError
	if !errors.As(why, &other) {
		live, err := c.setting.Read(context.WithoutCancel(ctx), a.e.Host)
		if err == nil && !same(c.setting, live, c.before) {
			live, err = a.e.write(ctx, &Change{Key: c.Key, Live: live, Want: c.before, setting: c.setting})
		}
		o.Live = live
		if err != nil && c.Inexact == "" {
			return nil, fmt.Errorf("%w; and what was there before nodeprov, %s, is not put back: %w", why, c.before, err)
		}
		rs = append(rs, record{Type: recReleased, Gen: a.p.Generation, Boot: a.j.boot, Key: c.Key})
	}
	o.Error, o.Class = why.Error(), Tolerate
	live, want := o.Live, c.Want
	return append(rs, record{Type: recRefused, Gen: a.p.Generation, Boot: a.j.boot, Key: c.Key, Before: &live, Want: &want, Why: why.Error()}), nil
}

// dropGone takes outcomes of network devices that have gone out of a report: a node's
// pods have another one each, for ever.
func (e *Engine) dropGone(r *Report) {
	devices, err := e.devices()
	if err != nil {
		return // the next run for a device does it
	}
	for _, l := range r.lists() {
		*l = slices.DeleteFunc(*l, func(o Outcome) bool {
			s, _ := e.reopen(o.Key)
			d := deviceOf(s)
			return d != "" && !slices.Contains(devices, d)
		})
	}
}

// gone tells whether there is no such network device any more; empty is none.
func (e *Engine) gone(device string) bool {
	if device == "" {
		return false
	}
	devices, err := e.devices()
	return err == nil && !slices.Contains(devices, device)
}

// pending notes what of a setting that has its value holds after a reboot only.
func (a *apply) pending(ctx context.Context, c *Change) {
	if c.want == nil {
		if c.Pending != "" {
			a.r.Pending = append(a.r.Pending, Pending{c.Key, c.Pending})
		}
		return
	}
	has := *c
	has.Action = None
	if why := a.e.pending(ctx, &has); why != "" {
		a.r.Pending = append(a.r.Pending, Pending{c.Key, why})
		if a.policies == nil {
			a.policies = make(map[string]RebootPolicy)
		}
		a.policies[c.Key] = c.want.Reboot
	}
}

func (a *apply) progress(o Outcome) {
	if a.o.Progress != nil {
		a.o.Progress(o)
	}
}

// class says what the change's failure means. What is only put back does not
// stop what is wanted.
func (c *Change) class() Class {
	if c.want == nil {
		return Warn
	}
	return c.want.OnError
}

// fatal tells whether the change is known to stop the run.
func (c *Change) fatal() bool { return c.Err != nil && c.class() == Fail }

// write makes one change and reads it back. The value that it returns is the
// live one, whether or not there is an error.
func (e *Engine) write(ctx context.Context, c *Change) (Value, error) {
	// Once begun, a setting is brought to its end: half a setting could not be
	// told from a broken one.
	ctx = context.WithoutCancel(ctx)
	werr := c.setting.Write(ctx, e.Host, c.Want)
	live, err := c.setting.Read(ctx, e.Host)
	switch {
	case err != nil:
		return c.Live, errors.Join(werr, fmt.Errorf("read back: %w (the value now is not known)", err))
	case werr != nil:
		return live, fmt.Errorf("%w (it has %s now)", werr, live)
	case !same(c.setting, live, c.Want):
		return live, &otherValueError{live, c.Want}
	}
	return live, nil
}

// otherValueError is a write that succeeded, and left another value.
type otherValueError struct{ live, want Value }

func (e *otherValueError) Error() string {
	return fmt.Sprintf("has %s after %s was written (clamped or ignored by the kernel, or set by something else at the same moment; ask for a value that it takes)", e.live, e.want)
}

// finish says how a run ended that has all its settings in the report.
func (r *Report) finish(ctx context.Context, err error) {
	switch {
	case err != nil && interrupted(ctx) && errors.Is(err, context.Cause(ctx)):
		r.Result = Cancelled
	case err != nil:
		r.Result = Failed
	case len(r.Failed) > 0:
		r.Result = Partial
	default:
		r.Result = Complete
	}
	if err != nil && !slices.ContainsFunc(r.Failed, func(o Outcome) bool { return o.Key+": "+o.Error == err.Error() }) {
		r.Error = err.Error()
	}
}
