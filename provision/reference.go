package provision

import (
	"bytes"
	"fmt"
	"io"
	"strings"

	"github.com/zclconf/go-cty/cty"
	"github.com/zclconf/go-cty/cty/function/stdlib"

	"github.com/nodeprov/nodeprov/provision/profile"
)

// WriteReference writes the reference of the language, in Markdown: every
// construct of the kinds from its schema, what holds for each kind's settings,
// and the functions. Headings begin at the third level.
func WriteReference(w io.Writer, kinds []Kind) error {
	var b bytes.Buffer
	for _, k := range kinds {
		if k.Schema != nil {
			writeConstruct(&b, k.Schema, "")
		}
	}
	b.WriteString("\n### Kinds of settings\n\n" +
		"The keys of plan, status and journal begin with the kind. Kinds are applied in this order, and rolled back in the other one.\n\n" +
		"| kind | holds for | lasts | takes effect | set by the early unit |\n|---|---|---|---|---|\n")
	for _, k := range kinds {
		if k.Open == nil {
			continue // a construct that is made of other kinds' settings
		}
		scope := map[Scope]string{Machine: "the machine", NetNS: "the network namespace"}[k.Scope]
		lasts := map[Lifetime]string{Runtime: "until a reboot, and is set again", Persistent: "as a file"}[k.Lifetime]
		early := "-"
		if k.Early {
			early = "yes"
		}
		fmt.Fprintf(&b, "| `%s` | %s | %s | %s | %s |\n", k.Name, scope, lasts, cell(k.Effect), early)
	}
	b.WriteString("\n### Functions\n\n| function | |\n|---|---|\n")
	for _, f := range profile.Functions() {
		fmt.Fprintf(&b, "| `%s` | %s |\n", f.Signature, cell(f.Description))
	}
	b.WriteString("\n")
	_, err := w.Write(b.Bytes())
	return err
}

// writeConstruct writes a construct, and then the blocks inside of it. within is
// the header of the construct around it.
func writeConstruct(b *bytes.Buffer, s *profile.Schema, within string) {
	if s.Map {
		fmt.Fprintf(b, "\n### `%s = { … }`\n\n%s\n", s.Type, s.Doc)
		return
	}
	header := s.Type
	if s.Label != "" {
		header += ` "` + strings.ToUpper(s.Label) + `"`
	}
	if within == "" {
		fmt.Fprintf(b, "\n### `%s { … }`\n\n%s", header, s.Doc)
	} else {
		fmt.Fprintf(b, "\n#### `%s { … }` in `%s`\n\n%s", header, within, s.Doc)
	}
	switch {
	case s.Singleton:
		b.WriteString(" Once at most.")
	case s.ForEach:
		fmt.Fprintf(b, " With `for_each` it makes several of itself: see `each.key` and `each.value`.")
	case within != "":
		fmt.Fprintf(b, " May be repeated, also as `dynamic \"%s\"`.", s.Type)
	}
	b.WriteString("\n")
	if len(s.Attrs) > 0 {
		b.WriteString("\n| attribute | type | default | |\n|---|---|---|---|\n")
	}
	for _, a := range s.Attrs {
		def := "-"
		if a.Required {
			def = "required"
		}
		if a.Default != cty.NilVal {
			v, err := stdlib.JSONEncode(a.Default)
			if err != nil {
				panic(fmt.Sprintf("provision: default of %s.%s: %v", s.Type, a.Name, err)) // the schema is wrong
			}
			def = "`" + cell(v.AsString()) + "`"
		}
		doc := a.Doc
		if a.BestEffort {
			doc += " May be `best_effort(…)`."
		}
		fmt.Fprintf(b, "| `%s` | %s | %s | %s |\n", a.Name, a.Type.FriendlyNameForConstraint(), def, cell(doc))
	}
	for i := range s.Blocks {
		writeConstruct(b, &s.Blocks[i], header)
	}
}

// cell makes a text fit for a cell of a table.
func cell(s string) string {
	return strings.ReplaceAll(strings.Join(strings.Fields(s), " "), "|", `\|`)
}
