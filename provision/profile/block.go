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

// construct is what all sources together say of one construct, in rising
// precedence: the attributes of a Map, else the blocks of one type and label.
type construct struct {
	schema *Schema
	attrs  []*hclsyntax.Attribute
	blocks []*hclsyntax.Block
	// broken: it has mistakes, so that it gives no block.
	broken bool
}

// scope is what expressions in its body may refer to, but for each.
func (c *construct) scope() scope {
	s := anywhere
	s.forEach = c.schema.ForEach
	return s
}

// rng is where the construct stands in the order of the source: where it is
// said last.
func (c *construct) rng() hcl.Range {
	if c.schema.Map {
		return c.attrs[len(c.attrs)-1].NameRange
	}
	return c.blocks[len(c.blocks)-1].DefRange()
}

// where is what messages call a block.
func (c *construct) where() string {
	b := c.blocks[len(c.blocks)-1]
	return blockName(c.schema, b.Labels)
}

func blockName(s *Schema, labels []string) string {
	if s.Label == "" || len(labels) == 0 {
		return s.Type
	}
	return s.Type + " " + strconv.Quote(labels[0])
}

// constructs collects everything that belongs to a Schema, in source order, and
// reports what is wrong by its text alone.
func (l *loader) constructs() []*construct {
	var all []*construct
	known := map[string]*construct{}
	for _, u := range l.units {
		for _, a := range sorted(u.body.Attributes) {
			s := l.schemas[a.Name]
			if s == nil || !s.Map {
				l.unknownAttribute(a)
				continue
			}
			c := known[a.Name]
			if c == nil {
				c = &construct{schema: s}
				known[a.Name] = c
				all = append(all, c)
			}
			c.attrs = append(c.attrs, a)
		}
		for _, b := range u.body.Blocks {
			if slices.Contains(own, b.Type) {
				continue
			}
			s := l.schemas[b.Type]
			if s == nil || s.Map {
				l.unknownBlock(b)
				continue
			}
			if !l.checkLabels(b, s.Label) {
				continue
			}
			c := &construct{schema: s}
			if s.Singleton || s.Label != "" {
				id := b.Type
				if !s.Singleton {
					id += "." + b.Labels[0]
				}
				if known[id] != nil {
					c = known[id]
				}
				known[id] = c
			}
			if n := len(c.blocks); n > 0 && sameSource(c.blocks[n-1].DefRange(), b.DefRange()) {
				c.broken = true
				l.duplicateBlock(b, c.blocks[n-1])
				continue
			}
			if c.blocks = append(c.blocks, b); len(c.blocks) == 1 {
				all = append(all, c)
			}
		}
	}
	slices.SortFunc(all, func(a, b *construct) int { return l.compare(a.rng(), b.rng()) })
	for _, c := range all {
		l.checkConstruct(c)
	}
	return all
}

// compare orders places as the profile is read: by source, what is included
// first, and then by byte.
func (l *loader) compare(a, b hcl.Range) int {
	unit := func(r hcl.Range) int {
		return slices.IndexFunc(l.units, func(u *unit) bool { return u.src.Name == r.Filename })
	}
	return cmp.Or(cmp.Compare(unit(a), unit(b)), cmp.Compare(a.Start.Byte, b.Start.Byte))
}

// types are the names of the schemas that are maps, or of the others.
func (l *loader) types(maps bool) []string {
	var out []string
	for _, name := range names(l.schemas) {
		if l.schemas[name].Map == maps {
			out = append(out, name)
		}
	}
	return out
}

func (l *loader) unknownAttribute(a *hclsyntax.Attribute) {
	s := l.schemas[a.Name]
	switch {
	case s != nil:
		l.add(a.NameRange, "Unknown attribute", "%s is a block. Write: %s { … }", a.Name, header(s))
	case slices.Contains(own, a.Name):
		l.add(a.NameRange, "Unknown attribute", "%s is a block. Write: %s { … }", a.Name, a.Name)
	default:
		hint := didYouMean(a.Name, append(l.types(true), l.types(false)...))
		if hint == "" {
			hint = " Known are " + list(l.types(true)) + "; a value for use elsewhere goes into locals { … }."
		}
		l.add(a.NameRange, "Unknown attribute", "A profile has no attribute %q.%s", a.Name, hint)
	}
}

