package provision

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/hashicorp/hcl/v2"

	"github.com/nodeprov/nodeprov/provision/profile"
)

// ApplyOptions say what an apply is of.
type ApplyOptions struct {
	Phase Phase
	// Source and Vars are what the settings were made from. After a complete
	// apply of PhaseAll they are kept as the last good profile.
	Source profile.Source
	Vars   []profile.Assignment
	// Degraded says why Source is the last good profile and not the newest;
	// empty when it is the newest.
	Degraded string
	// FailOpen goes on where this host cannot have a setting of class Warn: the
	// machine boots with the rest, and the report tells. Otherwise nothing is
	// written then.
	FailOpen bool
	// Progress is called after each setting that was written, failed or was
	// deferred. May be nil.
	Progress func(Outcome)
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
	j, err := e.openJournal()
	if err != nil {
		return nil, nil, err
	}
	p, diags, err := e.plan(ctx, j, ws, o.Phase, false)
	if err != nil {
		return nil, nil, err
	}
	diags = append(diags, e.hopeless(p, o.FailOpen)...)
	if diags.HasErrors() {
		return nil, diags, nil
	}
	if err := j.compact(); err != nil {
		return nil, diags, err
	}

	r := e.newReport("apply", j.boot)
	r.Phase, r.Profile, r.Digest, r.Degraded = o.Phase, o.Source.Name, Digest(o.Source.Text), o.Degraded
	r.Generation = p.Generation
	a := &apply{e: e, j: j, r: r, p: p, o: o}
	if p.Summary().Due() > 0 {
		// Besides telling of a crash, this finds a disk that is full or
		// read-only before anything is written to the machine.
		if err := e.saveReport(r); err != nil {
			return nil, diags, err
		}
	}
	err = a.run(ctx, ws)
	r.finish(ctx, err)
	r.Finished = e.now()
	if r.Result == Complete && o.Phase == PhaseAll && o.Degraded == "" && o.Source.Text != nil {
		err = errors.Join(err, e.saveLastGood(o.Source, o.Vars))
	}
	return r, diags, errors.Join(err, e.saveReport(r))
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
		if c.Err == nil || failOpen && !c.fatal() || errors.As(c.Err, &bad) || c.Action == Unsupported && e.rank(c.Key) > firstDue {
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
}

// errStop ends a run whose reason is in the report already.
var errStop = errors.New("stopped")

func (a *apply) run(ctx context.Context, ws []Wanted) error {
	// What is no longer wanted goes first, as a rollback would do it: what
	// comes may need its room (a name, an address, a limit).
	err := a.group(ctx, a.p.Restores)
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
		chains, _ := a.j.chains()
		cs := make([]Change, len(group))
		for i := range group {
			cs[i] = a.e.examine(ctx, &group[i], chains, a.o.Phase)
		}
		err = a.group(ctx, cs)
	}
	if err == nil {
		err = a.open()
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

// open puts the generation into the journal, if nothing has yet.
func (a *apply) open() error {
	err := a.j.append(a.head()...)
	a.opened = a.opened || err == nil
	return err
}

func (a *apply) head() []record {
	if a.opened || !a.p.New {
		return nil
	}
	t := a.e.now()
	return []record{{Type: recGeneration, Gen: a.p.Generation, Boot: a.j.boot, Asked: a.p.asked, Phase: a.p.Phase, Time: &t}}
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

	var released []record
	defer func() {
		// The failed setting of an errStop is in the report already.
		if jerr := a.j.append(released...); jerr != nil {
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
		switch {
		case c.Action == Deferred:
			a.r.Deferred = append(a.r.Deferred, o)
			a.progress(o)
			continue
		case c.due():
			o.Live, err = a.e.write(ctx, c)
		}
		if err == nil && (c.Action == Restore || c.release) {
			released = append(released, record{Type: recReleased, Gen: a.p.Generation, Boot: a.j.boot, Key: c.Key})
		}
		switch {
		case err != nil:
			o.Error, o.Class = err.Error(), c.class()
			a.r.Failed = append(a.r.Failed, o)
			a.progress(o)
			if o.Class == Fail {
				at++
				return errStop
			}
		case c.due():
			a.r.Applied = append(a.r.Applied, o)
			a.progress(o)
		case !c.release:
			a.r.Unchanged = append(a.r.Unchanged, o)
		}
	}
	return nil
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
		return live, fmt.Errorf("has %s after %s was written (clamped or ignored by the kernel, or set by something else at the same moment; ask for a value that it takes)", live, c.Want)
	}
	return live, nil
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
