package provision

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"time"

	"github.com/zclconf/go-cty/cty"
	ctyjson "github.com/zclconf/go-cty/cty/json"

	"github.com/nodeprov/nodeprov/provision/profile"
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
	Error  string `json:"error,omitempty"`
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
	// Error is why it stopped, where that is not one setting's failure.
	Error string `json:"error,omitempty"`
	// Every setting is in exactly one of these.
	Applied   []Outcome `json:"applied"`
	Unchanged []Outcome `json:"unchanged"`
	Failed    []Outcome `json:"failed"`
	Deferred  []Outcome `json:"deferred"`
	NotTried  []string  `json:"not_tried"`
}

func (e *Engine) newReport(op string, boot string) *Report {
	return &Report{
		Format: 1, Operation: op, Result: Running, Boot: boot, Started: e.now(),
		Applied: []Outcome{}, Unchanged: []Outcome{}, Failed: []Outcome{}, Deferred: []Outcome{}, NotTried: []string{},
	}
}

func (e *Engine) saveReport(r *Report) error {
	b, err := json.MarshalIndent(r, "", "  ")
	if err != nil {
		return fmt.Errorf("report: %w", err)
	}
	if err := writeState(e.file("report.json"), append(b, '\n')); err != nil {
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
	var r Report
	if err := json.Unmarshal(b, &r); err != nil {
		return nil, fmt.Errorf("report %s: %w (the next apply or rollback writes a new one)", e.file("report.json"), err)
	}
	return &r, nil
}

// assignmentJSON is a profile.Assignment in STATE/last-good.vars.json.
type assignmentJSON struct {
	Name  string                   `json:"name"`
	Text  string                   `json:"text,omitempty"`
	Value *ctyjson.SimpleJSONValue `json:"value,omitempty"`
	Type  json.RawMessage          `json:"type,omitempty"`
	From  string                   `json:"from"`
}

// saveLastGood keeps a profile that was applied completely, with the variables
// that it was applied with. The variables go first: they are lenient, so the
// older profile still takes them after a crash in between.
func (e *Engine) saveLastGood(src profile.Source, vars []profile.Assignment) error {
	as := []assignmentJSON{}
	for _, v := range vars {
		a := assignmentJSON{Name: v.Name, Text: v.Text, From: v.From}
		if v.Value != cty.NilVal {
			t, err := ctyjson.MarshalType(v.Value.Type())
			if err != nil {
				return fmt.Errorf("last good profile: variable %s: %w", v.Name, err)
			}
			a.Value, a.Type = &ctyjson.SimpleJSONValue{Value: v.Value}, t
		}
		as = append(as, a)
	}
	b, err := json.MarshalIndent(as, "", "  ")
	if err != nil {
		return fmt.Errorf("last good profile: variables: %w", err)
	}
	for _, f := range []struct {
		name string
		text []byte
	}{{"last-good.vars.json", append(b, '\n')}, {"last-good.hcl", src.Text}} {
		if old, err := os.ReadFile(e.file(f.name)); err == nil && string(old) == string(f.text) {
			continue
		}
		if err := writeState(e.file(f.name), f.text); err != nil {
			return fmt.Errorf("last good profile: %w (make room or make %s writable)", err, e.State)
		}
	}
	return nil
}

// LastGood returns the profile that was last applied completely, and its
// variables. The error is fs.ErrNotExist where there is none.
func (e *Engine) LastGood() (profile.Source, []profile.Assignment, error) {
	src := profile.Source{Name: e.file("last-good.hcl")}
	text, err := os.ReadFile(src.Name)
	if err != nil {
		return src, nil, fmt.Errorf("last good profile: %w", err)
	}
	src.Text = text
	b, err := os.ReadFile(e.file("last-good.vars.json"))
	if err != nil {
		return src, nil, fmt.Errorf("last good profile: variables: %w", err)
	}
	var raw []struct {
		Name, Text, From string
		Value, Type      json.RawMessage
	}
	if err := json.Unmarshal(b, &raw); err != nil {
		return src, nil, fmt.Errorf("last good profile: variables: %w", err)
	}
	var vars []profile.Assignment
	for _, a := range raw {
		v := profile.Assignment{Name: a.Name, Text: a.Text, From: a.From, Lenient: true}
		if a.Type != nil {
			t, err := ctyjson.UnmarshalType(a.Type)
			if err == nil {
				v.Value, err = ctyjson.Unmarshal(a.Value, t)
			}
			if err != nil {
				return src, nil, fmt.Errorf("last good profile: variable %s: %w", a.Name, err)
			}
		}
		vars = append(vars, v)
	}
	return src, vars, nil
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
	return e.saveReport(r)
}
