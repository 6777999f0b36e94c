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
	app  *app
	src  profile.Source
	vars []profile.Assignment
	// kept has what the profile includes and reads; nil: it is on the disk.
	kept *provision.Kept
	// sources are all texts that diagnostics may point at, so far.
	sources []profile.Source
	// profile is set once it is evaluated without an error.
	profile *profile.Profile
	diags   hcl.Diagnostics
}

func (in *input) files() map[string]*hcl.File { return profile.Files(in.sources...) }

// keptInput is a profile that the state directory keeps.
func (a *app) keptInput(k *provision.Kept) *input {
	return &input{app: a, src: k.Source(), vars: k.Vars, kept: k, sources: slices.Clone(k.Sources)}
}

// keptVars are the variables as the state directory may have them: without the
// values of those that the evaluated profile says are sensitive.
func (in *input) keptVars() []profile.Assignment {
	kept := slices.Clone(in.vars)
	for i, v := range kept {
		if slices.Contains(in.profile.Sensitive, v.Name) {
			kept[i] = v.Withhold()
		}
	}
	return kept
}

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
	text, err := readText(name)
	if err != nil {
		remedy := "name another FILE"
		switch {
		case isMissing(err):
			remedy = "write one there, or " + remedy
		case errors.Is(err, fs.ErrPermission):
			remedy = "run as root, or " + remedy
		}
		return profile.Source{}, fmt.Errorf("profile: %w (%s)", err, remedy)
	}
	return profile.Source{Name: name, Text: text}, nil
}

// readText reads a file. Of one that is larger than a profile may be, only so
// much as shows that.
func readText(name string) ([]byte, error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return io.ReadAll(io.LimitReader(f, profile.MaxSize+1))
}

// include reads what the source named from includes as ref.
func (in *input) include(from, ref string) (profile.Source, error) {
	src, err := in.find(from, ref)
	if err == nil {
		in.sources = append(in.sources, src)
	}
	return src, err
}

func (in *input) find(from, ref string) (profile.Source, error) {
	builtin := strings.HasPrefix(from, profiles.Scheme)
	switch {
	case in.kept != nil:
		return in.kept.Include(from, ref)
	case builtin || strings.HasPrefix(ref, profiles.Scheme):
		return profiles.Include(from, ref)
	}
	if strings.Contains(ref, "://") {
		return profile.Source{}, errors.New("it is no path (what is elsewhere has to be fetched before, and be included as a file; builtin:// is all that nodeprov has itself)")
	}
	name := profile.Resolve(from, ref)
	if name == filepath.Clean(in.src.Name) {
		return in.src, nil // it may have been named in another way
	}
	text, err := readText(in.disk(name))
	if err != nil {
		return profile.Source{}, fmt.Errorf("%w (a relative path starts at the directory of %s)", err, from)
	}
	return profile.Source{Name: name, Text: text}, nil
}

// disk is where a file of the profile is: below --root, if its path is absolute. One
// that was found from a FILE below --root is there already.
func (in *input) disk(name string) string {
	root := filepath.Clean(in.app.root) + "/"
	if filepath.IsAbs(name) && !strings.HasPrefix(name, root) {
		return in.app.below(name)
	}
	return name
}

// readFile reads what file() and templatefile() name.
func (in *input) readFile(from, path string) ([]byte, error) {
	name := profile.Resolve(from, path)
	var text []byte
	var err error
	switch {
	case in.kept != nil:
		text, err = in.kept.ReadFile(from, path)
	case strings.HasPrefix(from, profiles.Scheme):
		err = errors.New("a profile that comes with nodeprov has no files of its own")
	default:
		if text, err = readText(in.disk(name)); err != nil {
			err = fmt.Errorf("%w (a relative path starts at the directory of %s)", err, from)
		}
	}
	if err == nil {
		in.sources = append(in.sources, profile.Source{Name: name, Text: text})
	}
	return text, err
}

