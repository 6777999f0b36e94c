package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/hashicorp/hcl/v2"
	"github.com/spf13/cobra"

	"github.com/zclconf/go-cty/cty"

	"github.com/nodeprov/nodeprov/internal/cli"
	"github.com/nodeprov/nodeprov/profiles"
	"github.com/nodeprov/nodeprov/provision"
	"github.com/nodeprov/nodeprov/provision/host"
	"github.com/nodeprov/nodeprov/provision/profile"
)

// varFlags are those of every verb that reads a profile.
type varFlags struct {
	vars, files []string
}

func (v *varFlags) add(c *cobra.Command) {
	// No StringSlice: a value may have commas.
	c.Flags().StringArrayVar(&v.vars, "var", nil, "value of a variable, NAME=VALUE; may be repeated")
	c.Flags().StringArrayVar(&v.files, "var-file", nil, "file of variables; may be repeated")
	_ = c.MarkFlagFilename("var-file", "hclvars")
}

// input is a profile's text with the variables from outside.
type input struct {
	src  profile.Source
	vars []profile.Assignment
	// sources are all texts that diagnostics may point at.
	sources []profile.Source
	diags   hcl.Diagnostics
}

func (in *input) files() map[string]*hcl.File { return profile.Files(in.sources...) }

// path is FILE, or the default one.
func (a *app) path(args []string) string {
	if len(args) > 0 {
		return args[0]
	}
	return a.below(defaultProfile)
}

// below puts --root before a path of the machine.
func (a *app) below(p string) string {
	if a.root == "" {
		return p
	}
	return filepath.Join(a.root, p)
}

// source reads FILE.
func (a *app) source(name string) (profile.Source, error) {
	if builtin, ok := strings.CutPrefix(name, "builtin://"); ok {
		src, err := profiles.Source(builtin)
		if err != nil {
			return src, fmt.Errorf("profile %s: %w", name, err)
		}
		return src, nil
	}
	if name == "-" {
		text, err := io.ReadAll(a.stdin)
		if err != nil {
			return profile.Source{}, fmt.Errorf("standard input: %w", err)
		}
		return profile.Source{Name: "<stdin>", Text: text}, nil
	}
	text, err := os.ReadFile(name)
	if err != nil {
		return profile.Source{}, fmt.Errorf("profile: %w (write one there, or name another FILE)", err)
	}
	return profile.Source{Name: name, Text: text}, nil
}

// input reads FILE and the variables: those of the environment, then
// *.auto.hclvars beside FILE, then --var-file, then --var.
func (a *app) input(name string, v varFlags) (*input, error) {
	src, err := a.source(name)
	if err != nil {
		return nil, err
	}
	in := &input{src: src, sources: []profile.Source{src}}
	env := slices.Clone(a.environ)
	slices.Sort(env)
	for _, kv := range env {
		if n, text, _ := strings.Cut(kv, "="); strings.HasPrefix(n, "NODEPROV_VAR_") {
			in.vars = append(in.vars, profile.Assignment{Name: strings.TrimPrefix(n, "NODEPROV_VAR_"), Text: text, From: n, Lenient: true})
		}
	}
	auto, err := autoVars(name)
	if err != nil {
		return nil, err
	}
	for _, f := range []struct {
		paths   []string
		lenient bool
	}{{auto, true}, {v.files, false}} {
		for _, path := range f.paths {
			text, err := os.ReadFile(path)
			if err != nil {
				return nil, fmt.Errorf("variables: %w", err)
			}
			src := profile.Source{Name: path, Text: text}
			as, diags := profile.ParseVars(src)
			for i := range as {
				as[i].Lenient = f.lenient
			}
			in.vars, in.diags = append(in.vars, as...), append(in.diags, diags...)
			in.sources = append(in.sources, src)
		}
	}
	for _, kv := range v.vars {
		n, text, ok := strings.Cut(kv, "=")
		if !ok || n == "" {
			return nil, cli.Usage(fmt.Errorf("--var %q: not NAME=VALUE", kv))
		}
		in.vars = append(in.vars, profile.Assignment{Name: n, Text: text, From: "--var"})
	}
	return in, nil
}

