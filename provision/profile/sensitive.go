package profile

import (
	"fmt"
	"strings"

	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/hclsyntax"
	"github.com/zclconf/go-cty/cty"
)

type mark string

// Sensitive marks values that must never be printed: those of variables that
// say `sensitive = true`, and what is computed from them. Ask with
// cty.Value.HasMark, or HasMarkDeep for a value that may hold one.
const Sensitive = mark("sensitive")

// sensitiveIn names what is sensitive in an expression, or holds something that
// is: variables, locals, elements of for_each, and credential().
func sensitiveIn(expr hclsyntax.Expression, ctx *hcl.EvalContext) []string {
	var names []string
	seen := map[string]bool{}
	for _, t := range expr.Variables() {
		if len(t) < 2 {
			continue
		}
		v, diags := t[:2].TraverseAbs(ctx)
		if diags.HasErrors() || !v.ContainsMarked() {
			continue
		}
		name := traversalText(t[:2])
		if !seen[name] {
			seen[name] = true
			names = append(names, name)
		}
	}
	if credentials(expr) > 0 {
		names = append(names, "credential()")
	}
	return names
}

// credentials counts the calls of credential() in expr.
func credentials(expr hclsyntax.Expression) int {
	n := 0
	_ = hclsyntax.VisitAll(expr, func(node hclsyntax.Node) hcl.Diagnostics {
		if call, ok := node.(*hclsyntax.FunctionCallExpr); ok && call.Name == "credential" {
			n++
		}
		return nil
	})
	return n
}

// redact takes everything out of d that can come from a value: messages of
// functions and operators quote their arguments, and the marks are gone inside
// of for expressions. What stays is the kind of mistake and its place.
func redact(d *hcl.Diagnostic, names []string) {
	call := calledFunction(d)
	if call != "" {
		call = fmt.Sprintf("Function %s does not accept its arguments. ", call)
	}
	verb := "is"
	if len(names) > 1 {
		verb = "are"
	}
	d.Detail = fmt.Sprintf("%sMore is not shown, because %s %s sensitive. Check the value, or try the expression with one that is not secret.",
		call, strings.Join(names, " and "), verb)
	d.Expression, d.EvalContext, d.Extra = nil, nil, nil
}

// calledFunction is the function whose call d is about, or "".
func calledFunction(d *hcl.Diagnostic) string {
	if extra, ok := hcl.DiagnosticExtra[interface{ CalledFunctionName() string }](d); ok {
		return extra.CalledFunctionName()
	}
	return ""
}

// traversalText is t as it is written: var.nics["eth0"].mtu.
func traversalText(t hcl.Traversal) string {
	var b strings.Builder
	for _, step := range t {
		switch step := step.(type) {
		case hcl.TraverseRoot:
			b.WriteString(step.Name)
		case hcl.TraverseAttr:
			b.WriteString("." + step.Name)
		case hcl.TraverseIndex:
			switch {
			case step.Key.Type() == cty.String:
				fmt.Fprintf(&b, "[%q]", step.Key.AsString())
			case step.Key.Type() == cty.Number:
				fmt.Fprintf(&b, "[%s]", step.Key.AsBigFloat().Text('f', -1))
			default:
				b.WriteString("[…]")
			}
		}
	}
	return b.String()
}
