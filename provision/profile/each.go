package profile

import (
	"slices"
	"strconv"

	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/hclsyntax"
	"github.com/zclconf/go-cty/cty"
)

// element is what for_each goes through.
type element struct{ key, value cty.Value }

// elements are those of a for_each, in the order of their keys, or of a list. If
// they are not known, because the host is not or after a mistake, there is one
// that stands for them all. A construct's keys are the names of its blocks, so
// only texts will do.
func (l *loader) elements(expr hclsyntax.Expression, where string, sc scope, construct bool) (es []element, known bool) {
	unknown := []element{{cty.DynamicVal, cty.DynamicVal}}
	if construct {
		unknown[0].key = cty.UnknownVal(cty.String).RefineNotNull()
	}
	v, ok := l.eval(expr, sc)
	if !ok {
		return unknown, false
	}
	refuse := func(summary, format string, args ...any) ([]element, bool) {
		l.add(expr.Range(), summary, format, args...)
		return unknown, false
	}
	if v.IsMarked() || v.Type().IsSetType() && v.ContainsMarked() {
		return refuse("Sensitive for_each", "The elements of for_each are shown in plans and reports, and these come from a sensitive value. Go through what is not secret, and look the secret up inside of the block.")
	}
	ty := v.Type()
	switch {
	case v.IsKnown() && v.IsNull():
		return refuse("Unsuitable for_each", "for_each of %s is null. Write {} for no block, or leave it out for one.", where)
	case ty == cty.DynamicPseudoType:
		return unknown, false
	case construct && (ty.IsListType() || ty.IsTupleType() || ty.IsSetType() && ty.ElementType() != cty.String && ty.ElementType() != cty.DynamicPseudoType):
		return refuse("Unsuitable for_each", "for_each of %s is %s, whose elements have no names. Write toset([…]) for texts, or make a map: { for x in LIST : x.name => x }", where, describe(v))
	case !ty.IsMapType() && !ty.IsObjectType() && !ty.IsListType() && !ty.IsTupleType() && !ty.IsSetType():
		return refuse("Unsuitable for_each", "for_each of %s is %s, and a map or a set of texts is required. Write { NAME = VALUE } or toset([…]).", where, describe(v))
	}
	if ty.IsCollectionType() {
		unknown[0].value = cty.UnknownVal(ty.ElementType())
	}
	if !v.IsKnown() || ty.IsSetType() && !v.IsWhollyKnown() {
		return unknown, false
	}
	for it := v.ElementIterator(); it.Next(); {
		k, e := it.Element()
		if construct && (k.IsNull() || k.AsString() == "") {
			return refuse("Unsuitable for_each", "for_each of %s has an element without a name. Filter it out, or give it one.", where)
		}
		es = append(es, element{k, e})
	}
	return es, true
}

// dynamic is a `dynamic "TYPE" { … }`.
type dynamic struct {
	schema  *Schema
	forEach hclsyntax.Expression
	// label is the only element of labels, as the schema has one label at most;
	// nil where it has none.
	label    hclsyntax.Expression
	iterator string
	content  *hclsyntax.Block
}

