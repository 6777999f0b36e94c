package profile

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/hclsyntax"
	"github.com/zclconf/go-cty/cty"
	"github.com/zclconf/go-cty/cty/convert"
	"github.com/zclconf/go-cty/cty/function"
)

// Load parses, checks and evaluates a profile and what it includes. The Profile
// is nil exactly when the diagnostics hold an error, and they hold all errors
// that can be told apart: after a mistake of syntax, an include that is not
// there, or a schema of another version, only those, since the rest would be
// guesses; and none that merely follows from another.
//
// No diagnostic holds a sensitive value, neither in its text nor in the
// EvalContext that hcl's own writer prints from. The source lines that it
// points at are what the user wrote.
//
// Load panics where o breaks its contract: two schemas of one Type, a Type that
// is the language's own, a Default that does not fit its attribute, a schema with
// ForEach and no Label, an Only that no schema has, a known Host without `arch`
// or `kernel.version` although the profile has a match block.
func Load(src Source, o Options) (*Profile, hcl.Diagnostics) {
	p, diags := Check(src, o)
	if diags.HasErrors() {
		return nil, diags
	}
	return p, diags
}

// Check is Load for telling all mistakes at once: with errors, the Profile has the
// blocks that are without one, so that their kinds can say what they think of
// those. It is nil where nothing can be made of the rest, as after a mistake of
// syntax, and on a host that does not match.
func Check(src Source, o Options) (*Profile, hcl.Diagnostics) {
	l := newLoader(o)
	l.collect(src, nil)
	if l.stop {
		l.finish()
		return nil, l.diags
	}
	l.declare()
	l.assign(o.Vars)
	cs := l.constructs()
	l.evaluateLocals(l.needed(cs))
	for _, u := range l.units {
		l.match(u)
	}
	var blocks []Block
	for _, c := range cs {
		blocks = append(blocks, l.evaluate(c)...)
	}
	l.finish()
	if l.stop {
		return nil, l.diags
	}
	p := &Profile{Name: src.Name, Blocks: blocks, Sources: l.sources, Files: l.files}
	for _, name := range l.textNames {
		if _, both := l.rank[name]; !both {
			p.Sources = append(p.Sources, l.texts[name])
			p.Files[name] = &hcl.File{Bytes: l.texts[name].Text}
		}
	}
	for _, name := range names(l.vars) {
		if l.vars[name].sensitive {
			p.Sensitive = append(p.Sensitive, name)
		}
	}
	return p, l.diags
}

// loader is one Load.
type loader struct {
	options Options
	host    cty.Value
	schemas map[string]*Schema
	// functions are by source, see functionsFor.
	functions map[string]map[string]function.Function

	// sources are the profile and what it includes, as they are met; rank is the
	// position of a name in it. units have those that could be parsed, in rising
	// precedence.
	sources []Source
	rank    map[string]int
	units   []*unit
	files   map[string]*hcl.File
	// texts are the files that file() and templatefile() have read, by name;
	// textNames are in the order of their reading.
	texts     map[string]Source
	textNames []string

	vars   map[string]*variable
	locals map[string]*local
	// replaced are expressions that an including profile overrides: they are not
	// evaluated, but a mistake in them is one all the same.
	replaced []hclsyntax.Expression

	diags hcl.Diagnostics
	// stop: to go on would only give errors that follow from those found.
	stop bool
}

// own are the language's own blocks.
var own = []string{"nodeprov", "variable", "locals", "match"}

func newLoader(o Options) *loader {
	l := &loader{
		options: o, host: o.Host, functions: map[string]map[string]function.Function{},
		schemas: map[string]*Schema{}, vars: map[string]*variable{}, locals: map[string]*local{},
		rank: map[string]int{}, files: map[string]*hcl.File{}, texts: map[string]Source{},
	}
	if l.host == cty.NilVal {
		l.host = cty.DynamicVal
	}
	for _, s := range o.Schemas {
		if slices.Contains(own, s.Type) || l.schemas[s.Type] != nil {
			panic(fmt.Sprintf("profile: two schemas of type %q", s.Type))
		}
		s.check()
		l.schemas[s.Type] = &s
	}
	for _, name := range o.Only {
		if l.schemas[name] == nil {
			panic(fmt.Sprintf("profile: Only has %q, which is no schema", name))
		}
	}
	return l
}

// check panics for a schema that contradicts itself.
func (s *Schema) check() {
	if s.ForEach && s.Label == "" {
		panic(fmt.Sprintf("profile: %s has ForEach and no Label", s.Type))
	}
	for _, a := range s.Attrs {
		if a.Default == cty.NilVal {
			continue
		}
		if _, err := convert.Convert(a.Default, a.Type); err != nil {
			panic(fmt.Sprintf("profile: default of %s.%s: %v", s.Type, a.Name, err))
		}
	}
	seen := map[string]bool{"dynamic": true}
	for i := range s.Blocks {
		b := &s.Blocks[i]
		if b.Map || b.ForEach || seen[b.Type] {
			panic(fmt.Sprintf("profile: %s cannot have a nested %s of this kind", s.Type, b.Type))
		}
		seen[b.Type] = true
		b.check()
	}
}

