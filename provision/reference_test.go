package provision

import (
	"flag"
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/zclconf/go-cty/cty"
	"github.com/zclconf/go-cty/cty/function/stdlib"
)

var update = flag.Bool("update", false, "write the reference of settings anew")

// The reference in docs/profile.md says what the schemas say.
func TestReference(t *testing.T) {
	const path, begin, end = "../docs/profile.md", "-update -->\n", "<!-- end -->"
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	head, rest, ok := strings.Cut(string(b), begin)
	have, tail, ok2 := strings.Cut(rest, end)
	if !ok || !ok2 {
		t.Fatalf("%s has lost its markers", path)
	}
	want := reference(Kinds())
	if *update {
		if err := os.WriteFile(path, []byte(head+begin+want+end+tail), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	if diff := cmp.Diff(have, want); diff != "" {
		t.Errorf("go test ./provision -run TestReference -update\n%s", diff)
	}
}

func reference(kinds []Kind) string {
	var b strings.Builder
	for _, k := range kinds {
		s := k.Schema
		if s == nil {
			continue
		}
		switch {
		case s.Map:
			fmt.Fprintf(&b, "\n### `%s = { … }`\n\n%s\n", s.Type, s.Doc)
			continue
		case s.Label != "":
			fmt.Fprintf(&b, "\n### `%s \"%s\" { … }`\n\n%s\n", s.Type, strings.ToUpper(s.Label), s.Doc)
		default:
			fmt.Fprintf(&b, "\n### `%s { … }`\n\n%s\n", s.Type, s.Doc)
		}
		fmt.Fprint(&b, "\n| attribute | type | default | |\n|---|---|---|---|\n")
		for _, a := range s.Attrs {
			def := "-"
			if a.Required {
				def = "required"
			}
			if a.Default != cty.NilVal {
				v, err := stdlib.JSONEncode(a.Default)
				if err != nil {
					panic(err)
				}
				def = "`" + v.AsString() + "`"
			}
			fmt.Fprintf(&b, "| `%s` | %s | %s | %s |\n", a.Name, a.Type.FriendlyNameForConstraint(), def, a.Doc)
		}
	}
	return b.String() + "\n"
}