// dynamic reads the block b inside of one of the schema s.
func (l *loader) dynamic(b *hclsyntax.Block, where string, s *Schema) (dynamic, bool) {
	before := len(l.diags)
	if !l.checkLabels(b, "type") {
		return dynamic{}, false
	}
	typ := b.Labels[0]
	d := dynamic{schema: s.nested(typ), iterator: typ}
	if d.schema == nil {
		var known []string
		for _, n := range s.Blocks {
			known = append(known, n.Type)
		}
		hint := didYouMean(typ, known)
		if hint == "" {
			hint = " It has " + list(known) + "."
		}
		l.add(b.LabelRanges[0], "Unknown block", "%s has no block %q inside.%s", where, typ, hint)
		return d, false
	}
	where = `dynamic "` + typ + `"`
	l.checkBody(b.Body, where, []string{"for_each", "iterator", "labels"}, []string{"content"})
	for _, c := range b.Body.Blocks {
		switch {
		case c.Type != "content":
		case d.content != nil:
			l.duplicateBlock(c, d.content)
		default:
			l.checkLabels(c, "")
			d.content = c
		}
	}
	if d.content == nil {
		l.add(b.DefRange(), "Missing block", "%s needs content, what stands in each block. Add: content { … }", where)
	}
	if a := b.Body.Attributes["for_each"]; a != nil {
		d.forEach = a.Expr
	} else {
		l.add(b.DefRange(), "Missing attribute", "%s needs for_each. Add: for_each = …, a list, set or map.", where)
	}
	if a := b.Body.Attributes["iterator"]; a != nil {
		d.iterator = hcl.ExprAsKeyword(a.Expr)
		switch {
		case d.iterator == "":
			l.add(a.Expr.Range(), "Unsuitable iterator", "The iterator is a name without quotes. Write: iterator = item")
		case slices.Contains([]string{"var", "local", "host", "each"}, d.iterator):
			l.add(a.Expr.Range(), "Unsuitable iterator", "%s has a meaning already. Give the iterator another name.", d.iterator)
		}
	}
	a := b.Body.Attributes["labels"]
	switch {
	case a == nil && d.schema.Label != "":
		l.add(b.DefRange(), "Missing attribute", "%s needs labels, as each %s has one. Add: labels = [%s.value]", where, typ, typ)
	case a != nil && d.schema.Label == "":
		l.add(a.NameRange, "Unknown attribute", "%s takes no label. Remove labels.", typ)
	case a != nil:
		tuple, ok := bare(a.Expr).(*hclsyntax.TupleConsExpr)
		if !ok || len(tuple.Exprs) != 1 {
			l.add(a.Expr.Range(), "Unsuitable labels", "%s takes one label. Write: labels = [LABEL]", typ)
		} else {
			d.label = tuple.Exprs[0]
		}
	}
	return d, len(l.diags) == before
}

// expand evaluates a dynamic block, and calls add for each block that it makes
// with the place that its label comes from.
func (l *loader) expand(b *hclsyntax.Block, where string, s *Schema, sc scope, add func(Block, *Schema, hcl.Range)) {
	d, ok := l.dynamic(b, where, s)
	if !ok {
		return
	}
	es, known := l.elements(d.forEach, `dynamic "`+d.schema.Type+`"`, sc, false)
	for _, e := range es {
		inside := sc.bind(d.iterator, e)
		nb, at, name := Block{Type: d.schema.Type, Range: b.DefRange()}, b.DefRange(), d.schema.Type
		labelled := true
		if d.label != nil {
			at = d.label.Range()
			if nb.Label, labelled = l.dynamicLabel(d.label, inside); labelled {
				name += " " + strconv.Quote(nb.Label)
			}
		}
		nb.Attrs, nb.Blocks = l.body([]*hclsyntax.Body{d.content.Body}, d.content.DefRange(), name+" of "+where, d.schema, inside)
		if known && labelled {
			add(nb, d.schema, at)
		}
	}
}

// dynamicLabel is false where the label is unknown, or wrong.
func (l *loader) dynamicLabel(expr hclsyntax.Expression, sc scope) (string, bool) {
	v, ok := l.eval(expr, sc)
	if !ok {
		return "", false
	}
	if v.IsMarked() {
		l.add(expr.Range(), "Sensitive label", "Labels are shown in plans and reports, and this one comes from a sensitive value. Write it out.")
		return "", false
	}
	if v, ok = l.convert(expr, v, cty.String, "The label", sc); !ok || !v.IsKnown() {
		return "", false
	}
	if v.IsNull() || v.AsString() == "" {
		l.add(expr.Range(), "Empty label", "A label is not null or empty. Filter such elements out.")
		return "", false
	}
	return v.AsString(), true
}
