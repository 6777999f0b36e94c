package provision

import (
	"context"
	"encoding/json"

	"github.com/hashicorp/hcl/v2"
)

// Verification is the host compared with the profile.
type Verification struct {
	// Every wanted setting is in exactly one of these. Drifted are also those whose
	// value is as wanted and whose effect is not. Tolerated are those that this host
	// cannot have, and the profile says that this is fine; Failed are the others
	// that it cannot have, and those whose value cannot be told. Left are those that
	// only the booted machine has (with --root).
	OK, Drifted, Tolerated, Failed, Left []Change
	// Pending hold only after a reboot; they are in OK too.
	Pending []Pending
	// Checks are the commands that were run.
	Checks []CheckResult
}

// Good tells whether all is as the profile has it.
func (v *Verification) Good() bool {
	for _, c := range v.Checks {
		if !c.OK {
			return false
		}
	}
	return len(v.Drifted)+len(v.Failed) == 0
}

// Verify reads everything back and compares, and runs the checks. It writes
// nothing.
func (e *Engine) Verify(ctx context.Context, ws []Wanted, checks []Check) (*Verification, hcl.Diagnostics, error) {
	p, diags, err := e.Plan(ctx, ws, PhaseAll)
	if err != nil {
		return nil, diags, err
	}
	v := &Verification{Pending: pending(p.Changes)}
	for _, c := range p.Changes {
		switch {
		case c.Action == AtBoot:
			v.Left = append(v.Left, c)
		case c.Action == Tolerated:
			v.Tolerated = append(v.Tolerated, c)
		case c.Err != nil:
			v.Failed = append(v.Failed, c)
		case c.due():
			v.Drifted = append(v.Drifted, c)
		default:
			if s, ok := c.setting.(Verifier); ok && !e.offline() {
				c.Err = s.Verify(ctx, e.Host, c.Want)
			}
			if c.Err != nil {
				c.Action = Ineffective
				v.Drifted = append(v.Drifted, c)
				continue
			}
			v.OK = append(v.OK, c)
		}
	}
	if !diags.HasErrors() && !e.offline() {
		v.Checks, err = e.check(ctx, checks)
	}
	return v, diags, err
}

// MarshalJSON gives {"format": 1, "ok": [CHANGE], "drifted": [CHANGE],
// "tolerated": [CHANGE], "failed": [CHANGE], "at_boot": [CHANGE],
// "pending": [{"key", "reason"}], "checks": [CHECK]}, with the changes of a plan.
// A CHECK is {"name", "command": [TEXT], "ok": bool, "error", "output", "seconds"};
// the output is the end of what the command wrote.
func (v *Verification) MarshalJSON() ([]byte, error) {
	list := func(cs []Change) []changeJSON {
		out := []changeJSON{}
		for i := range cs {
			out = append(out, cs[i].json())
		}
		return out
	}
	checks := v.Checks
	if checks == nil {
		checks = []CheckResult{}
	}
	pending := v.Pending
	if pending == nil {
		pending = []Pending{}
	}
	return json.Marshal(struct {
		Format    int           `json:"format"`
		OK        []changeJSON  `json:"ok"`
		Drifted   []changeJSON  `json:"drifted"`
		Tolerated []changeJSON  `json:"tolerated"`
		Failed    []changeJSON  `json:"failed"`
		AtBoot    []changeJSON  `json:"at_boot"`
		Pending   []Pending     `json:"pending"`
		Checks    []CheckResult `json:"checks"`
	}{1, list(v.OK), list(v.Drifted), list(v.Tolerated), list(v.Failed), list(v.Left), pending, checks})
}
