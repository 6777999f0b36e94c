package profile

import (
	"errors"
	"fmt"
	"strings"
	"unicode/utf8"

	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/ext/typeexpr"
	"github.com/hashicorp/hcl/v2/hclsyntax"
	"github.com/zclconf/go-cty/cty"
	"github.com/zclconf/go-cty/cty/convert"
)

// variable is one `variable "name" { … }`.
type variable struct {
	name        string
	block       *hclsyntax.Block
	ty          cty.Type
	defaults    *typeexpr.Defaults // of optional() attributes in ty
	fallback    cty.Value          // cty.NilVal where a value is required
	sensitive   bool
	broken      bool // the declaration has errors
	validations []*hclsyntax.Block
	// value is unknown until assign is done, and stays so after an error.
	value cty.Value
	// from says where the value comes from, for messages.
	from string
	// assigned is the range of the assignment in a file of variables, else that
	// of the declaration.
	assigned hcl.Range
}

// declareVariable declares a variable. Where an included profile declares it
// too, this block overrides it attribute by attribute, and the validations of both
// hold.
func (l *loader) declareVariable(b *hclsyntax.Block) {
	if !l.checkLabels(b, "name") {
		return
	}
	name := b.Labels[0]
	if !hclsyntax.ValidIdentifier(name) {
		l.add(b.LabelRanges[0], "Invalid name", "%q cannot be written as var.NAME. Use letters, digits, _ and -, and start with a letter.", name)
		return
	}
	v := &variable{name: name, block: b, ty: cty.DynamicPseudoType, value: cty.DynamicVal}
	included := l.vars[name]
	if included != nil {
		if sameSource(included.block.DefRange(), b.DefRange()) {
			l.duplicateBlock(b, included.block)
			return
		}
		// What this one does not say stays as it was.
		again := *included
		again.block = b
		v = &again
	}
	l.vars[name] = v
	before := len(l.diags)
	where := fmt.Sprintf("variable %q", name)
	l.checkBody(b.Body, where, []string{"type", "default", "description", "sensitive"}, []string{"validation"})

	if a := b.Body.Attributes["type"]; a != nil {
		ty, defaults, diags := typeexpr.TypeConstraintWithDefaults(a.Expr)
		for _, d := range diags {
			d.Expression, d.EvalContext = nil, nil
			if d.Summary != "Invalid type specification" {
				continue
			}
			d.Detail += didYouMean(string(d.Subject.SliceBytes(l.files[d.Subject.Filename].Bytes)), []string{"string", "number", "bool", "any", "list", "set", "map", "object", "tuple"})
			d.Detail += " Types are string, number, bool, any, list(T), set(T), map(T), tuple([T, …]) and object({ NAME = T, … })."
		}
		l.diags = append(l.diags, diags...)
		if !diags.HasErrors() && (included == nil || l.compatible(a.Expr, ty, included)) {
			v.ty, v.defaults = ty, defaults
		}
	}
	constant := scope{where: "An attribute of a variable", constant: true, instead: ", or compute it in locals"}
	if a := b.Body.Attributes["description"]; a != nil {
		if d, ok := l.eval(a.Expr, constant); ok {
			l.convert(a.Expr, d, cty.String, "description of "+where, constant)
		}
	}
	if a := b.Body.Attributes["sensitive"]; a != nil {
		// A declaration that is wrong about secrecy is taken as secret.
		secret := true
		if s, ok := l.eval(a.Expr, constant); ok {
			if s, ok = l.convert(a.Expr, s, cty.Bool, "sensitive of "+where, constant); ok {
				secret = s.IsNull() || s.True()
			}
		}
		// Once secret, always: an included profile may rely on it.
		v.sensitive = v.sensitive || secret
	}
	if a := b.Body.Attributes["default"]; a != nil {
		d, ok := l.eval(a.Expr, constant)
		if ok && len(l.diags) == before {
			if got, err := v.convert(d); err != nil {
				r, err := l.misfit(a.Expr, d, v.ty, err, constant)
				l.add(r, "Unsuitable default",
					"The default of %s is not suitable: %v. Change it, or the type, which is %s.", where, err, typeName(v.ty))
			} else {
				v.fallback = got
			}
		}
	}
	for _, c := range b.Body.Blocks {
		if c.Type != "validation" {
			continue
		}
		l.checkLabels(c, "")
		l.checkBody(c.Body, "validation", []string{"condition", "error_message"}, nil)
		complete := true
		for _, name := range []string{"condition", "error_message"} {
			if c.Body.Attributes[name] == nil {
				complete = false
				l.add(c.DefRange(), "Missing attribute", "validation needs condition, a bool, and error_message, a text. Add: %s = …", name)
			}
		}
		if complete {
			v.validations = append(v.validations, c)
		}
	}
	v.broken = v.broken || len(l.diags) > before
}

