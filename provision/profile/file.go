package profile

import (
	"errors"
	"path"
	"strings"

	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/hclsyntax"
	"github.com/zclconf/go-cty/cty"
	"github.com/zclconf/go-cty/cty/convert"
	"github.com/zclconf/go-cty/cty/function"
)

// Resolve is what a path in the source named from stands for: itself where it
// is absolute, else a path that starts at from's directory. It goes by the names
// alone.
func Resolve(from, ref string) string {
	if path.IsAbs(ref) {
		return path.Clean(ref)
	}
	return path.Join(path.Dir(from), ref)
}

// pathParam takes sensitive values, to refuse them: a file's name is told to
// people, and is part of the profile.
var pathParam = function.Parameter{Name: "path", Type: cty.String, AllowMarked: true}

func (l *loader) fileFunc(source string) function.Function {
	return function.New(&function.Spec{
		Params: []function.Parameter{pathParam},
		Type:   function.StaticReturnType(cty.String),
		Impl: func(args []cty.Value, _ cty.Type) (cty.Value, error) {
			if l.options.ReadFile == nil {
				return cty.UnknownVal(cty.String).RefineNotNull(), nil
			}
			src, err := l.readFile(source, args[0])
			if err != nil {
				return cty.NilVal, err
			}
			return cty.StringVal(string(src.Text)), nil
		},
	})
}

// templateFileFunc renders a template of HCL's. Secrets go in through vars only,
// so that they are seen from outside.
func (l *loader) templateFileFunc(source string) function.Function {
	return function.New(&function.Spec{
		Params: []function.Parameter{pathParam, {Name: "vars", Type: cty.DynamicPseudoType, AllowDynamicType: true}},
		Type:   function.StaticReturnType(cty.String),
		Impl: func(args []cty.Value, _ cty.Type) (cty.Value, error) {
			if ty := args[1].Type(); !ty.IsMapType() && !ty.IsObjectType() {
				return cty.NilVal, function.NewArgErrorf(1, "a map of what the template refers to is required, such as { name = \"x\" }")
			}
			if l.options.ReadFile == nil {
				return cty.UnknownVal(cty.String).RefineNotNull(), nil
			}
			src, err := l.readFile(source, args[0])
			if err != nil {
				return cty.NilVal, err
			}
			ctx := &hcl.EvalContext{Variables: args[1].AsValueMap(), Functions: map[string]function.Function{}}
			for name, f := range l.functionsFor(src.Name) {
				if name != "credential" && name != "templatefile" {
					ctx.Functions[name] = f
				}
			}
			return renderTemplate(src, ctx)
		},
	})
}

// renderTemplate evaluates a template. The error names the place in it.
func renderTemplate(src Source, ctx *hcl.EvalContext) (cty.Value, error) {
	failed := func(d *hcl.Diagnostic) (cty.Value, error) {
		d.Detail = hclPlace.ReplaceAllString(d.Detail, ":$1:$2")
		return cty.NilVal, function.NewArgErrorf(0, "%s: %w", place(*d.Subject), asError(d))
	}
	tokens, _ := hclsyntax.LexTemplate(src.Text, src.Name, hcl.InitialPos)
	if d := checkNesting(tokens); d != nil {
		return failed(d)
	}
	expr, diags := hclsyntax.ParseTemplate(src.Text, src.Name, hcl.InitialPos)
	if diags.HasErrors() {
		return failed(diags[0])
	}
	v, diags := expr.Value(ctx)
	if diags.HasErrors() {
		return failed(diags[0])
	}
	text, err := convert.Convert(v, cty.String)
	switch {
	case err != nil:
		return cty.NilVal, function.NewArgErrorf(0, "%s gives a %s, and a text is required", src.Name, v.Type().FriendlyName())
	case text.IsNull():
		return cty.NilVal, function.NewArgErrorf(0, "%s gives null, and a text is required", src.Name)
	}
	return text, nil
}

// readFile returns a file that an expression in source names, and keeps it as
// part of the profile. A file is read once.
func (l *loader) readFile(source string, name cty.Value) (Source, error) {
	if name.IsMarked() {
		return Source{}, function.NewArgErrorf(0, "it is sensitive, and a file's name is shown; write it out")
	}
	ref := name.AsString()
	if ref == "" || strings.ContainsRune(ref, 0) {
		return Source{}, function.NewArgErrorf(0, "it names no file")
	}
	src := Source{Name: Resolve(source, ref)}
	if have, ok := l.texts[src.Name]; ok {
		return have, nil
	}
	text, err := l.options.ReadFile(source, ref)
	if err != nil {
		return src, function.NewArgErrorf(0, "%w", err)
	}
	src.Text = text
	if d := src.checkText(); d != nil {
		return src, function.NewArgErrorf(0, "%s: %w", place(*d.Subject), asError(d))
	}
	l.texts[src.Name] = src
	l.textNames = append(l.textNames, src.Name)
	return src, nil
}

func (l *loader) credentialFunc() function.Function {
	return function.New(&function.Spec{
		Params: []function.Parameter{{Name: "name", Type: cty.String, AllowMarked: true}},
		Type:   function.StaticReturnType(cty.String),
		Impl: func(args []cty.Value, _ cty.Type) (cty.Value, error) {
			switch name := args[0]; {
			case name.IsMarked():
				return cty.NilVal, function.NewArgErrorf(0, "it is sensitive, and a credential's name is shown; write it out")
			case l.options.Credential == nil:
				return cty.UnknownVal(cty.String).RefineNotNull().Mark(Sensitive), nil
			default:
				text, err := l.options.Credential(name.AsString())
				if err != nil {
					return cty.NilVal, function.NewArgError(0, err)
				}
				if _, bad := invalidUTF8([]byte(text)); bad {
					return cty.NilVal, function.NewArgError(0, errors.New("it is not UTF-8, which a text has to be; keep it in Base64"))
				}
				return cty.StringVal(text).Mark(Sensitive), nil
			}
		},
	})
}
