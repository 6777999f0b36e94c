package profile

import (
	"cmp"
	"fmt"
	"slices"
	"strconv"

	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/ext/typeexpr"
	"github.com/hashicorp/hcl/v2/hclsyntax"
	"github.com/zclconf/go-cty/cty"
	"github.com/zclconf/go-cty/cty/convert"
)

// constructs evaluates everything that belongs to a Schema, in source order.
func (l *loader) constructs() []Block {
	var blocks []Block
	var typesBlock, typesMap []string
	for _, s := range l.schemas {
		if s.Map {
			typesMap = append(typesMap, s.Type)
		} else {
			typesBlock = append(typesBlock, s.Type)
		}
	}
	for _, a := range sorted(l.body.Attributes) {
		s := l.schemas[a.Name]
		switch {
		case s != nil && s.Map:
			if b, ok := l.mapAttribute(a); ok {
				blocks = append(blocks, b)
			}
		case s != nil:
			l.add(a.NameRange, "Unknown attribute", "%s is a block. Write: %s { … }", a.Name, header(s))
		case slices.Contains(own, a.Name):
			l.add(a.NameRange, "Unknown attribute", "%s is a block. Write: %s { … }", a.Name, a.Name)
		default:
			hint := didYouMean(a.Name, append(slices.Clone(typesMap), typesBlock...))
			if hint == "" {
				hint = " Known are " + list(typesMap) + "; a value for use elsewhere goes into locals { … }."
			}
			l.add(a.NameRange, "Unknown attribute", "A profile has no attribute %q.%s", a.Name, hint)
		}
	}
	first := map[string]*hclsyntax.Block{}
	for _, b := range l.body.Blocks {
		if slices.Contains(own, b.Type) {
			continue
		}
		s := l.schemas[b.Type]
		if s == nil {
			known := append(slices.Clone(own), typesBlock...)
			hint := didYouMean(b.Type, append(known, typesMap...))
			if hint == "" {
				hint = " Known are " + list(known) + "."
			}
			l.add(b.TypeRange, "Unknown block", "A profile has no block %q.%s", b.Type, hint)
			continue
		}
		if s.Map {
			l.add(b.TypeRange, "Unknown block", "%s is an attribute that holds a map. Write: %s = { … }", b.Type, b.Type)
			continue
		}
		if !l.checkLabels(b, s.Label) {
			continue
		}
		id := b.Type
		if !s.Singleton && s.Label != "" {
			id += "." + b.Labels[0]
		}
		if f := first[id]; f != nil && (s.Singleton || s.Label != "") {
			l.duplicateBlock(b, f)
			continue
		}
		first[id] = b
		blocks = append(blocks, l.block(b, s))
	}
	slices.SortFunc(blocks, func(a, b Block) int { return cmp.Compare(a.Range.Start.Byte, b.Range.Start.Byte) })
	return blocks
}

// header is how a block of the schema starts.
func header(s *Schema) string {
	if s.Label == "" {
		return s.Type
	}
	return s.Type + ` "NAME"`
}

func (l *loader) block(b *hclsyntax.Block, s *Schema) Block {
	out := Block{Type: s.Type, Range: b.DefRange(), Attrs: map[string]Value{}}
	where := s.Type
	if s.Label != "" {
		out.Label = b.Labels[0]
		where += " " + strconv.Quote(out.Label)
	}
	known := make([]string, len(s.Attrs))
	for i, a := range s.Attrs {
		known[i] = a.Name
	}
	l.checkBody(b.Body, where, known, nil)
	for _, a := range s.Attrs {
		null := false
		if attr := b.Body.Attributes[a.Name]; attr != nil {
			v, ok := l.eval(attr.Expr, anywhere)
			if ok {
				v, ok = l.convert(attr.Expr, v, a.Type, a.Name+" of "+where)
			}
			if !ok {
				continue
			}
			if null = v.IsNull(); !null {
				out.Attrs[a.Name] = l.value(attr.Expr, attr.Expr.Range(), v)
				continue
			}
			// null is how an expression says "as if left out".
			if a.Required {
				l.add(attr.Expr.Range(), "Missing attribute", "%s needs %s, and this is null. Give it a value of type %s.",
					where, a.Name, typeName(a.Type))
				continue
			}
		}
		switch {
		case a.Required && !null:
			l.add(b.DefRange(), "Missing attribute", "%s needs %s. Add: %s = …, of type %s.", where, a.Name, a.Name, typeName(a.Type))
		case a.Default != cty.NilVal:
			v, err := convert.Convert(a.Default, a.Type)
			if err != nil {
				panic(fmt.Sprintf("profile: default of %s.%s: %v", s.Type, a.Name, err))
			}
			out.Attrs[a.Name] = l.value(nil, b.DefRange(), v)
		}
	}
	return out
}

