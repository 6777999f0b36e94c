package provision

import (
	"fmt"
	"strconv"
	"strings"

	"github.com/hashicorp/hcl/v2"
	"github.com/zclconf/go-cty/cty"

	"github.com/nodeprov/nodeprov/provision/profile"
)

// wrongAt is an error in the profile; its detail says what is wrong and what to
// write instead.
func wrongAt(rng hcl.Range, summary, format string, args ...any) *hcl.Diagnostic {
	return &hcl.Diagnostic{
		Severity: hcl.DiagError,
		Summary:  summary,
		Detail:   fmt.Sprintf(format, args...),
		Subject:  rng.Ptr(),
	}
}

// sensitiveAt refuses a secret where it would be readable to everybody.
func sensitiveAt(v profile.Value, what, where string) *hcl.Diagnostic {
	return wrongAt(v.Range, "Sensitive value", "%s cannot be set from a sensitive value: %s. Use a value that is not secret.", what, where)
}

// given tells whether the block has the attribute, with a value that is not
// null: null leaves an attribute out, as in all of HCL. An unknown value counts.
func given(b profile.Block, name string) (profile.Value, bool) {
	v, ok := b.Attrs[name]
	if !ok || v.Value == cty.NilVal {
		return v, false
	}
	if raw, _ := v.Unmark(); raw.IsKnown() && raw.IsNull() {
		return v, false
	}
	return v, true
}

// oneOf reads an attribute that has one of a few words. The first word is what
// an attribute that is left out or unknown has.
func oneOf(b profile.Block, name string, words ...string) (string, hcl.Diagnostics) {
	v, ok := given(b, name)
	if !ok {
		return words[0], nil
	}
	if v.IsMarked() {
		return words[0], hcl.Diagnostics{sensitiveAt(v, name, "the plan shows it")}
	}
	if !v.IsKnown() {
		return words[0], nil
	}
	for _, w := range words {
		if v.Type() == cty.String && v.AsString() == w {
			return w, nil
		}
	}
	quoted := make([]string, len(words))
	for i, w := range words {
		quoted[i] = strconv.Quote(w)
	}
	return words[0], hcl.Diagnostics{wrongAt(v.Range, "Invalid value of "+name, "Write %s.", strings.Join(quoted, " or "))}
}
