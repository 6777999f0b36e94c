package profile

import (
	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/hclsyntax"
)

// ParseVars reads a file of variables: NAME = VALUE, where VALUE is a constant.
// The assignments are in source order, each with the range of its line and with
// the Source's name as From. With errors there are none.
func ParseVars(src Source) ([]Assignment, hcl.Diagnostics) {
	file, diags := parse(src)
	if diags.HasErrors() {
		return nil, diags
	}
	l := newLoader(Options{})
	l.rank[src.Name] = 0
	body := file.Body.(*hclsyntax.Body)
	for _, b := range body.Blocks {
		l.add(b.DefRange(), "Block not allowed", "A file of variables holds NAME = VALUE only. Move the block to the profile.")
	}
	var out []Assignment
	for _, a := range sorted(body.Attributes) {
		if v, ok := l.eval(a.Expr, scope{where: "A value in a file of variables", constant: true}); ok {
			out = append(out, Assignment{Name: a.Name, Value: v, From: src.Name, Range: a.Range()})
		}
	}
	l.finish()
	if l.diags.HasErrors() {
		return nil, l.diags
	}
	return out, l.diags
}