func (l *loader) unknownBlock(b *hclsyntax.Block) {
	if l.schemas[b.Type] != nil {
		l.add(b.TypeRange, "Unknown block", "%s is an attribute that holds a map. Write: %s = { … }", b.Type, b.Type)
		return
	}
	known := append(slices.Clone(own), l.types(false)...)
	hint := didYouMean(b.Type, append(slices.Clone(known), l.types(true)...))
	switch {
	case b.Type == "dynamic":
		hint = " dynamic makes blocks inside of a block; at the top level, write for_each into the block itself."
	case hint == "":
		hint = " Known are " + list(known) + "."
	}
	l.add(b.TypeRange, "Unknown block", "A profile has no block %q.%s", b.Type, hint)
}

// header is how a block of the schema starts.
func header(s *Schema) string {
	if s.Label == "" {
		return s.Type
	}
	return s.Type + ` "NAME"`
}

// checkConstruct reports what the text of a construct alone shows, also in what
// this host does not evaluate.
func (l *loader) checkConstruct(c *construct) {
	before := len(l.diags)
	defer func() { c.broken = c.broken || len(l.diags) > before }()
	for _, a := range c.attrs {
		l.check(a.Expr, anywhere)
	}
	inside := c.scope()
	if c.forEach() != nil {
		inside = inside.bind("each", element{cty.UnknownVal(cty.String), cty.DynamicVal})
	}
	for _, b := range c.blocks {
		l.checkText(b.Body, blockName(c.schema, b.Labels), c.schema, inside)
	}
}

// checkText reports what the text of a body alone shows, nested blocks included.
func (l *loader) checkText(body *hclsyntax.Body, where string, s *Schema, sc scope) {
	var attrs, blocks []string
	for _, a := range s.Attrs {
		attrs = append(attrs, a.Name)
		if attr := body.Attributes[a.Name]; attr != nil {
			l.check(attr.Expr, sc)
		}
	}
	if s.ForEach {
		attrs = append(attrs, "for_each")
		if attr := body.Attributes["for_each"]; attr != nil {
			l.check(attr.Expr, anywhere)
		}
	}
	for _, b := range s.Blocks {
		blocks = append(blocks, b.Type)
	}
	allowed := blocks
	if len(blocks) > 0 {
		allowed = append(slices.Clone(blocks), "dynamic")
	}
	l.checkBody(body, where, attrs, allowed)
	for _, b := range body.Blocks {
		if b.Type == "dynamic" && len(blocks) > 0 {
			if d, ok := l.dynamic(b, where, s); ok {
				l.check(d.forEach, sc)
				inside := sc.bind(d.iterator, element{cty.DynamicVal, cty.DynamicVal})
				if d.label != nil {
					l.check(d.label, inside)
				}
				l.checkText(d.content.Body, d.schema.Type+" of "+where, d.schema, inside)
			}
			continue
		}
		if nested := s.nested(b.Type); nested != nil && l.checkLabels(b, nested.Label) {
			l.checkText(b.Body, blockName(nested, b.Labels)+" of "+where, nested, sc)
		}
	}
}

// nested returns the schema of a block inside, or nil.
func (s *Schema) nested(typ string) *Schema {
	for i := range s.Blocks {
		if s.Blocks[i].Type == typ {
			return &s.Blocks[i]
		}
	}
	return nil
}

// needed are the local values that the constructs to be evaluated refer to, or
// nil for all.
func (l *loader) needed(cs []*construct) []string {
	if l.options.Only == nil {
		return nil
	}
	out := []string{}
	refer := func(n hclsyntax.Node) {
		_ = hclsyntax.VisitAll(n, func(n hclsyntax.Node) hcl.Diagnostics {
			if t, ok := n.(*hclsyntax.ScopeTraversalExpr); ok && t.Traversal.RootName() == "local" {
				if name, ok := secondStep(t.Traversal); ok {
					out = append(out, name)
				}
			}
			return nil
		})
	}
	for _, u := range l.units {
		for _, b := range u.body.Blocks {
			if b.Type == "match" {
				refer(b.Body)
			}
		}
	}
	for _, c := range cs {
		if !l.only(c.schema.Type) {
			continue
		}
		for _, a := range c.attrs {
			refer(a.Expr)
		}
		for _, b := range c.blocks {
			refer(b.Body)
		}
	}
	return out
}