// only tells whether constructs of this type are evaluated.
func (l *loader) only(typ string) bool {
	return l.options.Only == nil || slices.Contains(l.options.Only, typ)
}

func (l *loader) add(r hcl.Range, summary, format string, args ...any) {
	l.diags = append(l.diags, problem(r, summary, format, args...))
}

func (l *loader) finish() { l.diags = Sort(l.diags, l.sources...) }

// Sort takes out of diags what is told twice (an expression is evaluated for each
// element of a for_each), and sorts: first those without a place, then the
// sources, each from top to bottom, then other files by name.
func Sort(diags hcl.Diagnostics, sources ...Source) hcl.Diagnostics {
	rank := map[string]int{}
	for i, s := range sources {
		if _, again := rank[s.Name]; !again {
			rank[s.Name] = i
		}
	}
	type said struct {
		at              hcl.Range
		summary, detail string
	}
	seen := map[said]bool{}
	diags = slices.DeleteFunc(slices.Clone(diags), func(d *hcl.Diagnostic) bool {
		if d.Subject == nil {
			return false
		}
		s := said{*d.Subject, d.Summary, d.Detail}
		again := seen[s]
		seen[s] = true
		return again
	})
	place := func(d *hcl.Diagnostic) int {
		if d.Subject == nil {
			return -1
		}
		if i, ok := rank[d.Subject.Filename]; ok {
			return i
		}
		return len(sources)
	}
	slices.SortStableFunc(diags, func(a, b *hcl.Diagnostic) int {
		if c := cmp.Compare(place(a), place(b)); c != 0 || a.Subject == nil {
			return c
		}
		return cmp.Or(cmp.Compare(a.Subject.Filename, b.Subject.Filename),
			cmp.Compare(a.Subject.Start.Byte, b.Subject.Start.Byte))
	})
	return diags
}

// declare collects variables and locals, so that references can be checked.
func (l *loader) declare() {
	for _, u := range l.units {
		for _, b := range u.body.Blocks {
			switch b.Type {
			case "variable":
				l.declareVariable(b)
			case "locals":
				l.declareLocals(b)
			}
		}
	}
	for _, expr := range l.replaced {
		l.check(expr, anywhere)
	}
}

// sameSource tells whether two places are in one text.
func sameSource(a, b hcl.Range) bool { return a.Filename == b.Filename }

func (l *loader) duplicateBlock(b, first *hclsyntax.Block) {
	what := b.Type
	for _, label := range b.Labels {
		what += " " + strconv.Quote(label)
	}
	l.add(b.DefRange(), "Duplicate block", "%s is already there at %s. Merge the two, or remove one.", what, place(first.DefRange()))
}

// checkLabels wants one label of the kind named, or none. It tells whether the
// block has what it needs.
func (l *loader) checkLabels(b *hclsyntax.Block, label string) bool {
	want := 0
	if label != "" {
		want = 1
	}
	switch {
	case len(b.Labels) < want:
		l.add(b.DefRange(), "Missing label", "%s needs a label. Write: %s %q { … }", b.Type, b.Type, strings.ToUpper(label))
		return false
	case len(b.Labels) > want:
		header := b.Type
		if want == 1 {
			header += " " + strconv.Quote(b.Labels[0])
		}
		l.add(b.LabelRanges[want], "Extra label", "%s takes %s. Write: %s { … }", b.Type,
			[]string{"no label", "one label only"}[want], header)
	case want == 1 && b.Labels[0] == "":
		l.add(b.LabelRanges[0], "Empty label", "The label of %s is empty. Write: %s %q { … }", b.Type, b.Type, strings.ToUpper(label))
		return false
	}
	return true
}

// checkBody reports the attributes and blocks of a body that are not known
// there.
func (l *loader) checkBody(body *hclsyntax.Body, where string, attrs, blocks []string) {
	for _, a := range sorted(body.Attributes) {
		if slices.Contains(attrs, a.Name) {
			continue
		}
		hint := didYouMean(a.Name, attrs)
		switch {
		case slices.Contains(blocks, a.Name):
			hint = fmt.Sprintf(" It is a block: %s { … }", a.Name)
		case a.Name == "for_each" || a.Name == "count":
			hint = " This block cannot be repeated that way."
		case hint == "" && len(attrs) > 0:
			hint = fmt.Sprintf(" It has %s.", list(attrs))
		case hint == "":
			hint = " It has none; remove this one."
		}
		l.add(a.NameRange, "Unknown attribute", "%s has no attribute %q.%s", where, a.Name, hint)
	}
	for _, b := range body.Blocks {
		if slices.Contains(blocks, b.Type) {
			continue
		}
		hint := didYouMean(b.Type, blocks)
		switch {
		case slices.Contains(attrs, b.Type):
			hint = fmt.Sprintf(" %s is an attribute: %s = …", b.Type, b.Type)
		case hint == "" && len(blocks) > 0:
			hint = fmt.Sprintf(" It has %s.", list(slices.DeleteFunc(slices.Clone(blocks), func(b string) bool { return b == "dynamic" })))
		case hint == "":
			if hint = didYouMean(b.Type, attrs); hint == "" {
				hint = " Remove it, or move it out to the top level."
			}
		}
		l.add(b.DefRange(), "Unknown block", "%s has no block %q inside.%s", where, b.Type, hint)
	}
}