// autoVars are the files of variables beside a profile, in order of their names.
func autoVars(name string) ([]string, error) {
	if name == "-" || strings.HasPrefix(name, "builtin://") {
		return nil, nil
	}
	dir := filepath.Dir(name)
	es, err := os.ReadDir(dir) // no Glob: the directory's name may be a pattern
	if err != nil {
		return nil, fmt.Errorf("variables: %w", err)
	}
	var paths []string
	for _, e := range es {
		if strings.HasSuffix(e.Name(), ".auto.hclvars") && !e.IsDir() {
			paths = append(paths, filepath.Join(dir, e.Name()))
		}
	}
	return paths, nil
}

// wanted evaluates a profile. The facts are nil where the host is unknown.
func (in *input) wanted(e *provision.Engine, f *host.Facts, ph provision.Phase) []provision.Wanted {
	// Variables that cannot be read would make errors of those that follow.
	if in.diags.HasErrors() {
		return nil
	}
	facts := cty.UnknownVal(host.FactsType())
	if f != nil {
		facts = f.Value()
	}
	p, diags := profile.Load(in.src, profile.Options{Schemas: provision.Schemas(e.Kinds), Host: facts, Vars: in.vars})
	in.diags = append(in.diags, diags...)
	if p == nil || diags.HasErrors() {
		return nil
	}
	ws, diags := e.Desired(p, f, ph)
	in.diags = append(in.diags, diags...)
	return ws
}

// desired reads FILE and evaluates it for the running machine. An error is
// printed already where the diagnostics are it.
func (a *app) desired(ctx context.Context, e *provision.Engine, args []string, v varFlags, ph provision.Phase, asJSON bool) (*input, []provision.Wanted, error) {
	in, err := a.input(a.path(args), v)
	if err != nil {
		return nil, nil, err
	}
	f, err := e.Host.Facts(ctx)
	if err != nil {
		return nil, nil, err
	}
	ws := in.wanted(e, &f, ph)
	return in, ws, a.diagnose(in, asJSON)
}

// diagnose prints the diagnostics so far, and is an error if they hold one. As
// JSON, they are only printed if they do: stdout has one document.
func (a *app) diagnose(in *input, asJSON bool) error {
	diags := in.diags
	in.diags = nil
	bad := diags.HasErrors()
	switch {
	case asJSON && bad:
		if err := a.printJSON(profile.JSON(in.files(), diags)); err != nil {
			return err
		}
	case len(diags) > 0:
		if err := profile.WriteText(a.stderr, in.files(), diags, a.width, a.colored()); err != nil {
			return err
		}
	}
	if bad {
		return &codeError{code: exitError}
	}
	return nil
}

// show prints a plan or a verification; with all, also what is right.
func (a *app) show(v interface {
	Write(io.Writer, provision.Text) error
}, asJSON, all bool) error {
	if asJSON {
		return a.printJSON(v)
	}
	t := a.text()
	t.All = all
	return v.Write(a.stdout, t)
}

func (a *app) printJSON(v any) error {
	e := json.NewEncoder(a.stdout)
	e.SetIndent("", "  ")
	e.SetEscapeHTML(false)
	return e.Encode(v)
}

// summarize is the first error and how many there are, on one line.
func summarize(diags hcl.Diagnostics) string {
	n, first := 0, ""
	for _, d := range diags {
		if d.Severity == hcl.DiagError {
			if n++; n == 1 {
				first = d.Summary
				if d.Detail != "" {
					first += "; " + d.Detail
				}
				if s := d.Subject; s != nil {
					first = fmt.Sprintf("%s:%d:%d: %s", s.Filename, s.Start.Line, s.Start.Column, first)
				}
			}
		}
	}
	if n > 1 {
		return fmt.Sprintf("%s; and %d more", first, n-1)
	}
	return first
}

func isMissing(err error) bool { return errors.Is(err, fs.ErrNotExist) }