// credentialStore is where credential() looks at a shell, and systemd for
// LoadCredential= without a path.
const credentialStore = "/etc/credstore"

// credential returns a systemd credential's text, as it is: a newline at its end
// stays.
func (a *app) credential(name string) (string, error) {
	if name == "" || name == "." || name == ".." || strings.ContainsAny(name, "/\x00") {
		return "", fmt.Errorf("%q is not the name of a credential, as it is that of a file in a directory", name)
	}
	dirs := []string{credentialStore}
	if dir := a.getenv("CREDENTIALS_DIRECTORY"); dir != "" {
		dirs = []string{dir, credentialStore}
	}
	for _, dir := range dirs {
		text, err := readText(filepath.Join(dir, name))
		if isMissing(err) {
			continue
		}
		if err != nil {
			return "", fmt.Errorf("credential %s: %w", name, err)
		}
		return string(text), nil
	}
	return "", fmt.Errorf("there is no credential %s in %s (write it to %s/%s, readable by root only, and give it to the units with LoadCredential=%s; encrypted ones are made by systemd-creds and loaded with LoadCredentialEncrypted=)",
		name, strings.Join(dirs, " or "), credentialStore, name, name)
}

// input reads FILE and the variables: those of the environment, then
// *.auto.hclvars beside FILE, then --var-file, then --var.
func (a *app) input(name string, v varFlags) (*input, error) {
	src, err := a.source(name)
	if err != nil {
		return nil, err
	}
	in := &input{app: a, src: src, sources: []profile.Source{src}}
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
			text, err := readText(path)
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

// load evaluates the constructs named only, or all for nil. The facts are nil
// where the host is unknown; then credentials are, too. The profile is nil, or has
// only the blocks that are without a mistake, where the diagnostics have an error.
func (in *input) load(kinds []provision.Kind, f *host.Facts, only []string) *profile.Profile {
	// Variables that cannot be read would make errors of those that follow.
	if in.diags.HasErrors() {
		return nil
	}
	o := profile.Options{
		Schemas: provision.Schemas(kinds), Host: cty.UnknownVal(host.FactsType()), Vars: in.vars, Only: only,
		Include: in.include, ReadFile: in.readFile,
	}
	if f != nil {
		o.Host, o.Credential = f.Value(), in.app.credential
	}
	p, diags := profile.Check(in.src, o)
	in.diags = append(in.diags, diags...)
	if !diags.HasErrors() {
		in.profile = p
	}
	return p
}

// wanted evaluates a profile. The facts are nil where the host is unknown. What
// kinds say is told together with the mistakes of the language; with errors there
// are no settings.
func (in *input) wanted(e *provision.Engine, f *host.Facts, ph provision.Phase) []provision.Wanted {
	p := in.load(e.Kinds, f, provision.Constructs(e.Kinds, ph))
	if p == nil {
		return nil
	}
	ws, diags := e.Desired(p, f, ph)
	in.diags = profile.Sort(append(in.diags, diags...), p.Sources...)
	if in.diags.HasErrors() {
		return nil
	}
	return ws
}

// desired reads FILE and evaluates it for the engine's machine. An error is
// printed already where the diagnostics are it.
func (a *app) desired(ctx context.Context, e *provision.Engine, args []string, v varFlags, ph provision.Phase, asJSON bool) (*input, []provision.Wanted, error) {
	in, err := a.input(a.path(args), v)
	if err != nil {
		return nil, nil, err
	}
	f, err := facts(ctx, e)
	if err != nil {
		return nil, nil, err
	}
	ws := in.wanted(e, f, ph)
	return in, ws, a.diagnose(in, asJSON)
}

// facts are nil for a tree of files: those of an image are not the builder's.
func facts(ctx context.Context, e *provision.Engine) (*host.Facts, error) {
	if !e.Host.Live() {
		return nil, nil
	}
	f, err := e.Host.Facts(ctx)
	return &f, err
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
	a.printed = true
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
