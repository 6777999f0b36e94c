package provision

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"time"

	"github.com/nodeprov/nodeprov/provision/profile"
)

// Try is an apply that is reverted unless it is confirmed. It is in STATE/try.json from
// before its first write until it is confirmed, or until another profile is applied
// after it was reverted: at boot, the same text is not applied again.
type Try struct {
	Format int `json:"format"` // 1
	// Boot is the one it was applied in.
	Boot string `json:"boot"`
	// Before is the generation to go back to, Generation its own.
	Before     int `json:"before"`
	Generation int `json:"generation"`
	// Deadline is when it is reverted.
	Deadline time.Time `json:"deadline"`
	// Profile names the profile, Digest is the Digest of its sources, and Texts are those
	// of each.
	Profile string   `json:"profile"`
	Digest  string   `json:"sha256"`
	Texts   []string `json:"texts"`
	// Reverted says why it was reverted; empty where it waits.
	Reverted string `json:"reverted,omitempty"`
}

// Of tells whether it was these sources that were tried. Some may be missing: the
// early phase does not read all files.
func (t *Try) Of(sources []profile.Source) bool {
	for i, s := range sources {
		d := Digest(s)
		if !slices.Contains(t.Texts, d) || i == 0 && t.Texts[0] != d {
			return false
		}
	}
	return len(sources) > 0
}

// TryTimer has a command run later, whatever becomes of this process.
type TryTimer interface {
	// Ready says why there can be no timer.
	Ready(context.Context) error
	// Start has ExpireTry called after that time.
	Start(ctx context.Context, after time.Duration, before int) error
	// Stop takes it back; that there is none is no error.
	Stop(context.Context) error
}

const tryFile = "try.json"

// minTry is long enough for a person to look.
const minTry = time.Second

// Trying returns what was tried last: it waits to be confirmed, or was reverted. Nil
// where nothing is to be known.
func (e *Engine) Trying() (*Try, error) {
	b, err := os.ReadFile(e.file(tryFile))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	var t Try
	if err == nil {
		err = json.Unmarshal(b, &t)
	}
	if err == nil && t.Format != 1 {
		err = errors.New("not in a form that this version knows")
	}
	if err != nil {
		return nil, fmt.Errorf("try: %s: %w (roll back by hand, `nodeprov rollback --to GENERATION`, and remove the file)", e.file(tryFile), err)
	}
	return &t, nil
}

func (e *Engine) saveTry(t *Try) error {
	b, err := json.MarshalIndent(t, "", "  ")
	if err == nil {
		err = writeState(e.file(tryFile), append(b, '\n'))
	}
	if err != nil {
		return fmt.Errorf("try: %w (make room or make %s writable)", err, e.State)
	}
	return nil
}

// forgetTry removes what is known of a try, if anything is.
func (e *Engine) forgetTry() error {
	err := os.Remove(e.file(tryFile))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err == nil {
		err = syncDir(e.State)
	}
	if err != nil {
		return fmt.Errorf("try: %w (make %s writable)", err, e.State)
	}
	return nil
}

// untried refuses an apply while another one waits to be confirmed: going back would
// undo both.
func (e *Engine) untried(j *journal, failOpen bool) error {
	t, err := e.Trying()
	switch {
	case err != nil:
		return err
	case t == nil || t.Reverted != "":
		return nil
	case t.Boot != j.boot && failOpen:
		return nil // it could not be reverted yet, and the machine must come up
	case t.Boot != j.boot:
		return fmt.Errorf("%s was tried before the machine rebooted, and never confirmed (run `nodeprov rollback --to %d`, then apply again)", t.Profile, t.Before)
	}
	return fmt.Errorf("%s is being tried until %s (run `nodeprov confirm` to keep it, or `nodeprov rollback --to %d`; then apply again)",
		t.Profile, t.Deadline.Format(time.RFC3339), t.Before)
}