// evaluate gives the blocks of a construct: one, or one for each element; none
// with a mistake in its text or its values.
func (l *loader) evaluate(c *construct) []Block {
	if !l.only(c.schema.Type) {
		return nil
	}
	before := len(l.diags)
	var blocks []Block
	each := c.forEach()
	switch {
	case c.schema.Map:
		blocks = l.mapConstruct(c)
	case each == nil:
		blocks = []Block{l.block(c, "", c.scope())}
	default:
		elements, known := l.elements(each.Expr, c.where(), anywhere, true)
		if !known {
			l.block(c, "", c.scope().bind("each", elements[0])) // for its mistakes
			return nil
		}
		for _, e := range elements {
			blocks = append(blocks, l.block(c, e.key.AsString(), c.scope().bind("each", e)))
		}
	}
	// Keys of a map with a mistake are left out one by one.
	if !c.schema.Map && (c.broken || len(l.diags) > before) {
		return nil
	}
	return blocks
}

func (c *construct) forEach() *hclsyntax.Attribute {
	if c.schema.Map || !c.schema.ForEach {
		return nil
	}
	return lastAttribute(c.bodies(), "for_each")
}

func (c *construct) bodies() []*hclsyntax.Body {
	var out []*hclsyntax.Body
	for _, b := range c.blocks {
		out = append(out, b.Body)
	}
	return out
}

// lastAttribute is the attribute of the last body that has it, or nil.
func lastAttribute(bodies []*hclsyntax.Body, name string) *hclsyntax.Attribute {
	for _, b := range slices.Backward(bodies) {
		if a := b.Attributes[name]; a != nil {
			return a
		}
	}
	return nil
}

func (l *loader) block(c *construct, each string, sc scope) Block {
	out := Block{Type: c.schema.Type, Each: each, Range: c.rng()}
	if c.schema.Label != "" {
		out.Label = c.blocks[len(c.blocks)-1].Labels[0]
	}
	out.Attrs, out.Blocks = l.body(c.bodies(), c.rng(), c.where(), c.schema, sc)
	return out
}

// body evaluates what several bodies, in rising precedence, say of one block:
// attribute by attribute the last one holds, and nested blocks of a type are
// those of the last body that has any.
func (l *loader) body(bodies []*hclsyntax.Body, head hcl.Range, where string, s *Schema, sc scope) (map[string]Value, []Block) {
	attrs := map[string]Value{}
	for i := range s.Attrs {
		a := &s.Attrs[i]
		null := false
		if attr := lastAttribute(bodies, a.Name); attr != nil {
			v, ok := l.attribute(attr.Expr, a, where, sc)
			if !ok {
				continue
			}
			if raw, _ := v.Unmark(); !raw.IsKnown() || !raw.IsNull() {
				attrs[a.Name] = v
				continue
			}
			// null is how an expression says "as if left out".
			if null = true; a.Required {
				l.add(attr.Expr.Range(), "Missing attribute", "%s needs %s, and this is null. Give it a value of type %s.",
					where, a.Name, typeName(a.Type))
				continue
			}
		}
		switch {
		case a.Required && !null:
			l.add(head, "Missing attribute", "%s needs %s. Add: %s = …, of type %s.", where, a.Name, a.Name, typeName(a.Type))
		case a.Default != cty.NilVal:
			v, err := convert.Convert(a.Default, a.Type)
			if err != nil {
				panic(fmt.Sprintf("profile: default of %s.%s: %v", s.Type, a.Name, err))
			}
			attrs[a.Name] = l.value(nil, head, v, sc)
		}
	}
	return attrs, l.nestedBlocks(bodies, where, s, sc)
}

