package profile

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/hclsyntax"
	"github.com/zclconf/go-cty/cty"
)

// scope is what an expression may refer to.
type scope struct {
	// where it is, for messages: "The default of a variable".
	where    string
	constant bool // neither references nor functions
	// instead is a remedy besides writing the value itself.
	instead string
	locals  bool // local.NAME too, not only var.NAME and host
	forEach bool // the block may have for_each
	// bound are each and the iterators of dynamic blocks: objects with key and
	// value.
	bound map[string]cty.Value
}

// bind adds a name for an element.
func (s scope) bind(name string, e element) scope {
	bound := maps.Clone(s.bound)
	if bound == nil {
		bound = map[string]cty.Value{}
	}
	bound[name] = cty.ObjectVal(map[string]cty.Value{"key": e.key, "value": e.value})
	s.bound = bound
	return s
}

var anywhere = scope{locals: true}

// eval checks and evaluates expr and reports all its errors. Where ok is false,
// v is unknown, so that whatever depends on it gives no further errors.
func (l *loader) eval(expr hclsyntax.Expression, s scope) (v cty.Value, ok bool) {
	if !l.check(expr, s) {
		return cty.DynamicVal, false
	}
	ctx := l.context(expr, s)
	v, diags := expr.Value(ctx)
	for _, d := range diags {
		explain(d, expr, ctx)
	}
	l.diags = append(l.diags, diags...)
	if diags.HasErrors() {
		return cty.DynamicVal, false
	}
	if infinite(v) {
		l.add(expr.Range(), "Number is infinite", "It is divided by zero, or too large. Check the divisor and the exponent.")
		return cty.DynamicVal, false
	}
	return v, true
}

// check reports what is wrong with expr by its text alone.
func (l *loader) check(expr hclsyntax.Expression, s scope) bool {
	diags := hclsyntax.Walk(expr, &referenceWalker{loader: l, in: s})
	l.diags = append(l.diags, diags...)
	return !diags.HasErrors()
}

// infinite tells whether v is or holds what HCL makes of a division by zero.
func infinite(v cty.Value) bool {
	found := false
	v, _ = v.UnmarkDeep()
	_ = cty.Walk(v, func(_ cty.Path, e cty.Value) (bool, error) {
		found = found || e.Type() == cty.Number && e.IsKnown() && !e.IsNull() && e.AsBigFloat().IsInf()
		return !found, nil
	})
	return found
}

// context holds just what expr refers to: building the whole of var and local
// for every expression takes quadratic time.
func (l *loader) context(expr hclsyntax.Expression, s scope) *hcl.EvalContext {
	vars, locals := map[string]cty.Value{}, map[string]cty.Value{}
	for _, t := range expr.Variables() {
		name, _ := secondStep(t)
		switch t.RootName() {
		case "var":
			if v := l.vars[name]; v != nil {
				vars[name] = v.value
			}
		case "local":
			if v := l.locals[name]; v != nil {
				locals[name] = v.value
			}
		}
	}
	ctx := &hcl.EvalContext{
		Variables: map[string]cty.Value{"var": cty.ObjectVal(vars), "local": cty.ObjectVal(locals), "host": l.host},
		Functions: l.functionsFor(expr.Range().Filename),
	}
	maps.Copy(ctx.Variables, s.bound)
	return ctx
}

// secondStep returns the NAME of var.NAME or var["NAME"].
func secondStep(t hcl.Traversal) (string, bool) {
	if len(t) < 2 {
		return "", false
	}
	return stepName(t[1])
}

func stepName(step hcl.Traverser) (string, bool) {
	switch step := step.(type) {
	case hcl.TraverseAttr:
		return step.Name, true
	case hcl.TraverseIndex:
		if step.Key.Type() == cty.String {
			return step.Key.AsString(), true
		}
	}
	return "", false
}

