package profile

import (
	"slices"
	"strings"

	"github.com/hashicorp/hcl/v2/hclsyntax"
	"github.com/zclconf/go-cty/cty"
)

// local is one named value of a locals block.
type local struct {
	attr *hclsyntax.Attribute
	// value is unknown until its turn, and stays so after an error.
	value cty.Value
	needs []string // other locals, each once
}

func (l *loader) declareLocals(b *hclsyntax.Block) {
	l.checkLabels(b, "")
	for _, inner := range b.Body.Blocks {
		l.add(inner.DefRange(), "Unknown block", "locals holds NAME = VALUE only. Write: %s = { … }", inner.Type)
	}
	for _, a := range sorted(b.Body.Attributes) {
		first := l.locals[a.Name]
		if first != nil && sameSource(first.attr.NameRange, a.NameRange) {
			l.add(a.NameRange, "Duplicate local value", "local.%s is already set at %s. Give one of the two another name.", a.Name, place(first.attr.NameRange))
			continue
		}
		if first != nil {
			l.replaced = append(l.replaced, first.attr.Expr)
		}
		l.locals[a.Name] = &local{attr: a, value: cty.DynamicVal}
	}
}

// evaluateLocals takes them in the order of their dependencies. It is a loop
// and not a recursion, as a chain may be as long as the file. Where wanted is not
// nil, only those named in it and what they need are evaluated; the others stay
// unknown.
func (l *loader) evaluateLocals(wanted []string) {
	all := wanted == nil
	waiting := map[string]int{}         // for how many others
	dependents := map[string][]string{} // the other way round
	var ready []string
	order := names(l.locals)
	for _, name := range order {
		v := l.locals[name]
		for _, t := range v.attr.Expr.Variables() {
			other, _ := secondStep(t)
			if t.RootName() == "local" && l.locals[other] != nil && !slices.Contains(v.needs, other) {
				v.needs = append(v.needs, other)
				dependents[other] = append(dependents[other], name)
			}
		}
		if waiting[name] = len(v.needs); waiting[name] == 0 {
			ready = append(ready, name)
		}
	}
	take := map[string]bool{}
	for len(wanted) > 0 {
		name := wanted[0]
		wanted = wanted[1:]
		if v := l.locals[name]; v != nil && !take[name] {
			take[name] = true
			wanted = append(wanted, v.needs...)
		}
	}
	for len(ready) > 0 {
		name := ready[0]
		ready = ready[1:]
		delete(waiting, name)
		v := l.locals[name]
		if all || take[name] {
			v.value, _ = l.eval(v.attr.Expr, anywhere)
		} else {
			l.check(v.attr.Expr, anywhere)
		}
		for _, d := range dependents[name] {
			if waiting[d]--; waiting[d] == 0 {
				ready = append(ready, d)
			}
		}
	}
	// What is left is in a cycle or needs one. Each cycle is told once; from
	// any of the rest, needs leads into one.
	told := map[string]bool{}
	for _, name := range order {
		if _, left := waiting[name]; !left || told[name] {
			continue
		}
		var path []string
		at := map[string]int{}
		for n := name; ; {
			if i, again := at[n]; again {
				l.cycle(path[i:])
				break
			}
			if told[n] {
				break
			}
			told[n], at[n] = true, len(path)
			path = append(path, n)
			needs := l.locals[n].needs
			n = needs[slices.IndexFunc(needs, func(o string) bool { _, left := waiting[o]; return left })]
		}
	}
}

func (l *loader) cycle(path []string) {
	// Start where the source does, so that the message does not depend on names.
	first := slices.MinFunc(path, func(a, b string) int {
		return l.compare(l.locals[a].attr.NameRange, l.locals[b].attr.NameRange)
	})
	i := slices.Index(path, first)
	path = append(slices.Clone(path[i:]), path[:i]...)
	var text strings.Builder
	for _, n := range path {
		text.WriteString("local." + n + " -> ")
	}
	l.add(l.locals[first].attr.NameRange, "Cycle of local values",
		"These need each other: %slocal.%s. Compute one of them without the others.", text.String(), first)
}
