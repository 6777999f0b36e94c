package provision

import (
	"context"
	"encoding/json"

	"github.com/hashicorp/hcl/v2"
)

// Verification is the host compared with the profile.
type Verification struct {
	// Every wanted setting is in exactly one of these. Failed are those whose
	// value cannot be told, or that this host cannot have.
	OK, Drifted, Failed []Change
}

// Verify reads everything back and compares. It writes nothing.
func (e *Engine) Verify(ctx context.Context, ws []Wanted) (*Verification, hcl.Diagnostics, error) {
	p, diags, err := e.Plan(ctx, ws, PhaseAll)
	if err != nil {
		return nil, diags, err
	}
	v := &Verification{}
	for _, c := range p.Changes {
		switch {
		case c.Err != nil:
			v.Failed = append(v.Failed, c)
		case c.due():
			v.Drifted = append(v.Drifted, c)
		default:
			v.OK = append(v.OK, c)
		}
	}
	return v, diags, nil
}

// MarshalJSON gives {"format": 1, "ok": [CHANGE], "drifted": [CHANGE],
// "failed": [CHANGE]}, with the changes of a plan.
func (v *Verification) MarshalJSON() ([]byte, error) {
	list := func(cs []Change) []changeJSON {
		out := []changeJSON{}
		for i := range cs {
			out = append(out, cs[i].json())
		}
		return out
	}
	return json.Marshal(struct {
		Format  int          `json:"format"`
		OK      []changeJSON `json:"ok"`
		Drifted []changeJSON `json:"drifted"`
		Failed  []changeJSON `json:"failed"`
	}{1, list(v.OK), list(v.Drifted), list(v.Failed)})
}
