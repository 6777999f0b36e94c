package provision

import (
	"fmt"

	"github.com/hashicorp/hcl/v2"
	"github.com/zclconf/go-cty/cty"

	"github.com/nodeprov/nodeprov/lbd/config"
	"github.com/nodeprov/nodeprov/provision/profile"
)

// lbdUnit is the service that runs lbd.
const lbdUnit = "lbd.service"

// lbdKind configures lbd, as a file and a unit: it has no settings of its own.
func lbdKind() Kind {
	schema := &profile.Schema{
		Type:      "lbd",
		Singleton: true,
		Doc: "The load balancer daemon: writes " + config.File + " and has " + lbdUnit + " enabled and started. A change of the file restarts " +
			"the daemon if it runs; connections and services are not interrupted by that.",
		Attrs: []profile.Attr{{
			Name: "service", Type: cty.Bool, Default: cty.True,
			Doc: "Whether " + lbdUnit + " shall run. With false only the file is written, and something else runs lbd.",
		}},
	}
	for _, a := range config.Attrs() {
		schema.Attrs = append(schema.Attrs, profile.Attr{Name: a.Name, Type: a.Type, Default: a.Default, Doc: a.Doc})
	}
	return Kind{
		Name:   "lbd",
		Schema: schema,
		Wanted: lbdWanted,
		Open: func(name string) (Setting, error) {
			return nil, fmt.Errorf("lbd: %q: it has no settings but its file's and its unit's", name)
		},
		Scope:    Machine,
		Lifetime: Persistent,
		Effect:   "now",
	}
}

func lbdWanted(b profile.Block, _ Target) ([]Wanted, hcl.Diagnostics) {
	var diags hcl.Diagnostics
	values := map[string]cty.Value{}
	known := true
	for _, a := range config.Attrs() {
		v, ok := given(b, a.Name)
		if !ok {
			continue
		}
		if v.ContainsMarked() {
			diags = append(diags, sensitiveAt(v, a.Name, "everybody can read "+config.File))
			continue
		}
		known = known && v.IsWhollyKnown()
		values[a.Name] = v.Value
	}
	c, errs := config.FromValues(values)
	for _, a := range config.Attrs() {
		err, ok := errs[a.Name]
		if !ok {
			continue
		}
		delete(errs, a.Name)
		diags = append(diags, wrongAt(attrRange(b, a.Name), "Invalid value of "+a.Name, "%v.", err))
	}
	// Mistakes of no attribute, if lbd ever finds any, must not pass.
	for name, err := range errs {
		diags = append(diags, wrongAt(b.Range, "Invalid lbd", "%s: %v.", name, err))
	}

	service := true
	if v, ok := given(b, "service"); ok {
		switch {
		case v.ContainsMarked():
			diags = append(diags, sensitiveAt(v, "service", "the plan shows it"))
		case !v.IsKnown():
			known = false
		case v.Type() != cty.Bool:
			diags = append(diags, wrongAt(v.Range, "Invalid value of service", "true or false is needed, not a value of type %s.", v.Type().FriendlyName()))
		default:
			service = v.True()
		}
	}
	if diags.HasErrors() || !known {
		return nil, diags
	}
	ws := []Wanted{fileWanted(config.File, 0o644, c.HCL(), b.Range)}
	if service {
		ws = append(ws, unitWanted(lbdUnit, attrRange(b, "service")))
	}
	return ws, diags
}

// attrRange is an attribute's range, or the block's.
func attrRange(b profile.Block, name string) hcl.Range {
	if v, ok := b.Attrs[name]; ok && v.Range != (hcl.Range{}) {
		return v.Range
	}
	return b.Range
}