// referenceWalker finds what can be told from the text alone: names that do not
// exist, also in branches that this host does not take.
type referenceWalker struct {
	*loader
	in       scope
	local    []map[string]struct{}         // names that a for expression binds
	tolerant int                           // depth of can() and try(), which are there to ask for what may be missing
	skip     *hclsyntax.ScopeTraversalExpr // already complained about
}

func (w *referenceWalker) Enter(n hclsyntax.Node) hcl.Diagnostics {
	switch n := n.(type) {
	case hclsyntax.ChildScope:
		w.local = append(w.local, n.LocalNames)
	case *hclsyntax.FunctionCallExpr:
		if n.Name == "can" || n.Name == "try" {
			w.tolerant++
		}
		return w.call(n)
	case *hclsyntax.ObjectConsExpr:
		return w.duplicateKeys(n)
	case *hclsyntax.ObjectConsKeyExpr:
		return w.dottedKey(n)
	case *hclsyntax.ScopeTraversalExpr:
		for _, names := range w.local {
			if _, ok := names[n.Traversal.RootName()]; ok {
				return nil
			}
		}
		if n != w.skip {
			return w.reference(n)
		}
	}
	return nil
}

func (w *referenceWalker) Exit(n hclsyntax.Node) hcl.Diagnostics {
	switch n := n.(type) {
	case hclsyntax.ChildScope:
		w.local = w.local[:len(w.local)-1]
	case *hclsyntax.FunctionCallExpr:
		if n.Name == "can" || n.Name == "try" {
			w.tolerant--
		}
	}
	return nil
}

func (w *referenceWalker) call(n *hclsyntax.FunctionCallExpr) hcl.Diagnostics {
	if w.in.constant {
		return hcl.Diagnostics{problem(n.Range(), "Function call not allowed",
			"%s has to be a constant. Write the value itself%s.", w.in.where, w.in.instead)}
	}
	functions := w.functionsFor(n.NameRange.Filename)
	if _, ok := functions[n.Name]; ok {
		return nil
	}
	known := names(functions)
	hint := didYouMean(n.Name, known)
	if hint == "" {
		hint = " The reference of the profile lists all functions."
	}
	return hcl.Diagnostics{problem(n.NameRange, "Unknown function", "There is no function named %q.%s", n.Name, hint)}
}

// duplicateKeys looks at keys that are written out; of two that are equal, HCL
// itself would silently take the second.
func (w *referenceWalker) duplicateKeys(n *hclsyntax.ObjectConsExpr) hcl.Diagnostics {
	var diags hcl.Diagnostics
	first := map[string]hcl.Range{}
	for _, item := range n.Items {
		if len(item.KeyExpr.Variables()) > 0 {
			continue
		}
		k, err := item.KeyExpr.Value(nil)
		if err.HasErrors() {
			continue
		}
		name, ok := keyText(k)
		if !ok {
			continue
		}
		if r, dup := first[name]; dup {
			diags = append(diags, duplicateKey(name, item.KeyExpr.Range(), r))
			continue
		}
		first[name] = item.KeyExpr.Range()
	}
	return diags
}

func duplicateKey(name string, here, first hcl.Range) *hcl.Diagnostic {
	return problem(here, "Duplicate key", "%q is already set at %s. Remove one of the two.", name, place(first))
}

// dottedKey explains net.core.somaxconn = 1, which HCL takes for a reference.
func (w *referenceWalker) dottedKey(n *hclsyntax.ObjectConsKeyExpr) hcl.Diagnostics {
	t, ok := n.Wrapped.(*hclsyntax.ScopeTraversalExpr)
	if !ok || n.ForceNonLiteral || len(t.Traversal) < 2 {
		return nil
	}
	w.skip = t
	text := traversalText(t.Traversal)
	hint := ""
	if slices.Contains([]string{"var", "local", "host"}, t.Traversal.RootName()) {
		hint = fmt.Sprintf(" If the key is the value of a reference, write it in parentheses: (%s).", text)
	}
	return hcl.Diagnostics{problem(n.Range(), "Key without quotes", "A key with dots is quoted: %q.%s", text, hint)}
}