// mapAttribute evaluates a top-level map key by key: an unknown key leaves the
// others known, and each keeps its own range.
func (l *loader) mapAttribute(a *hclsyntax.Attribute) (Block, bool) {
	out := Block{Type: a.Name, Range: a.NameRange}
	done := func(v Value) (Block, bool) {
		out.Attrs = map[string]Value{a.Name: v}
		return out, true
	}
	object, ok := bare(a.Expr).(*hclsyntax.ObjectConsExpr)
	if !ok {
		v, ok := l.eval(a.Expr, anywhere)
		if !ok {
			return out, false
		}
		bare, marks := v.Unmark()
		switch ty := v.Type(); {
		case bare.IsNull():
			return out, false
		case ty != cty.DynamicPseudoType && !ty.IsMapType() && !ty.IsObjectType():
			l.add(a.Expr.Range(), "Unsuitable value", "%s is a map, not a %s. Write: %s = { \"KEY\" = VALUE }", a.Name, ty.FriendlyName(), a.Name)
			return out, false
		case len(marks) > 0:
			l.sensitiveKeys(a.Expr.Range(), a.Name)
			return out, false
		}
		return done(l.value(a.Expr, a.Expr.Range(), v))
	}

	value := Value{Range: a.Expr.Range()}
	elements := map[string]cty.Value{}
	first := map[string]hcl.Range{}
	complete, good := true, true
	for _, item := range object.Items {
		key, keyOK := l.eval(item.KeyExpr, anywhere)
		v, valueOK := l.eval(item.ValueExpr, anywhere)
		if !keyOK {
			good = false
			continue
		}
		if key.IsMarked() {
			l.sensitiveKeys(item.KeyExpr.Range(), a.Name)
			good = false
			continue
		}
		if !key.IsKnown() {
			complete = false
			continue
		}
		name, ok := keyText(key)
		if !ok {
			l.add(item.KeyExpr.Range(), "Unsuitable key", "A key is a text, not %s. Write it in quotes.", describe(key))
			good = false
			continue
		}
		r := item.KeyExpr.Range()
		if f, dup := first[name]; dup {
			l.diags = append(l.diags, duplicateKey(name, r, f))
			good = false
			continue
		}
		first[name] = r
		good = good && valueOK
		if !valueOK {
			continue
		}
		elements[name] = v
		value.Entries = append(value.Entries, Entry{Key: name, KeyRange: r, Value: l.value(item.ValueExpr, item.ValueExpr.Range(), v)})
	}
	value.Value = cty.DynamicVal
	if complete {
		value.Value = cty.ObjectVal(elements)
	}
	b, _ := done(value)
	return b, good
}

func (l *loader) sensitiveKeys(r hcl.Range, name string) {
	l.add(r, "Sensitive key", "The keys of %s are shown in plans and reports, and this one comes from a sensitive value. "+
		"Write the key out; its value may be sensitive.", name)
}

// value gives v the range r of its expression, and its elements theirs. A nil
// expr means that elements cannot be found in the source.
func (l *loader) value(expr hclsyntax.Expression, r hcl.Range, v cty.Value) Value {
	out := Value{Value: v, Range: r}
	ty := v.Type()
	if v.IsMarked() || !v.IsKnown() || v.IsNull() || !ty.IsMapType() && !ty.IsObjectType() {
		return out
	}
	elements := v.AsValueMap()
	if expr != nil {
		if object, ok := bare(expr).(*hclsyntax.ObjectConsExpr); ok {
			for _, item := range object.Items {
				// It was evaluated before, so it has no errors to report.
				key, _ := item.KeyExpr.Value(l.context(item.KeyExpr))
				name, ok := keyText(key)
				e, has := elements[name]
				if !ok || !has {
					continue // an optional or unknown attribute that the type does not have
				}
				delete(elements, name)
				out.Entries = append(out.Entries, Entry{
					Key: name, KeyRange: item.KeyExpr.Range(), Value: l.value(item.ValueExpr, item.ValueExpr.Range(), e),
				})
			}
		}
	}
	for _, name := range names(elements) {
		out.Entries = append(out.Entries, Entry{Key: name, KeyRange: r, Value: l.value(nil, r, elements[name])})
	}
	return out
}

// keyText is a map's key as HCL makes it: numbers and bools are texts.
func keyText(key cty.Value) (string, bool) {
	if key.IsMarked() || !key.IsKnown() || key.IsNull() || !key.Type().IsPrimitiveType() {
		return "", false
	}
	s, err := convert.Convert(key, cty.String)
	if err != nil {
		return "", false
	}
	return s.AsString(), true
}

// describe is the type of v, for messages.
func describe(v cty.Value) string {
	if v.IsNull() {
		return "null"
	}
	name := v.Type().FriendlyName()
	if name != "" && slices.Contains([]byte("aeiou"), name[0]) {
		return "an " + name
	}
	return "a " + name
}

// typeName is ty as the language writes it.
func typeName(ty cty.Type) string {
	if hasCapsule(ty) {
		return ty.FriendlyName()
	}
	return typeexpr.TypeString(ty)
}

// hasCapsule tells whether typeexpr cannot write ty.
func hasCapsule(ty cty.Type) bool {
	switch {
	case ty.IsCapsuleType():
		return true
	case ty.IsCollectionType():
		return hasCapsule(ty.ElementType())
	case ty.IsTupleType():
		return slices.ContainsFunc(ty.TupleElementTypes(), hasCapsule)
	case ty.IsObjectType():
		for _, a := range ty.AttributeTypes() {
			if hasCapsule(a) {
				return true
			}
		}
	}
	return false
}
