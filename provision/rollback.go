package provision

import (
	"context"
	"errors"
	"fmt"
	"slices"
)

// RollbackOptions say how far to go back.
type RollbackOptions struct {
	// To is the generation to have in force afterwards: 0 is the machine
	// without nodeprov. nil undoes the last generation.
	To *int
	// Progress is called after each key that was restored or failed. May be
	// nil.
	Progress func(Outcome)
}

// Rollback restores, byte for byte, what the generations after o.To have
// overwritten. It may be killed and repeated. A key that fails does not keep
// the others from being restored; only when none has failed are the generations
// gone, and the error is nil. What was journaled in an older boot for a value
// that reboots reset is not restored. What ends with another value, because going
// back is not exact there (Inexacter), is in the report's Inexact, and no failure.
func (e *Engine) Rollback(ctx context.Context, o RollbackOptions) (*Report, error) {
	release, err := e.lock(ctx)
	if err != nil {
		return nil, err
	}
	defer release()
	j, err := e.openJournal()
	if err != nil {
		return nil, err
	}
	gens := j.generations()
	cur, to := j.current().Gen, 0
	switch {
	case o.To != nil && (*o.To < 0 || *o.To > cur):
		return nil, fmt.Errorf("rollback: there is no generation %d (the last one is %d; 0 is the machine without nodeprov)", *o.To, cur)
	case o.To != nil:
		to = *o.To
	case len(gens) > 1:
		to = gens[len(gens)-2].Gen
	}
	r, err := e.rollback(ctx, j, to, "", o.Progress)
	if err != nil {
		return r, err
	}
	// What was only tried needs no reverting any more.
	if t, terr := e.Trying(); terr == nil && t != nil && t.Reverted == "" && to <= t.Before {
		if err := e.forgetTry(); err != nil {
			return r, err
		}
		if e.Timer != nil && t.Boot == j.boot {
			_ = e.Timer.Stop(ctx) // it would find nothing to do
		}
	}
	return r, nil
}

// rollback goes back to a generation; why is the Report's. The lock is held.
func (e *Engine) rollback(ctx context.Context, j *journal, to int, why string, progress func(Outcome)) (*Report, error) {
	cur := j.current().Gen
	if err := j.compact(); err != nil {
		return nil, err
	}
	r := e.newReport("rollback", j.boot)
	r.Generation, r.Why = cur, why
	undoes := j.undoes(to)
	if to == cur && len(undoes) == 0 {
		r.Result, r.Finished = Complete, e.now()
		return r, nil
	}
	// So that a crash shows, and nodeprov-watch does not heal what is put back here. A
	// disk that is full must not keep anything from being restored.
	_ = e.saveReport(r, false)
	err := e.undo(ctx, j, r, undoes, to, progress)
	if err == nil && len(r.Failed) == 0 {
		err = j.append(record{Type: recRollback, Gen: to, Boot: j.boot})
	}
	if err == nil && len(r.Failed) == 0 {
		r.Generation = to
	}
	if n := len(r.Failed); n > 0 {
		err = errors.Join(err, fmt.Errorf("rollback: %d of %d settings not restored (repeat it when the cause is gone)", n, len(undoes)))
	}
	if to == 0 {
		err = errors.Join(err, e.unstamp())
	}
	r.finish(ctx, err)
	r.Finished = e.now()
	return r, errors.Join(err, e.saveReport(r, false))
}

func (e *Engine) undo(ctx context.Context, j *journal, r *Report, us []undo, to int, progress func(Outcome)) (err error) {
	byKey := make(map[string]undo, len(us))
	keys := make([]string, len(us))
	for i, u := range us {
		byKey[u.key], keys[i] = u, u.key
	}
	keys = e.backwards(keys)

	for rest := keys; len(rest) > 0; {
		n := 1
		for n < len(rest) && kindName(rest[n]) == kindName(rest[0]) {
			n++
		}
		group := rest[:n]
		rest = rest[n:]
		os := make([]Outcome, 0, n)
		for _, key := range group {
			if interrupted(ctx) {
				break
			}
			o := e.undoOne(ctx, byKey[key])
			os = append(os, o)
			if progress != nil && (o.Action != None || o.Error != "") {
				progress(o)
			}
		}
		if k := e.lookup(group[0]); k != nil && k.Entangled {
			e.undoAgain(ctx, byKey, os)
		}
		// Marks are joined into one append a kind. They come after the values: a crash
		// before them only makes the next rollback look again. A journal that cannot be
		// written must not keep values from being restored.
		err = errors.Join(err, j.append(r.undone(os, to, j.boot)...))
		if left := slices.Concat(group[len(os):], rest); len(left) > 0 && interrupted(ctx) {
			r.NotTried = append(r.NotTried, left...)
			return errors.Join(err, fmt.Errorf("rollback: %w", context.Cause(ctx)))
		}
	}
	return err
}

// undoAgain restores once more what has lost its value to one that was restored later,
// as settings of a kind may change each other. os are the outcomes of the kind's.
func (e *Engine) undoAgain(ctx context.Context, us map[string]undo, os []Outcome) {
	if !slices.ContainsFunc(os, func(o Outcome) bool { return o.Action != None }) {
		return
	}
	for i := range os {
		was := &os[i]
		if was.Error != "" || was.Inexact != "" {
			continue
		}
		if o := e.undoOne(ctx, us[was.Key]); o.Action != None || o.Error != "" {
			o.Before, o.Note = was.Before, was.Note
			*was = o
		}
	}
}

// undone puts outcomes into the report, and returns the marks of those that are restored.
func (r *Report) undone(os []Outcome, to int, boot string) []record {
	var marks []record
	for _, o := range os {
		list := &r.Applied
		switch {
		case o.Error != "":
			list = &r.Failed
		case o.Inexact != "":
			list = &r.Inexact
		case o.Action == None:
			list = &r.Unchanged
		}
		*list = append(*list, o)
		if o.Error == "" {
			marks = append(marks, record{Type: recUndo, Gen: to, Boot: boot, Key: o.Key})
		}
	}
	return marks
}

func (e *Engine) undoOne(ctx context.Context, u undo) Outcome {
	o := Outcome{Key: u.key, Action: Restore, Want: u.target}
	fail := func(err error) Outcome {
		o.Error, o.Class = err.Error(), Warn
		return o
	}
	s, err := e.reopen(u.key)
	if err != nil {
		return fail(err)
	}
	o.Before, err = s.Read(ctx, e.Host)
	if err != nil {
		return fail(err)
	}
	o.Live = o.Before
	if same(s, o.Live, u.target) {
		o.Action = None
		return o
	}
	if k := e.lookup(u.key); o.Live.Absent && k.Lifetime == Runtime && !contains(u.wrote, o.Live) {
		// The device or the module went, and its values with it.
		o.Action, o.Note = None, "is no longer there, and its value with it"
		return o
	}
	if !contains(u.wrote, o.Before) {
		o.Note = fmt.Sprintf("had %s, not the %s that was applied: something else had set it since", o.Before, u.applied)
	}
	o.Live, err = e.write(ctx, &Change{Key: u.key, Live: o.Before, Want: u.target, Action: Restore, setting: s})
	if why := inexact(s, u.target, u.applied); err != nil && why != "" {
		o.Inexact, o.Note = why, err.Error()
		return o
	}
	if err != nil {
		return fail(err)
	}
	return o
}