func (w *referenceWalker) reference(n *hclsyntax.ScopeTraversalExpr) hcl.Diagnostics {
	t := n.Traversal
	root := t.RootName()
	rng := n.Range()
	if w.in.constant {
		hint := fmt.Sprintf("Write the value itself%s.", w.in.instead)
		if len(t) == 1 {
			hint = fmt.Sprintf("If you mean the text, quote it: %q.", root)
		}
		return hcl.Diagnostics{problem(rng, "Reference not allowed", "%s has to be a constant. %s", w.in.where, hint)}
	}
	if root == "local" && !w.in.locals {
		return hcl.Diagnostics{problem(rng, "Reference not allowed",
			"%s may refer to var.NAME and host only, because locals are computed after it. Write the expression out here.", w.in.where)}
	}
	name, named := secondStep(t)
	if _, ok := w.in.bound[root]; ok {
		return boundReference(n)
	}
	var exists bool
	var declare string
	switch root {
	case "var":
		exists, declare = w.vars[name] != nil, "Declare it with variable %q { … }."
	case "local":
		exists, declare = w.locals[name] != nil, "Declare it with locals { %s = … }."
	case "host":
		return w.hostReference(t)
	default:
		return hcl.Diagnostics{w.unknownName(n)}
	}
	if !named {
		return hcl.Diagnostics{problem(rng, "Incomplete reference",
			"%q alone is not a value. Write %s.NAME.", root, root)}
	}
	if exists {
		return nil
	}
	known := names(w.vars)
	if root == "local" {
		known = names(w.locals)
	}
	hint := " " + fmt.Sprintf(declare, name)
	if c := closest(name, known); c != "" {
		hint = fmt.Sprintf(" Did you mean %s.%s?", root, c)
	}
	what := map[string]string{"var": "variable", "local": "local value"}[root]
	return hcl.Diagnostics{problem(hcl.RangeBetween(t[0].SourceRange(), t[1].SourceRange()),
		"Unknown "+what, "There is no %s named %q.%s", what, name, hint)}
}

// boundReference wants each.key or each.value.
func boundReference(n *hclsyntax.ScopeTraversalExpr) hcl.Diagnostics {
	t := n.Traversal
	root := t.RootName()
	name, named := secondStep(t)
	if !named {
		return hcl.Diagnostics{problem(n.Range(), "Incomplete reference", "%q alone is not a value. Write %s.key or %s.value.", root, root, root)}
	}
	if name == "key" || name == "value" {
		return nil
	}
	hint := fmt.Sprintf("Write %s.value.%s, if that is what the element has.", root, name)
	if c := closest(name, []string{"key", "value"}); c != "" {
		hint = fmt.Sprintf("Did you mean %s.%s?", root, c)
	}
	return hcl.Diagnostics{problem(hcl.RangeBetween(t[0].SourceRange(), t[1].SourceRange()), "Unknown reference",
		"%s has key and value only. %s", root, hint)}
}

func (w *referenceWalker) unknownName(n *hclsyntax.ScopeTraversalExpr) *hcl.Diagnostic {
	root := n.Traversal.RootName()
	hint := " References are var.NAME, local.NAME and host.ATTRIBUTE."
	switch {
	case root == "each":
		hint = " It is the element of for_each, in blocks that have it."
		if w.in.forEach {
			hint = " It is the element of for_each: add that to the block, a map or a set of texts."
		}
	case root == "path":
		hint = " A relative path in file() starts at this profile's directory." + hint
	case w.vars[root] != nil:
		hint = fmt.Sprintf(" Did you mean var.%s?", root)
	case w.locals[root] != nil:
		hint = fmt.Sprintf(" Did you mean local.%s?", root)
	case len(n.Traversal) == 1:
		hint = fmt.Sprintf(" If you mean the text, quote it: %q.%s", root, hint)
	default:
		if c := closest(root, []string{"var", "local", "host"}); c != "" {
			hint = fmt.Sprintf(" Did you mean %s?", c)
		} else if slices.Contains([]string{"vars", "variable", "variables"}, root) {
			hint = " Did you mean var?"
		} else if root == "locals" {
			hint = " Did you mean local?"
		}
	}
	return problem(n.Traversal.SourceRange(), "Unknown reference", "There is nothing named %q.%s", root, hint)
}

