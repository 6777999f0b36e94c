package provision

import (
	"context"
	"fmt"

	"github.com/hashicorp/hcl/v2"

	"github.com/nodeprov/nodeprov/provision/profile"
)

// CheckResult is what became of a Check.
type CheckResult struct {
	Name    string   `json:"name"`
	Command []string `json:"command"`
	OK      bool     `json:"ok"`
	// Error says why it did not pass, Output is the end of what it wrote, at most
	// host.MaxOutput bytes.
	Error   string  `json:"error,omitempty"`
	Output  string  `json:"output,omitempty"`
	Seconds float64 `json:"seconds"`
}

// Checks are the commands of an evaluated profile that Verify runs, in its order.
func (e *Engine) Checks(p *profile.Profile) ([]Check, hcl.Diagnostics) {
	var cs []Check
	var diags hcl.Diagnostics
	for _, b := range p.Blocks {
		if k := e.schemaKind(b.Type); k.Checks != nil {
			more, ds := k.Checks(b)
			cs, diags = append(cs, more...), append(diags, ds...)
		}
	}
	return cs, diags
}

// check runs the checks, one after the other: they may need each other's CPU time.
// The error says that it was asked to stop.
func (e *Engine) check(ctx context.Context, cs []Check) ([]CheckResult, error) {
	rs := []CheckResult{}
	for _, c := range cs {
		start := e.now()
		out, err := e.Host.Run(ctx, c.Timeout, c.Command...)
		if interrupted(ctx) {
			return rs, fmt.Errorf("check %s: %w", c.Name, context.Cause(ctx))
		}
		r := CheckResult{Name: c.Name, Command: c.Command, OK: err == nil, Output: out, Seconds: e.now().Sub(start).Seconds()}
		if err != nil {
			r.Error = err.Error()
		}
		rs = append(rs, r)
	}
	return rs, nil
}
