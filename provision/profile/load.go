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

// Load parses, checks and evaluates a profile. The Profile is nil exactly when
// the diagnostics hold an error, and they hold all errors that can be told
// apart: after a mistake of syntax, or with a schema of another version, only
// those, since the rest would be guesses; and none that merely follows from
// another.
//
// No diagnostic holds a sensitive value, neither in its text nor in the
// EvalContext that hcl's own writer prints from. The source lines that it
// points at are what the user wrote.
//
// Load panics where o breaks its contract: two schemas of one Type, a Type that
// is the language's own, a Default that does not fit its attribute, a known
// Host without `arch` or `kernel.version` although the profile has a match block.
func Load(src Source, o Options) (*Profile, hcl.Diagnostics) {
	l := newLoader(src, o)
	file, diags := parse(src)
	l.diags = diags
	l.sort()
	if file == nil || slices.ContainsFunc(diags, func(d *hcl.Diagnostic) bool {
		return d.Severity == hcl.DiagError && d.Summary != "Attribute redefined" // the first one is still there
	}) {
		return nil, diags
	}
	l.body = file.Body.(*hclsyntax.Body)
	if !l.header() {
		return nil, l.diags
	}
	l.declare()
	l.assign(o.Vars)
	l.evaluateLocals()
	l.match()
	blocks := l.constructs()
	l.sort()
	if l.diags.HasErrors() {
		return nil, l.diags
	}
	return &Profile{Name: src.Name, Blocks: blocks, Files: map[string]*hcl.File{src.Name: file}}, l.diags
}

// loader is one Load.
type loader struct {
	src       Source
	body      *hclsyntax.Body
	schemas   map[string]*Schema
	functions map[string]function.Function
	host      cty.Value
	vars      map[string]*variable
	locals    map[string]*local
	diags     hcl.Diagnostics
}

// own are the language's own blocks.
var own = []string{"nodeprov", "variable", "locals", "match"}

func newLoader(src Source, o Options) *loader {
	l := &loader{
		src: src, functions: functions(), host: o.Host,
		schemas: map[string]*Schema{}, vars: map[string]*variable{}, locals: map[string]*local{},
	}
	if l.host == cty.NilVal {
		l.host = cty.DynamicVal
	}
	for _, s := range o.Schemas {
		if slices.Contains(own, s.Type) || l.schemas[s.Type] != nil {
			panic(fmt.Sprintf("profile: two schemas of type %q", s.Type))
		}
		for _, a := range s.Attrs {
			if a.Default == cty.NilVal {
				continue
			}
			if _, err := convert.Convert(a.Default, a.Type); err != nil {
				panic(fmt.Sprintf("profile: default of %s.%s: %v", s.Type, a.Name, err))
			}
		}
		l.schemas[s.Type] = &s
	}
	return l
}

func (l *loader) add(r hcl.Range, summary, format string, args ...any) {
	l.diags = append(l.diags, problem(r, summary, format, args...))
}

// sort puts the diagnostics in the order in which a person meets their places:
// first those without one, then the
// profile from top to bottom, then files of variables.
func (l *loader) sort() {
	slices.SortStableFunc(l.diags, func(a, b *hcl.Diagnostic) int {
		place := func(d *hcl.Diagnostic) int {
			switch {
			case d.Subject == nil:
				return 0
			case d.Subject.Filename == l.src.Name:
				return 1
			}
			return 2
		}
		if place(a)*place(b) == 0 {
			return place(a) - place(b)
		}
		return cmp.Or(place(a)-place(b),
			cmp.Compare(a.Subject.Filename, b.Subject.Filename),
			cmp.Compare(a.Subject.Start.Byte, b.Subject.Start.Byte))
	})
}

// header checks the nodeprov block. It tells whether the rest is in a language
// that this version knows.
func (l *loader) header() bool {
	var first *hclsyntax.Block
	for _, b := range l.body.Blocks {
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
		if len(l.body.Blocks)+len(l.body.Attributes) == 0 {
			what = "Profile is empty"
		}
		l.add(l.src.start(), what,
			"A profile says which version of the language it is written in. Start it with:\n\n  nodeprov {\n    schema = %d\n  }", SchemaVersion)
		return true
	}
	l.checkLabels(first, "")
	for _, a := range sorted(first.Body.Attributes) {
		if a.Name == "include" {
			l.add(a.NameRange, "Include is not supported",
				"include cannot be used in this version of nodeprov. Copy the settings of the other profile into this one.")
		}
	}
	l.checkBody(first.Body, "nodeprov", []string{"schema", "include"}, nil)
	attr := first.Body.Attributes["schema"]
	if attr == nil {
		l.add(first.DefRange(), "Missing attribute",
			"nodeprov needs schema, the version of the language. Add: schema = %d", SchemaVersion)
		return true
	}
	v, ok := l.eval(attr.Expr, scope{where: "The schema", constant: true})
	if !ok {
		return true
	}
	if v.Type() != cty.Number || v.IsNull() {
		l.add(attr.Expr.Range(), "Invalid schema", "The schema is a number. Write: schema = %d", SchemaVersion)
		return true
	}
	if !v.RawEquals(cty.NumberIntVal(SchemaVersion)) {
		l.diags = hcl.Diagnostics{problem(attr.Expr.Range(), "Unsupported schema",
			"This version of nodeprov knows schema %d of the language, and the profile is written in %s. "+
				"Install a nodeprov that knows it, or write the profile for schema %d.",
			SchemaVersion, v.AsBigFloat().Text('g', -1), SchemaVersion)}
		return false
	}
	return true
}

// declare collects variables and locals, so that references can be checked.
func (l *loader) declare() {
	for _, b := range l.body.Blocks {
		switch b.Type {
		case "variable":
			l.declareVariable(b)
		case "locals":
			l.declareLocals(b)
		}
	}
}

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
			hint = fmt.Sprintf(" It has %s.", list(blocks))
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
func (l *loader) convert(expr hclsyntax.Expression, v cty.Value, ty cty.Type, what string) (cty.Value, bool) {
	got, err := convert.Convert(v, ty)
	if err == nil {
		return got, true
	}
	r, err := l.misfit(expr, v, ty, err)
	l.add(r, "Unsuitable value", "%s is not suitable: %v. Give it a value of type %s.", what, err, typeName(ty))
	return cty.DynamicVal, false
}

// misfit finds the innermost element that does not convert, for as long as they
// are written out in expr; err is what converting all of v to ty said.
func (l *loader) misfit(expr hclsyntax.Expression, v cty.Value, ty cty.Type, err error) (hcl.Range, error) {
	v, _ = v.Unmark()
	if v.IsNull() || !v.IsKnown() || !v.CanIterateElements() {
		return expr.Range(), err
	}
	for it := v.ElementIterator(); it.Next(); {
		k, e := it.Element()
		inner := l.element(expr, k)
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
			return l.misfit(inner, e, want, err)
		}
	}
	return expr.Range(), err
}

// element is the expression of v[key] where v is written out.
func (l *loader) element(expr hclsyntax.Expression, key cty.Value) hclsyntax.Expression {
	switch e := bare(expr).(type) {
	case *hclsyntax.TupleConsExpr:
		if key.Type() == cty.Number {
			if i, _ := key.AsBigFloat().Int64(); i >= 0 && int(i) < len(e.Exprs) {
				return e.Exprs[i]
			}
		}
	case *hclsyntax.ObjectConsExpr:
		for _, item := range e.Items {
			k, diags := item.KeyExpr.Value(l.context(item.KeyExpr))
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