// hostReference goes by the type of host, so it works without one.
func (w *referenceWalker) hostReference(t hcl.Traversal) hcl.Diagnostics {
	if w.tolerant > 0 {
		return nil
	}
	ty := w.host.Type()
	for i, step := range t[1:] {
		name, named := stepName(step)
		switch {
		case ty.IsObjectType() && named:
			if !ty.HasAttribute(name) {
				known := names(ty.AttributeTypes())
				path := traversalText(t[:i+1])
				hint := fmt.Sprintf(" %s has %s.", path, list(known))
				if c := closest(name, known); c != "" {
					hint = fmt.Sprintf(" Did you mean %s.%s?", path, c)
				}
				return hcl.Diagnostics{problem(hcl.RangeBetween(t[0].SourceRange(), step.SourceRange()),
					"Unknown host attribute", "There is no %s.%s.%s", path, name, hint)}
			}
			ty = ty.AttributeType(name)
		case ty.IsCollectionType() && !ty.IsSetType():
			if _, attr := step.(hcl.TraverseAttr); attr && ty.IsListType() {
				return nil // HCL explains it well
			}
			ty = ty.ElementType()
		default:
			return nil
		}
	}
	return nil
}

// explain makes one of HCL's messages about evaluating expr safe and, where it
// has no remedy, useful.
func explain(d *hcl.Diagnostic, expr hclsyntax.Expression, ctx *hcl.EvalContext) {
	d.Detail = strings.ReplaceAll(hclPlace.ReplaceAllString(d.Detail, ":$1:$2"), "?.", "?")
	secret := sensitiveIn(expr, ctx)
	ref, isRef := d.Expression.(*hclsyntax.ScopeTraversalExpr)
	if d.Summary == "Unsupported attribute" && isRef && d.EvalContext != nil {
		// The message quotes the source only. Names of other attributes may
		// come out of a decoded secret, so they are for the rest.
		if len(secret) == 0 {
			d.Detail += suggestAttribute(ref.Traversal, d.EvalContext)
		}
		d.Expression, d.EvalContext = nil, nil
		return
	}
	if calledFunction(d) == "credential" && len(secret) == 1 && credentials(expr) == 1 {
		// It says which secret is missing, and there is no other.
		d.Expression, d.EvalContext, d.Extra = nil, nil, nil
		return
	}
	if len(secret) > 0 {
		redact(d, secret)
		return
	}
	switch d.Summary {
	case "Inconsistent conditional result types":
		d.Detail += " Make both the same type; at_least() or best_effort() in one of them needs it in the other."
	case "Invalid index":
		d.Detail += " Use try(…, default) for one that may be missing."
	case "Operation failed", "Invalid operand", "Iteration over null value", "Attempt to get attribute from null value":
		d.Detail += " Check the values that go in."
	}
}

// suggestAttribute finds the step of t that has no value.
func suggestAttribute(t hcl.Traversal, ctx *hcl.EvalContext) string {
	var v cty.Value
	for c := ctx; c != nil; c = c.Parent() {
		if root, ok := c.Variables[t.RootName()]; ok {
			v = root
			break
		}
	}
	for i, step := range t[1:] {
		name, ok := stepName(step)
		if v == cty.NilVal || !ok || !v.Type().IsObjectType() {
			return ""
		}
		if !v.Type().HasAttribute(name) {
			known := names(v.Type().AttributeTypes())
			if c := closest(name, known); c != "" {
				return fmt.Sprintf(" Did you mean %s.%s?", traversalText(t[:i+1]), c)
			}
			return fmt.Sprintf(" %s has %s.", traversalText(t[:i+1]), list(known))
		}
		if v.IsNull() {
			return ""
		}
		v = v.GetAttr(name)
	}
	return ""
}
