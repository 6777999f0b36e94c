package provision

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/hashicorp/hcl/v2"
	"github.com/zclconf/go-cty/cty"

	"github.com/nodeprov/nodeprov/provision/host"
)

func unknownHost() cty.Value { return cty.UnknownVal(host.FactsType()) }

// wantedOnMachine is wantedText on a machine of which more than the facts can be read.
// Settings that it cannot have are followed by " ! REASON", and those of another
// class than warn by " (CLASS)".
func wantedOnMachine(tb testing.TB, text string, h *host.Host, f *host.Facts) string {
	tb.Helper()
	v := unknownHost()
	if f != nil {
		v = f.Value()
	}
	p := evaluate(tb, text, v)
	ws, diags := (&Engine{Host: h, Kinds: Kinds()}).Desired(p, f, PhaseAll)
	var b strings.Builder
	for _, w := range ws {
		live, err := Value{Absent: true}, error(nil)
		if h != nil {
			live, err = w.Read(tb.Context(), h)
		}
		if err != nil {
			tb.Errorf("%s: %v", w.Key(), err)
		}
		val, err := w.Want(live)
		if err != nil {
			tb.Error(err)
		}
		fmt.Fprintf(&b, "%s = %s", w.Key(), val.Text)
		if live.Absent && w.Unsupported != nil {
			if err := w.Unsupported(h); err != nil {
				fmt.Fprintf(&b, " ! %v", err)
			}
		}
		if w.OnError != Warn {
			fmt.Fprintf(&b, " (%s)", w.OnError)
		}
		b.WriteByte('\n')
	}
	slices.SortStableFunc(diags, func(a, b *hcl.Diagnostic) int { return cmp.Compare(a.Subject.Start.Byte, b.Subject.Start.Byte) })
	for _, d := range diags {
		fmt.Fprintf(&b, "%d,%d: %s: %s\n", d.Subject.Start.Line-3, d.Subject.Start.Column, d.Summary, d.Detail)
	}
	return b.String()
}