func (l *loader) nestedBlocks(bodies []*hclsyntax.Body, where string, s *Schema, sc scope) []Block {
	if len(s.Blocks) == 0 {
		return nil
	}
	from := map[string]*hclsyntax.Body{} // the last body that has any of a type
	for _, body := range bodies {
		for _, b := range body.Blocks {
			if b.Type == "dynamic" && len(b.Labels) > 0 {
				from[b.Labels[0]] = body
			} else {
				from[b.Type] = body
			}
		}
	}
	var out []Block
	first := map[string]hcl.Range{}
	add := func(b Block, n *Schema, at hcl.Range) {
		if n.Singleton || n.Label != "" {
			id := n.Type
			if !n.Singleton {
				id += "." + b.Label
			}
			if r, dup := first[id]; dup {
				name := blockName(n, []string{b.Label})
				switch {
				case n.Singleton && r != at:
					l.add(at, "Duplicate block", "%s has one %s at most, and there is one at %s. Merge the two, or remove one.", where, n.Type, place(r))
				case n.Singleton:
					l.add(at, "Duplicate block", "%s has one %s at most, and more than one element makes one. Filter them.", where, n.Type)
				case r == at:
					l.add(at, "Duplicate block", "More than one element makes a block %s. Give each another label, or filter them.", name)
				default:
					l.add(at, "Duplicate block", "%s is already there at %s. Merge the two, or remove one.", name, place(r))
				}
				return
			}
			first[id] = at
		}
		out = append(out, b)
	}
	for _, body := range bodies {
		for _, b := range body.Blocks {
			if b.Type == "dynamic" {
				if len(b.Labels) > 0 && from[b.Labels[0]] == body {
					l.expand(b, where, s, sc, add)
				}
				continue
			}
			n := s.nested(b.Type)
			if n == nil || from[b.Type] != body || n.Label != "" && (len(b.Labels) == 0 || b.Labels[0] == "") {
				continue // told by checkText
			}
			nb := Block{Type: n.Type, Range: b.DefRange()}
			if n.Label != "" {
				nb.Label = b.Labels[0]
			}
			nb.Attrs, nb.Blocks = l.body([]*hclsyntax.Body{b.Body}, b.DefRange(), blockName(n, b.Labels)+" of "+where, n, sc)
			add(nb, n, b.DefRange())
		}
	}
	return out
}

// attribute evaluates expr as the value of a.
func (l *loader) attribute(expr hclsyntax.Expression, a *Attr, where string, sc scope) (Value, bool) {
	v, ok := l.eval(expr, sc)
	if !ok {
		return Value{}, false
	}
	v, effort := takeEfforts(v)
	what := a.Name + " of " + where
	if !l.allowed(expr, v, effort, a.BestEffort && (!a.Type.IsSetType() || len(effort.parts) == 0), what, sc) {
		return Value{}, false
	}
	if v, ok = l.convert(expr, v, a.Type, what, sc); !ok {
		return Value{}, false
	}
	out := l.value(expr, expr.Range(), v, sc)
	out.mark(effort)
	return out, true
}

// mark sets BestEffort.
func (v *Value) mark(e efforts) {
	v.BestEffort = e.whole
	for i := range v.Entries {
		v.Entries[i].Value.BestEffort = e.parts[v.Entries[i].Key]
	}
}

// allowed reports best_effort() where nothing can be made of it.
func (l *loader) allowed(expr hclsyntax.Expression, v cty.Value, e efforts, may bool, what string, sc scope) bool {
	good := true
	refuse := func(r hcl.Range) {
		good = false
		l.add(r, "best_effort() not possible", "best_effort() is for what a host may lack, and %s is not such a setting. Write the value without it.", what)
	}
	if !may {
		if e.whole {
			refuse(expr.Range())
		}
		for _, k := range names(e.parts) {
			r := expr.Range()
			for _, key := range []cty.Value{cty.StringVal(k), indexValue(k)} {
				if inner := l.element(expr, key, sc); inner != nil {
					r = inner.Range()
				}
			}
			refuse(r)
		}
	}
	if good && holds(v.Type(), isBestEffort) {
		good = false
		l.add(expr.Range(), "best_effort() not possible", "best_effort() stands around %s or around an element of it, and not deeper inside or in a set. Move it out.", what)
	}
	return good
}