// compatible tells whether a type may replace that of an included variable:
// every value of it has to be one of the included type too, as the included
// profile was written for that.
func (l *loader) compatible(expr hclsyntax.Expression, ty cty.Type, included *variable) bool {
	old := included.ty
	if old != cty.DynamicPseudoType && !ty.Equals(old) && convert.GetConversion(ty, old) == nil {
		l.add(expr.Range(), "Incompatible type", "The included variable %q at %s is of type %s, and its profile is written for that. Leave type out, or write: type = %s",
			included.name, place(included.block.DefRange()), typeName(old), typeName(old))
		return false
	}
	if included.fallback != cty.NilVal {
		fallback, err := convert.Convert(included.fallback, ty)
		if err != nil {
			l.add(expr.Range(), "Incompatible type", "The default of the included variable %q at %s is not of this type: %v. Add a default of this type.",
				included.name, place(included.block.DefRange()), err)
			return false
		}
		l.vars[included.name].fallback = fallback
	}
	return true
}

// convert makes a given value one of the variable's type.
func (v *variable) convert(given cty.Value) (cty.Value, error) {
	if v.defaults != nil && !given.IsNull() {
		given = v.defaults.Apply(given)
	}
	return convert.Convert(given, v.ty)
}

// assign gives each variable its value: the last assignment, or the default.
// Then it validates them all, and makes those that are refused unknown, lest
// they cause errors elsewhere.
func (l *loader) assign(given []Assignment) {
	last := map[string]Assignment{}
	for _, a := range given {
		if l.vars[a.Name] != nil {
			last[a.Name] = a
			continue
		}
		if a.Lenient {
			continue
		}
		hint := didYouMean(a.Name, names(l.vars))
		if hint == "" {
			hint = fmt.Sprintf(" Declare it with variable %q { … }, or leave it out.", a.Name)
		}
		d := problem(a.Range, "Unknown variable", "%s sets %q, and the profile has no variable of that name.%s", a.From, a.Name, hint)
		if a.Range.Filename == "" {
			d.Subject = nil // a command line or an environment
		}
		l.diags = append(l.diags, d)
	}
	for _, name := range names(l.vars) {
		v := l.vars[name]
		v.assigned = v.block.DefRange()
		if v.broken {
			continue
		}
		if a, ok := last[name]; ok {
			l.assignOne(v, a)
			continue
		}
		if v.fallback == cty.NilVal {
			l.add(v.block.DefRange(), "Variable has no value",
				"Variable %q has no default, so it must be set. Use --var %s=VALUE, the environment variable NODEPROV_VAR_%s or a file of variables.", name, name, name)
			continue
		}
		v.from = "its default"
		v.set(v.fallback)
	}
	var refused []*variable
	for _, name := range names(l.vars) {
		if v := l.vars[name]; !l.validate(v) {
			refused = append(refused, v)
		}
	}
	for _, v := range refused {
		v.value = cty.DynamicVal
	}
}

func (v *variable) set(value cty.Value) {
	if v.sensitive {
		value = value.Mark(Sensitive)
	}
	v.value = value
}

