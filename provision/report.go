package provision

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"time"
)

// Result is how an apply or a rollback ended.
type Result string

const (
	// Running is in the report while the process works; where no process does,
	// it was killed.
	Running Result = "running"
	// Complete: everything is as wanted, and was read back.
	Complete Result = "complete"
	// Partial: settings whose failure is only a warning have failed.
	Partial Result = "partial"
	// Failed: stopped at a setting that must not fail, or could not go on.
	Failed Result = "failed"
	// Cancelled: stopped between two settings because it was asked to.
	Cancelled Result = "cancelled"
	// NoProfile: there was nothing to apply.
	NoProfile Result = "no profile"
	// Invalid: the profile was refused, and nothing was written.
	Invalid Result = "invalid"
)

// Outcome is what became of one setting.
type Outcome struct {
	Key    string `json:"key"`
	Action Action `json:"action"`
	// Before is what was there; Want is what should be; Live is what is there
	// now, read back.
	Before Value  `json:"before"`
	Want   Value  `json:"want"`
	Live   Value  `json:"live"`
	Note   string `json:"note,omitempty"`
	// Inexact says why what was put back has another value than before.
	Inexact string `json:"inexact,omitempty"`
	Error   string `json:"error,omitempty"`
	// Class is set with Error.
	Class Class `json:"class,omitempty"`
}

// Report is what an apply or a rollback did. STATE/report.json has the last
// one, in the same form.
type Report struct {
	// Format is 1.
	Format    int    `json:"format"`
	Operation string `json:"operation"` // "apply" or "rollback"
	Result    Result `json:"result"`
	Phase     Phase  `json:"phase,omitempty"`
	// Profile names the text that was applied, Digest is its SHA-256 in hex.
	Profile string `json:"profile,omitempty"`
	Digest  string `json:"sha256,omitempty"`
	// Generation is the one in force afterwards; 0 is the machine without
	// nodeprov.
	Generation int       `json:"generation"`
	Boot       string    `json:"boot"`
	Started    time.Time `json:"started"`
	Finished   time.Time `json:"finished,omitzero"`
	// Degraded says why the last good profile was applied in place of the
	// newest.
	Degraded string `json:"degraded,omitempty"`
	// Why says what a rollback was for, where nobody asked for it.
	Why string `json:"why,omitempty"`
	// Error is why it stopped, where that is not one setting's failure.
	Error string `json:"error,omitempty"`
	// Every setting is in exactly one of these. Tolerated are those that the host
	// cannot have, and the profile says that this is fine: their Error says why.
	// Inexact were put back, and have another value than before all the same.
	// Deferred are left to a later run, or to the boot of an image.
	Applied   []Outcome `json:"applied"`
	Unchanged []Outcome `json:"unchanged"`
	Tolerated []Outcome `json:"tolerated"`
	Inexact   []Outcome `json:"inexact"`
	Failed    []Outcome `json:"failed"`
	Deferred  []Outcome `json:"deferred"`
	NotTried  []string  `json:"not_tried"`
	// Pending are settings that hold only after a reboot; they are in another
	// list too.
	Pending []Pending `json:"pending"`
	// Reboot says what is done about them; nil where nothing is pending.
	Reboot *Reboot `json:"reboot,omitempty"`
	// Try is set where the apply is one that has to be confirmed.
	Try *Try `json:"try,omitempty"`
}

// lists are those that hold each setting once.
func (r *Report) lists() []*[]Outcome {
	return []*[]Outcome{&r.Applied, &r.Unchanged, &r.Tolerated, &r.Inexact, &r.Failed, &r.Deferred}
}

// merge puts the outcomes of a run for one device into the report of the whole
// apply, in place of those that the device had.
func (r *Report) merge(part *Report) {
	old := make(map[string]bool)
	for _, l := range part.lists() {
		for _, o := range *l {
			old[o.Key] = true
		}
	}
	for _, k := range part.NotTried {
		old[k] = true
	}
	parts := part.lists()
	for i, l := range r.lists() {
		*l = slices.DeleteFunc(*l, func(o Outcome) bool { return old[o.Key] })
		*l = append(*l, *parts[i]...)
	}
	r.NotTried = slices.DeleteFunc(r.NotTried, func(k string) bool { return old[k] })
	r.NotTried = append(r.NotTried, part.NotTried...)
	if r.Result == Complete || r.Result == Partial {
		r.Result = Complete
		if len(r.Failed)+len(r.NotTried) > 0 {
			r.Result = Partial
		}
	}
	r.Finished = part.Finished
}

func (e *Engine) newReport(op string, boot string) *Report {
	return &Report{
		Format: 1, Operation: op, Result: Running, Boot: boot, Started: e.now(),
		Applied: []Outcome{}, Unchanged: []Outcome{}, Failed: []Outcome{}, Deferred: []Outcome{}, NotTried: []string{},
		Tolerated: []Outcome{}, Inexact: []Outcome{}, Pending: []Pending{},
	}
}

// saveReport replaces the report, before it returns or, where nothing depends on it
// (lazily), whenever the system writes it out: an fsync is most of the time of an
// apply that has nothing to do.
func (e *Engine) saveReport(r *Report, lazily bool) error {
	b, err := json.MarshalIndent(r, "", "  ")
	if err != nil {
		return fmt.Errorf("report: %w", err)
	}
	b = append(b, '\n')
	if lazily {
		// The name is one that the sweep removes.
		tmp := e.file(".report.json0")
		// Half a report must not take the place of the last one.
		if err = os.WriteFile(tmp, b, 0o600); err == nil {
			err = os.Rename(tmp, e.file("report.json"))
		}
	} else {
		err = writeState(e.file("report.json"), b)
	}
	if err != nil {
		return fmt.Errorf("report: %w (make room or make %s writable)", err, e.State)
	}
	return nil
}

// LastReport returns the report of the last apply or rollback; nil when there
// was none.
func (e *Engine) LastReport() (*Report, error) {
	b, err := os.ReadFile(e.file("report.json"))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("report: %w (run as root, or give another --state-dir)", err)
	}
	if len(bytes.TrimSpace(b)) == 0 {
		return nil, nil // a crash met one that was saved lazily
	}
	var r Report
	if err := json.Unmarshal(b, &r); err != nil {
		return nil, fmt.Errorf("report %s: %w (the next apply or rollback writes a new one)", e.file("report.json"), err)
	}
	return &r, nil
}

// Refused records that no apply took place: NoProfile, or Invalid with why.
func (e *Engine) Refused(res Result, ph Phase, source, why string) error {
	boot, err := e.boot()
	if err != nil {
		return err
	}
	j, err := e.openJournal()
	if err != nil {
		return err
	}
	r := e.newReport("apply", boot)
	r.Result, r.Phase, r.Profile, r.Error = res, ph, source, why
	r.Generation, r.Finished = j.current().Gen, e.now()
	if err := os.MkdirAll(e.State, 0o700); err != nil {
		return fmt.Errorf("state directory: %w (run as root, or give another --state-dir)", err)
	}
	return e.saveReport(r, false)
}