// mapConstruct evaluates what the sources say of a top-level map, key by key: an
// unknown key leaves the others known, each keeps its own range, and the last
// source that has a key holds.
func (l *loader) mapConstruct(c *construct) []Block {
	out := Block{Type: c.schema.Type, Range: c.rng()}
	var all []Entry
	var taken []bool       // out of all
	at := map[string]int{} // the last entry of a key
	complete, some := true, false
	value := Value{}
	for _, a := range c.attrs {
		entries, known, present := l.mapEntries(a)
		if !present {
			continue
		}
		some = true
		complete = complete && known
		value.Range = a.Expr.Range()
		for _, e := range entries {
			i, overrides := at[e.Key]
			if overrides {
				taken[i] = true
			}
			at[e.Key] = len(all)
			all = append(all, e)
			// null takes out what is included; else it is the kind's to ignore.
			taken = append(taken, overrides && e.Value.isNull())
		}
	}
	if !some {
		return nil
	}
	for i, e := range all {
		if !taken[i] {
			value.Entries = append(value.Entries, e)
		}
	}
	value.Value = cty.DynamicVal
	if complete {
		elements := map[string]cty.Value{}
		for _, e := range value.Entries {
			elements[e.Key] = e.Value.Value
		}
		value.Value = cty.ObjectVal(elements)
	}
	out.Attrs = map[string]Value{c.schema.Type: value}
	return []Block{out}
}

func (v Value) isNull() bool {
	raw, _ := v.Unmark()
	return raw.IsKnown() && raw.IsNull()
}

// mapEntries evaluates a top-level map of one source. It is not present where it
// is null, or after a mistake, and not known where a key is unknown; then the
// entries are the others.
func (l *loader) mapEntries(a *hclsyntax.Attribute) (entries []Entry, known, present bool) {
	object, literal := bare(a.Expr).(*hclsyntax.ObjectConsExpr)
	if !literal {
		return l.mapExpression(a)
	}
	known = true
	first := map[string]hcl.Range{}
	for _, item := range object.Items {
		key, keyOK := l.eval(item.KeyExpr, anywhere)
		v, valueOK := l.eval(item.ValueExpr, anywhere)
		r := item.KeyExpr.Range()
		switch {
		case !keyOK:
			continue
		case key.IsMarked():
			l.sensitiveKeys(r, a.Name)
			continue
		case !key.IsKnown():
			known = false
			continue
		}
		name, isText := keyText(key)
		if !isText {
			l.add(r, "Unsuitable key", "A key is a text, not %s. Write it in quotes.", describe(key))
			continue
		}
		if f, dup := first[name]; dup {
			l.diags = append(l.diags, duplicateKey(name, r, f))
			continue
		}
		first[name] = r
		if !valueOK {
			continue
		}
		e := Entry{Key: name, KeyRange: r}
		if e.Value, valueOK = l.mapValue(item.ValueExpr, item.ValueExpr.Range(), v, name, a.Name); valueOK {
			entries = append(entries, e)
		}
	}
	return entries, known, true
}

// mapExpression is mapEntries of a map that is not written out.
func (l *loader) mapExpression(a *hclsyntax.Attribute) (entries []Entry, known, present bool) {
	r := a.Expr.Range()
	v, ok := l.eval(a.Expr, anywhere)
	if !ok {
		return nil, true, false
	}
	raw, marks := v.Unmark()
	switch ty := v.Type(); {
	case raw.IsKnown() && raw.IsNull():
		return nil, true, false
	case isBestEffort(ty):
		l.add(r, "best_effort() not possible", "best_effort() stands around each value of %s, not around all of it. Write: %s = { \"KEY\" = best_effort(VALUE) }", a.Name, a.Name)
		return nil, true, false
	case ty != cty.DynamicPseudoType && !ty.IsMapType() && !ty.IsObjectType():
		l.add(r, "Unsuitable value", "%s is a map, not a %s. Write: %s = { \"KEY\" = VALUE }", a.Name, ty.FriendlyName(), a.Name)
		return nil, true, false
	case len(marks) > 0:
		l.sensitiveKeys(r, a.Name)
		return nil, true, false
	case !raw.IsKnown():
		return nil, false, true
	}
	elements := v.AsValueMap()
	for _, name := range names(elements) {
		e := Entry{Key: name, KeyRange: r}
		if e.Value, ok = l.mapValue(nil, r, elements[name], name, a.Name); ok {
			entries = append(entries, e)
		}
	}
	return entries, true, true
}