func (l *loader) assignOne(v *variable, a Assignment) {
	v.from = a.From
	if a.Range.Filename != "" {
		v.assigned = a.Range
	}
	value := a.Value
	if value == cty.NilVal && a.From == withheld {
		v.set(cty.UnknownVal(v.ty))
		return
	}
	if value == cty.NilVal {
		var err error
		if value, err = v.parse(a.Text); err != nil {
			// The message may quote the text.
			if v.sensitive {
				err = errors.New("it is not a constant of the language (more is not shown, because the variable is sensitive)")
			}
			hint := ""
			if v.ty == cty.DynamicPseudoType {
				hint = fmt.Sprintf(` Texts are quoted, unless variable %q has "type = string".`, v.name)
			}
			l.add(v.assigned, "Unsuitable value", "%s does not give variable %q a suitable value: %v. Give it one of type %s.%s",
				a.From, v.name, err, typeName(v.ty), hint)
			return
		}
	}
	got, err := v.convert(value)
	if err != nil {
		var path cty.PathError
		if errors.As(err, &path) && len(path.Path) > 0 && !v.sensitive {
			err = fmt.Errorf("%s: %w", pathText(path.Path), err)
		}
		l.add(v.assigned, "Unsuitable value", "%s does not give variable %q a suitable value: %v. Give it one of type %s.",
			a.From, v.name, err, typeName(v.ty))
		return
	}
	v.set(got)
}

// parse reads a value as Assignment.Text has it.
func (v *variable) parse(text string) (cty.Value, error) {
	if !utf8.ValidString(text) {
		return cty.NilVal, errors.New("it is not UTF-8")
	}
	if v.ty == cty.String {
		return cty.StringVal(text), nil
	}
	src := Source{Name: "value", Text: []byte(text)}
	if d := src.check(); d != nil {
		return cty.NilVal, asError(d)
	}
	expr, diags := hclsyntax.ParseExpression(src.Text, src.Name, hcl.InitialPos)
	if diags.HasErrors() {
		return cty.NilVal, asError(diags[0])
	}
	return constantValue(expr)
}

// constantValue evaluates an expression that may refer to nothing.
func constantValue(expr hclsyntax.Expression) (cty.Value, error) {
	l := newLoader(Options{})
	v, _ := l.eval(expr, scope{where: "it", constant: true})
	if l.diags.HasErrors() {
		return cty.NilVal, asError(l.diags[0])
	}
	return v, nil
}

// asError is d within another sentence.
func asError(d *hcl.Diagnostic) error { return errors.New(strings.TrimRight(d.Detail, ".")) }

// pathText is where in a value something is: nics[0].name.
func pathText(p cty.Path) string {
	text := ""
	for _, step := range p {
		switch step := step.(type) {
		case cty.GetAttrStep:
			text += "." + step.Name
		case cty.IndexStep:
			text += traversalText(hcl.Traversal{hcl.TraverseIndex{Key: step.Key}})
		}
	}
	return strings.TrimPrefix(text, ".")
}

// validate evaluates the conditions of v.
func (l *loader) validate(v *variable) bool {
	good := true
	for _, c := range v.validations {
		condition, message := c.Body.Attributes["condition"], c.Body.Attributes["error_message"]
		s := scope{where: "A validation"}
		before := len(l.diags)
		ok, evaluated := l.eval(condition.Expr, s)
		if evaluated {
			ok, evaluated = l.convert(condition.Expr, ok, cty.Bool, "The condition", s)
		}
		text, hasText := l.eval(message.Expr, s)
		if hasText {
			text, hasText = l.convert(message.Expr, text, cty.String, "The error_message", s)
		}
		if !l.mentions(condition.Expr, v.name) && len(l.diags) == before {
			l.add(condition.Expr.Range(), "Condition is about something else",
				"The condition does not look at the variable that it belongs to. Use var.%s in it.", v.name)
		}
		if !evaluated || !hasText {
			good = false
			continue
		}
		ok, _ = ok.Unmark()
		if ok.IsNull() {
			l.add(condition.Expr.Range(), "Condition is null", "The condition has to be true or false. Compare with null explicitly.")
			good = false
			continue
		}
		if !ok.IsKnown() || ok.True() {
			continue
		}
		good = false
		said := "The condition is false, and the error_message "
		switch {
		case text.IsMarked():
			said += "is not shown, because it uses a sensitive value."
		case !text.IsKnown() || text.IsNull():
			said += "is not known."
		default:
			said = text.AsString()
		}
		l.add(v.assigned, "Invalid value of variable", "%s\n\nThe value of var.%s is from %s; the rule is at %s. Give another value.",
			said, v.name, v.from, place(condition.Expr.Range()))
	}
	return good
}

func (l *loader) mentions(expr hclsyntax.Expression, name string) bool {
	for _, t := range expr.Variables() {
		if n, _ := secondStep(t); t.RootName() == "var" && n == name {
			return true
		}
	}
	return false
}
