package profile

import (
	"slices"
	"strings"

	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/hclsyntax"
	"github.com/zclconf/go-cty/cty"
)

// maxIncludes is how deep profiles may include others; it ends a chain of names
// that never repeats, as links make one.
const maxIncludes = 32

// unit is one source of the profile, parsed.
type unit struct {
	src  Source
	body *hclsyntax.Body
}

// collect parses src and what it includes, depth first, so that l.units is in
// rising precedence: what a source includes stands before it. chain are the
// names of those that include it.
func (l *loader) collect(src Source, chain []string) {
	l.rank[src.Name] = len(l.sources)
	l.sources = append(l.sources, src)
	file, diags := parse(src)
	l.diags = append(l.diags, diags...)
	if file == nil || slices.ContainsFunc(diags, func(d *hcl.Diagnostic) bool {
		return d.Severity == hcl.DiagError && d.Summary != "Attribute redefined" // the first one is still there
	}) {
		l.stop = true
		return
	}
	u := &unit{src, file.Body.(*hclsyntax.Body)}
	l.files[src.Name] = file
	refs, ok := l.header(u)
	if !ok {
		l.stop = true
		return
	}
	for _, ref := range refs {
		l.include(u, ref, append(slices.Clone(chain), src.Name))
	}
	l.units = append(l.units, u)
}

// reference is one element of include.
type reference struct {
	text string
	at   hcl.Range
}

// include collects the source that ref names, once. chain ends with u.
func (l *loader) include(u *unit, ref reference, chain []string) {
	refuse := func(format string, args ...any) {
		// Whatever the other one declares would be missing.
		l.stop = true
		l.add(ref.at, "Profile not included", format, args...)
	}
	if l.options.Include == nil {
		refuse("A profile cannot include others here. Copy the settings of %q into this one.", ref.text)
		return
	}
	src, err := l.options.Include(u.src.Name, ref.text)
	if err != nil {
		refuse("%q cannot be included: %v.", ref.text, err)
		return
	}
	if i := slices.Index(chain, src.Name); i >= 0 {
		l.add(ref.at, "Cycle of includes", "These include each other: %s. Take what they share out into a profile that includes none of them.",
			strings.Join(append(slices.Clone(chain[i:]), src.Name), " -> "))
		return
	}
	if _, again := l.rank[src.Name]; again {
		return
	}
	if len(chain) > maxIncludes {
		refuse("Profiles include each other more than %d deep here, ending in %s. Include %q from the profile itself.", maxIncludes, src.Name, ref.text)
		return
	}
	l.collect(src, chain)
}

// header checks the nodeprov block, and returns what it includes. It tells
// whether the rest is in a language that this version knows.
func (l *loader) header(u *unit) ([]reference, bool) {
	before := len(l.diags)
	var first *hclsyntax.Block
	for _, b := range u.body.Blocks {
		if b.Type != "nodeprov" {
			continue
		}
		if first != nil {
			l.duplicateBlock(b, first)
			continue
		}
		first = b
	}
	if first == nil {
		what := "Profile has no nodeprov block"
		if len(u.body.Blocks)+len(u.body.Attributes) == 0 {
			what = "Profile is empty"
		}
		l.add(u.src.start(), what,
			"A profile says which version of the language it is written in. Start it with:\n\n  nodeprov {\n    schema = %d\n  }", SchemaVersion)
		return nil, true
	}
	l.checkLabels(first, "")
	l.checkBody(first.Body, "nodeprov", []string{"schema", "include"}, nil)
	refs := l.references(first.Body.Attributes["include"])
	attr := first.Body.Attributes["schema"]
	if attr == nil {
		l.add(first.DefRange(), "Missing attribute",
			"nodeprov needs schema, the version of the language. Add: schema = %d", SchemaVersion)
		return refs, true
	}
	v, ok := l.eval(attr.Expr, scope{where: "The schema", constant: true})
	if !ok {
		return refs, true
	}
	if v.Type() != cty.Number || v.IsNull() {
		l.add(attr.Expr.Range(), "Invalid schema", "The schema is a number. Write: schema = %d", SchemaVersion)
		return refs, true
	}
	if !v.RawEquals(cty.NumberIntVal(SchemaVersion)) {
		// All else may be right in the language that it is written in.
		l.diags = append(l.diags[:before:before], problem(attr.Expr.Range(), "Unsupported schema",
			"This version of nodeprov knows schema %d of the language, and the profile is written in %s. "+
				"Install a nodeprov that knows it, or write the profile for schema %d.",
			SchemaVersion, v.AsBigFloat().Text('g', -1), SchemaVersion))
		return nil, false
	}
	return refs, true
}

// references reads include, a list of texts.
func (l *loader) references(a *hclsyntax.Attribute) []reference {
	if a == nil {
		return nil
	}
	s := scope{where: "include", constant: true}
	v, ok := l.eval(a.Expr, s)
	if ok && v.Type() == cty.String {
		l.add(a.Expr.Range(), "Unsuitable value", "include is a list. Write it in brackets: include = [ … ]")
		return nil
	}
	if ok {
		v, ok = l.convert(a.Expr, v, cty.List(cty.String), "include", s)
	}
	if !ok || v.IsNull() {
		return nil
	}
	var refs []reference
	for i, e := range v.AsValueSlice() {
		r := a.Expr.Range()
		if inner := l.element(a.Expr, cty.NumberIntVal(int64(i)), s); inner != nil {
			r = inner.Range()
		}
		if e.IsNull() || e.AsString() == "" {
			l.add(r, "Unsuitable value", `This names no profile. Write a path, or "builtin://NAME", or leave it out.`)
			continue
		}
		refs = append(refs, reference{e.AsString(), r})
	}
	return refs
}