// mapValue is the value v of a key of a top-level map.
func (l *loader) mapValue(expr hclsyntax.Expression, r hcl.Range, v cty.Value, key, of string) (Value, bool) {
	v, effort := takeEfforts(v)
	if len(effort.parts) > 0 || holds(v.Type(), isBestEffort) {
		l.add(r, "best_effort() not possible", "best_effort() stands around the whole value of %q in %s, not inside of it. Move it out.", key, of)
		return Value{}, false
	}
	out := l.value(expr, r, v, anywhere)
	out.mark(effort)
	return out, true
}

func (l *loader) sensitiveKeys(r hcl.Range, name string) {
	l.add(r, "Sensitive key", "The keys of %s are shown in plans and reports, and this one comes from a sensitive value. "+
		"Write the key out; its value may be sensitive.", name)
}

// value gives v the range r of its expression, and its elements theirs. A nil
// expr means that elements cannot be found in the source.
func (l *loader) value(expr hclsyntax.Expression, r hcl.Range, v cty.Value, sc scope) Value {
	out := Value{Value: v, Range: r}
	if v.IsMarked() || !v.IsKnown() || v.IsNull() {
		return out
	}
	if expr != nil {
		expr = written(expr)
	}
	switch ty := v.Type(); {
	case ty.IsMapType() || ty.IsObjectType():
		elements := v.AsValueMap()
		if object, ok := expr.(*hclsyntax.ObjectConsExpr); ok {
			for _, item := range object.Items {
				// It was evaluated before, so it has no errors to report.
				key, _ := item.KeyExpr.Value(l.context(item.KeyExpr, sc))
				name, ok := keyText(key)
				e, has := elements[name]
				if !ok || !has {
					continue // an optional or unknown attribute that the type does not have
				}
				delete(elements, name)
				out.Entries = append(out.Entries, Entry{
					Key: name, KeyRange: item.KeyExpr.Range(), Value: l.value(item.ValueExpr, item.ValueExpr.Range(), e, sc),
				})
			}
		}
		for _, name := range names(elements) {
			out.Entries = append(out.Entries, Entry{Key: name, KeyRange: r, Value: l.value(nil, r, elements[name], sc)})
		}
	case ty.IsListType() || ty.IsTupleType():
		elements := v.AsValueSlice()
		tuple, ok := expr.(*hclsyntax.TupleConsExpr)
		ok = ok && len(tuple.Exprs) == len(elements)
		for i, v := range elements {
			e := Entry{Key: indexKey(i), KeyRange: r, Value: Value{}}
			if ok {
				inner := tuple.Exprs[i]
				e.KeyRange, e.Value = inner.Range(), l.value(inner, inner.Range(), v, sc)
			} else {
				e.Value = l.value(nil, r, v, sc)
			}
			out.Entries = append(out.Entries, e)
		}
	}
	return out
}

// indexKey is the Entry.Key of a list's element; indexValue is the other way
// round, null where the key is none.
func indexKey(i int) string { return strconv.Itoa(i) }

func indexValue(key string) cty.Value {
	i, err := strconv.Atoi(key)
	if err != nil {
		return cty.NullVal(cty.Number)
	}
	return cty.NumberIntVal(int64(i))
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
	if holds(ty, cty.Type.IsCapsuleType) {
		return ty.FriendlyName()
	}
	return typeexpr.TypeString(ty)
}

// holds tells whether a type is or has inside what is asked for.
func holds(ty cty.Type, is func(cty.Type) bool) bool {
	inner := func(ty cty.Type) bool { return holds(ty, is) }
	switch {
	case is(ty):
		return true
	case ty.IsCollectionType():
		return inner(ty.ElementType())
	case ty.IsTupleType():
		return slices.ContainsFunc(ty.TupleElementTypes(), inner)
	case ty.IsObjectType():
		for _, a := range ty.AttributeTypes() {
			if inner(a) {
				return true
			}
		}
	}
	return false
}