// try has the apply reverted later. The timer comes first: without the file it does
// nothing, while the file without it would never be reverted.
func (e *Engine) try(ctx context.Context, j *journal, r *Report, o ApplyOptions) (*Try, error) {
	refuse := func(err error) (*Try, error) {
		return nil, fmt.Errorf("try: %w; nothing was changed", err)
	}
	switch {
	case e.Timer == nil:
		return refuse(errors.New("nothing could revert it here"))
	case o.Try < minTry:
		return refuse(fmt.Errorf("%s is too short (%s at least)", o.Try, minTry))
	case o.Phase != PhaseAll:
		return refuse(fmt.Errorf("phase %s cannot be tried", o.Phase))
	}
	if err := e.Timer.Ready(ctx); err != nil {
		return refuse(fmt.Errorf("nothing could revert it here: %w", err))
	}
	t := &Try{
		Format: 1, Boot: j.boot, Before: j.current().Gen, Generation: r.Generation, Deadline: e.now().Add(o.Try),
		Profile: r.Profile, Digest: r.Digest,
	}
	for _, s := range o.sources() {
		t.Texts = append(t.Texts, Digest(s))
	}
	if err := e.Timer.Start(ctx, o.Try, t.Before); err != nil {
		return refuse(err)
	}
	if err := e.saveTry(t); err != nil {
		return refuse(errors.Join(err, e.Timer.Stop(context.WithoutCancel(ctx))))
	}
	return t, nil
}

// Confirm keeps what was tried, for good, and returns it.
func (e *Engine) Confirm(ctx context.Context) (*Try, error) {
	release, err := e.lock(ctx)
	if err != nil {
		return nil, err
	}
	defer release()
	boot, err := e.boot()
	if err != nil {
		return nil, err
	}
	t, err := e.Trying()
	if err != nil {
		return nil, err
	}
	r, rerr := e.LastReport()
	switch {
	case t == nil:
		return nil, errors.New("confirm: nothing is being tried (it was confirmed already, or `nodeprov apply --try` had nothing to change)")
	case t.Reverted != "":
		return nil, fmt.Errorf("confirm: too late: %s was reverted, as it was %s (apply it again)", t.Profile, t.Reverted)
	case t.Boot != boot:
		return nil, fmt.Errorf("confirm: too late: the machine has rebooted since %s was tried (apply it again)", t.Profile)
	case rerr != nil:
		return nil, rerr
	case r == nil || r.Operation != "apply" || r.Generation != t.Generation || r.Result != Complete && r.Result != Partial:
		return nil, fmt.Errorf("confirm: the apply of %s did not end well, so there is nothing to keep (see `nodeprov status`; it is reverted at %s)", t.Profile, t.Deadline.Format(time.RFC3339))
	}
	// First what is good, then that it needs no confirmation: in between, a crash
	// reverts it, and the boot after it applies it again.
	if r.Result == Complete {
		k, err := e.Applied()
		if err == nil && Digest(k.Sources...) == t.Digest {
			err = e.keep(lastGoodFile, *k)
		}
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return nil, fmt.Errorf("confirm: %w", err)
		}
	}
	if err := e.forgetTry(); err != nil {
		return nil, fmt.Errorf("confirm: %w", err)
	}
	if e.Timer != nil {
		// Without the file, it does nothing when it fires.
		_ = e.Timer.Stop(ctx)
	}
	r.Try = nil
	return t, e.saveReport(r, false)
}

// ExpireTry reverts what was tried from generation before on, unless it was confirmed
// or reverted: then there is nothing to do, and the report is nil.
func (e *Engine) ExpireTry(ctx context.Context, before int, progress func(Outcome)) (*Report, error) {
	return e.revert(ctx, "tried, and not confirmed in time", progress, func(t *Try, boot string) bool {
		return t.Boot == boot && t.Before == before
	})
}

// RecoverTry reverts what an earlier boot has tried and never confirmed; of that,
// only files are left. The report is nil where there is none. It is called at boot,
// before the profile is applied.
func (e *Engine) RecoverTry(ctx context.Context, progress func(Outcome)) (*Report, error) {
	return e.revert(ctx, "tried, and never confirmed before the machine rebooted", progress, func(t *Try, boot string) bool {
		return t.Boot != boot
	})
}

func (e *Engine) revert(ctx context.Context, why string, progress func(Outcome), is func(t *Try, boot string) bool) (*Report, error) {
	// Nearly always there is nothing to wait for.
	if t, err := e.Trying(); err != nil || t == nil || t.Reverted != "" {
		return nil, err
	}
	release, err := e.lock(ctx)
	if err != nil {
		return nil, err
	}
	defer release()
	j, err := e.openJournal()
	if err != nil {
		return nil, err
	}
	t, err := e.Trying()
	if err != nil || t == nil || t.Reverted != "" || !is(t, j.boot) {
		return nil, err
	}
	r, err := e.rollback(ctx, j, min(t.Before, j.current().Gen), why, progress)
	if err != nil {
		return r, err
	}
	t.Reverted = why
	return r, e.saveTry(t)
}