// sorted are attributes in source order.
func sorted(attrs hclsyntax.Attributes) []*hclsyntax.Attribute {
	return slices.SortedFunc(maps.Values(attrs), func(a, b *hclsyntax.Attribute) int {
		return cmp.Compare(a.NameRange.Start.Byte, b.NameRange.Start.Byte)
	})
}

// convert makes v, the value of expr, one of type ty; what names the place in
// messages. The range of the error is that of the element that does not fit.
func (l *loader) convert(expr hclsyntax.Expression, v cty.Value, ty cty.Type, what string, s scope) (cty.Value, bool) {
	got, err := convert.Convert(v, ty)
	if err == nil {
		return got, true
	}
	r, err := l.misfit(expr, v, ty, err, s)
	remedy := ""
	switch {
	case (ty.IsListType() || ty.IsSetType()) && v.Type().IsPrimitiveType():
		remedy = " Write it in brackets: [ … ]"
	case !ty.IsPrimitiveType():
		remedy = " Give it a value of type " + typeName(ty) + "."
	}
	d := problem(r, "Unsuitable value", "%s is not suitable: %v.%s", what, err, remedy)
	if ctx := l.context(expr, s); len(sensitiveIn(expr, ctx)) == 0 {
		d.Expression, d.EvalContext = expr, ctx // what the references stand for
	}
	l.diags = append(l.diags, d)
	return cty.DynamicVal, false
}

// misfit finds the innermost element that does not convert, for as long as they
// are written out in expr; err is what converting all of v to ty said.
func (l *loader) misfit(expr hclsyntax.Expression, v cty.Value, ty cty.Type, err error, s scope) (hcl.Range, error) {
	v, _ = v.Unmark()
	if v.IsNull() || !v.IsKnown() || !v.CanIterateElements() {
		return expr.Range(), err
	}
	for it := v.ElementIterator(); it.Next(); {
		k, e := it.Element()
		inner := l.element(expr, k, s)
		if inner == nil {
			continue
		}
		var want cty.Type
		switch {
		case ty.IsCollectionType():
			want = ty.ElementType()
		case ty.IsObjectType() && k.Type() == cty.String && ty.HasAttribute(k.AsString()):
			want = ty.AttributeType(k.AsString())
		case ty.IsTupleType() && k.Type() == cty.Number:
			i, _ := k.AsBigFloat().Int64()
			if types := ty.TupleElementTypes(); int(i) < len(types) {
				want = types[i]
			}
		}
		if want == cty.NilType {
			continue
		}
		if _, err := convert.Convert(e, want); err != nil {
			return l.misfit(inner, e, want, err, s)
		}
	}
	return expr.Range(), err
}

// element is the expression of v[key] where v is written out.
func (l *loader) element(expr hclsyntax.Expression, key cty.Value, s scope) hclsyntax.Expression {
	switch e := written(expr).(type) {
	case *hclsyntax.TupleConsExpr:
		if key.Type() == cty.Number {
			if i, _ := key.AsBigFloat().Int64(); i >= 0 && int(i) < len(e.Exprs) {
				return e.Exprs[i]
			}
		}
	case *hclsyntax.ObjectConsExpr:
		for _, item := range e.Items {
			k, diags := item.KeyExpr.Value(l.context(item.KeyExpr, s))
			if text, ok := keyText(k); !diags.HasErrors() && ok && key.Type() == cty.String && text == key.AsString() {
				return item.ValueExpr
			}
		}
	}
	return nil
}

// bare takes parentheses off.
func bare(expr hclsyntax.Expression) hclsyntax.Expression {
	for {
		p, ok := expr.(*hclsyntax.ParenthesesExpr)
		if !ok {
			return expr
		}
		expr = p.Expression
	}
}

// written takes parentheses off, and the call of best_effort().
func written(expr hclsyntax.Expression) hclsyntax.Expression {
	for {
		call, ok := bare(expr).(*hclsyntax.FunctionCallExpr)
		if !ok || call.Name != "best_effort" || len(call.Args) != 1 || call.ExpandFinal {
			return bare(expr)
		}
		expr = call.Args[0]
	}
}
