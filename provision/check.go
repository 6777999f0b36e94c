package provision

import (
	"fmt"
	"path"
	"strings"
	"time"

	"github.com/hashicorp/hcl/v2"
	"github.com/zclconf/go-cty/cty"

	"github.com/nodeprov/nodeprov/provision/profile"
)

// The time that a check may take.
const (
	minCheckTime = time.Second
	maxCheckTime = time.Hour
)

// Check is a command that verify runs: it passes when the command exits with 0
// within the time.
type Check struct {
	Name    string
	Command []string // the program and its arguments; no shell
	Timeout time.Duration
	Range   hcl.Range
}

// checkKind are the commands that verify runs.
func checkKind() Kind {
	return Kind{
		Name: "check",
		Schema: &profile.Schema{
			Type:  "check",
			Label: "name",
			Doc: "A command that `nodeprov verify` runs, and that no apply does. It passes when it exits with 0 in time; else verify reports drift, " +
				"with the end of its output.",
			Attrs: []profile.Attr{
				{Name: "command", Type: cty.List(cty.String), Required: true,
					Doc: "The program and its arguments, without a shell. The program is an absolute path, or a name that is looked for in PATH."},
				{Name: "timeout", Type: cty.String, Default: cty.StringVal("30s"),
					Doc: `How long it may take, "1s" to "1h", as in "90s" or "2m30s". Then it is killed, and has failed.`},
			},
		},
		Wanted: func(b profile.Block, _ Target) ([]Wanted, hcl.Diagnostics) {
			_, _, diags := checkOf(b)
			return nil, diags
		},
		Checks: func(b profile.Block) ([]Check, hcl.Diagnostics) {
			c, ok, diags := checkOf(b)
			if !ok {
				return nil, diags
			}
			return []Check{c}, diags
		},
		Open: func(name string) (Setting, error) {
			return nil, fmt.Errorf("check: %q: a check has no settings", name)
		},
		Scope:    Machine,
		Lifetime: Runtime,
		Effect:   "at the next verify",
	}
}

// checkOf reads a check block; ok is false where it is wrong or unknown.
func checkOf(b profile.Block) (c Check, ok bool, diags hcl.Diagnostics) {
	r := &attrReader{block: b}
	c = Check{Name: b.Label, Range: b.Range}
	if v, ok := r.value("command"); ok {
		c.Command = r.command(v)
	}
	c.Timeout = 30 * time.Second
	if text, ok := r.text("timeout"); ok {
		d, err := time.ParseDuration(text)
		switch v := b.Attrs["timeout"]; {
		case err != nil:
			r.wrong(v, "timeout", "%q is no length of time. Write a number and its unit, as in \"60s\" or \"5m\".", text)
		case d < minCheckTime || d > maxCheckTime:
			r.wrong(v, "timeout", "%s is out of range: a check may take 1s to 1h.", text)
		}
		c.Timeout = d
	}
	return c, len(c.Command) > 0 && !r.unknown && !r.diags.HasErrors(), r.diags
}

func (r *attrReader) command(v profile.Value) []string {
	ty := v.Type()
	if !ty.IsTupleType() && !ty.IsListType() {
		r.wrong(v, "command", "A list of strings is needed, the program and its arguments, not a value of type %s.", ty.FriendlyName())
		return nil
	}
	if v.LengthInt() == 0 {
		r.wrong(v, "command", "The list is empty. It begins with the program, as in [\"lbd\", \"status\"].")
		return nil
	}
	var words []string
	for it := v.ElementIterator(); it.Next(); {
		_, e := it.Element()
		if e.IsNull() || e.Type() != cty.String {
			r.wrong(v, "command", "All elements are strings; argument %d is none.", len(words))
			return nil
		}
		if strings.ContainsRune(e.AsString(), 0) {
			r.wrong(v, "command", "Argument %d has a zero byte, which no argument of a program can have.", len(words))
			return nil
		}
		words = append(words, e.AsString())
	}
	switch p := words[0]; {
	case p == "":
		r.wrong(v, "command", "The first element, the program, is empty.")
	case strings.Contains(p, "/") && !path.IsAbs(p):
		r.wrong(v, "command", "%q is neither an absolute path nor a name to be looked for in PATH: it would depend on the directory that verify is run in.", p)
	case strings.ContainsAny(p, " \t\n"):
		r.wrong(v, "command", "The program %q has a blank in it. There is no shell: write each word as an element, [%q, …].", p, strings.Fields(p)[0])
	default:
		return words
	}
	return nil
}
