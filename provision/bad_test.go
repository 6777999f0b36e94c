package provision

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/zclconf/go-cty/cty"

	"github.com/nodeprov/nodeprov/profiles"
	"github.com/nodeprov/nodeprov/provision/host"
	"github.com/nodeprov/nodeprov/provision/profile"
)

// TestBad holds what validate prints for each kind of mistake. Look at the
// differences after -update as the user will: does it say what is wrong, where,
// and what to write instead?
func TestBad(t *testing.T) {
	files, err := filepath.Glob("testdata/bad/*.hcl")
	if err != nil || len(files) < 35 {
		t.Fatalf("%d profiles, %v", len(files), err)
	}
	for _, f := range files {
		t.Run(strings.TrimSuffix(filepath.Base(f), ".hcl"), func(t *testing.T) {
			got := badProfile(t, f)
			if !strings.Contains(got, "on "+filepath.Base(f)+":") && !strings.Contains(got, "on lib/") {
				t.Errorf("no place in:\n%s", got)
			}
			if strings.Contains(got, "hunter2") {
				t.Errorf("a secret is shown:\n%s", got)
			}
			golden := strings.TrimSuffix(f, ".hcl") + ".txt"
			if *update {
				if err := os.WriteFile(golden, []byte(got), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(golden)
			if err != nil {
				t.Fatal(err)
			}
			if d := cmp.Diff(string(want), got); d != "" {
				t.Errorf("go test ./provision -run TestBad -update\n%s", d)
			}
		})
	}
}

// badProfile is the text of the diagnostics, as validate has them. Comments in the
// first lines of the profile set variables: "# var NAME=TEXT".
func badProfile(t *testing.T, file string) string {
	t.Helper()
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	src := profile.Source{Name: filepath.Base(file), Text: text}
	sources := []profile.Source{src}
	read := func(from, ref string) (profile.Source, error) {
		name := profile.Resolve(from, ref)
		// The error has no directory in it.
		text, err := os.ReadFile(filepath.Join(filepath.Dir(file), name))
		if err != nil {
			err = &os.PathError{Op: "open", Path: name, Err: os.ErrNotExist}
		}
		src := profile.Source{Name: name, Text: text}
		sources = append(sources, src)
		return src, err
	}
	o := profile.Options{
		Schemas: Schemas(Kinds()), Host: cty.UnknownVal(host.FactsType()),
		Include: func(from, ref string) (profile.Source, error) {
			if strings.HasPrefix(ref, profiles.Scheme) {
				return profiles.Include(from, ref)
			}
			return read(from, ref)
		},
		ReadFile: func(from, path string) ([]byte, error) {
			src, err := read(from, path)
			return src.Text, err
		},
	}
	for line := range strings.Lines(string(text)) {
		if assignment, ok := strings.CutPrefix(line, "# var "); ok {
			name, value, _ := strings.Cut(strings.TrimSpace(assignment), "=")
			o.Vars = append(o.Vars, profile.Assignment{Name: name, Text: value, From: "--var"})
		}
	}
	p, diags := profile.Check(src, o)
	if p != nil {
		_, more := (&Engine{Kinds: Kinds()}).Desired(p, nil, PhaseAll)
		diags = profile.Sort(append(diags, more...), p.Sources...)
	}
	if !diags.HasErrors() {
		t.Fatal("accepted")
	}
	var b bytes.Buffer
	if err := profile.WriteText(&b, profile.Files(sources...), diags, 100, false); err != nil {
		t.Fatal(err)
	}
	return b.String()
}
