package provision

import (
	"bytes"
	"flag"
	"os"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/zclconf/go-cty/cty"

	"github.com/nodeprov/nodeprov/provision/profile"
)

var update = flag.Bool("update", false, "write the reference of settings, and the golden files, anew")

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
	var want bytes.Buffer
	if err := WriteReference(&want, Kinds()); err != nil {
		t.Fatal(err)
	}
	if *update {
		if err := os.WriteFile(path, []byte(head+begin+want.String()+end+tail), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	if diff := cmp.Diff(have, want.String()); diff != "" {
		t.Errorf("go test ./provision -run TestReference -update\n%s", diff)
	}
}

func TestReferenceOfNestedBlocks(t *testing.T) {
	open := func(string) (Setting, error) { return nil, nil }
	kinds := []Kind{
		{Name: "made", Schema: &profile.Schema{Type: "made", Singleton: true, Doc: "Made of others."}},
		{Name: "top", Scope: NetNS, Lifetime: Persistent, Effect: "after a reboot", Early: true, Open: open, Schema: &profile.Schema{
			Type: "top", Label: "name", ForEach: true, Doc: "The top.",
			Attrs: []profile.Attr{
				{Name: "a", Type: cty.List(cty.String), Default: cty.ListVal([]cty.Value{cty.StringVal("x|y")}), BestEffort: true, Doc: "One | two."},
				{Name: "b", Type: cty.DynamicPseudoType, Required: true, Doc: "B."},
			},
			Blocks: []profile.Schema{
				{Type: "inner", Doc: "Inside.", Attrs: []profile.Attr{{Name: "c", Type: cty.Bool, Doc: "C."}}},
				{Type: "once", Singleton: true, Doc: "Inside."},
			},
		}},
		{Name: "keys", Scope: Machine, Lifetime: Runtime, Effect: "now", Open: open, Schema: &profile.Schema{Type: "keys", Map: true, Doc: "Keys."}},
	}
	var b bytes.Buffer
	if err := WriteReference(&b, kinds); err != nil {
		t.Fatal(err)
	}
	got, _, _ := strings.Cut(b.String(), "\n### Functions\n")
	sameText(t, `
### `+"`made { … }`"+`

Made of others. Once at most.

### `+"`top \"NAME\" { … }`"+`

The top. With `+"`for_each` it makes several of itself: see `each.key` and `each.value`"+`.

| attribute | type | default | |
|---|---|---|---|
| `+"`a` | list of string | `[\"x\\|y\"]` | One \\| two. May be `best_effort(…)`"+`. |
| `+"`b`"+` | any type | required | B. |

#### `+"`inner { … }` in `top \"NAME\"`"+`

Inside. May be repeated, also as `+"`dynamic \"inner\"`"+`.

| attribute | type | default | |
|---|---|---|---|
| `+"`c`"+` | bool | - | C. |

#### `+"`once { … }` in `top \"NAME\"`"+`

Inside. Once at most.

### `+"`keys = { … }`"+`

Keys.

### Kinds of settings

The keys of plan, status and journal begin with the kind. Kinds are applied in this order, and rolled back in the other one.

| kind | holds for | lasts | takes effect | set by the early unit |
|---|---|---|---|---|
| `+"`top`"+` | the network namespace | as a file | after a reboot | yes |
| `+"`keys`"+` | the machine | until a reboot, and is set again | now | - |
`, got)
}

// Whoever reads the reference finds a sentence for everything.
func TestReferenceIsComplete(t *testing.T) {
	var check func(in string, s *profile.Schema)
	check = func(in string, s *profile.Schema) {
		in += s.Type
		if !strings.HasSuffix(s.Doc, ".") {
			t.Errorf("%s: no sentence: %q", in, s.Doc)
		}
		for _, a := range s.Attrs {
			if !strings.HasSuffix(a.Doc, ".") {
				t.Errorf("%s.%s: no sentence: %q", in, a.Name, a.Doc)
			}
		}
		for i := range s.Blocks {
			check(in+".", &s.Blocks[i])
		}
	}
	for _, k := range Kinds() {
		if k.Schema != nil {
			check("", k.Schema)
		}
		if k.Open != nil && (k.Scope == "" || k.Lifetime == "" || k.Effect == "") {
			t.Errorf("%s: scope %q, lifetime %q, effect %q", k.Name, k.Scope, k.Lifetime, k.Effect)
		}
	}
	for _, f := range profile.Functions() {
		if !strings.HasSuffix(f.Description, ".") || !strings.HasPrefix(f.Signature, f.Name+"(") {
			t.Errorf("%+v", f)
		}
	}
}
