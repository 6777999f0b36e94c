package provision

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"

	"github.com/zclconf/go-cty/cty"
	ctyjson "github.com/zclconf/go-cty/cty/json"

	"github.com/nodeprov/nodeprov/provision/profile"
)

// lastGoodFile holds the profile that was last applied completely, and for good;
// appliedFile the last one whose apply began, however it ended.
const (
	lastGoodFile = "last-good.json"
	appliedFile  = "applied.json"
)

// Kept is a profile with all that it is evaluated from, but for facts and
// credentials: it can be evaluated again when its files are gone.
type Kept struct {
	// Sources are Profile.Sources: the profile itself, what it includes, and
	// the files that it reads.
	Sources []profile.Source
	Vars    []profile.Assignment
}

// Source is the profile itself.
func (k *Kept) Source() profile.Source { return k.Sources[0] }

// Include is for profile.Options.Include.
func (k *Kept) Include(from, ref string) (profile.Source, error) {
	if strings.HasPrefix(ref, "builtin://") {
		return k.find(ref)
	}
	return k.find(profile.Resolve(from, ref))
}

// ReadFile is for profile.Options.ReadFile.
func (k *Kept) ReadFile(from, path string) ([]byte, error) {
	s, err := k.find(profile.Resolve(from, path))
	return s.Text, err
}

func (k *Kept) find(name string) (profile.Source, error) {
	for _, s := range k.Sources {
		if s.Name == name {
			return s, nil
		}
	}
	return profile.Source{}, fmt.Errorf("%s: %w: it is not kept with the profile", name, fs.ErrNotExist)
}

// keptJSON is a Kept in a file.
type keptJSON struct {
	Format  int              `json:"format"` // 1
	Sources []sourceJSON     `json:"sources"`
	Vars    []assignmentJSON `json:"variables"`
}

type sourceJSON struct {
	Name string `json:"name"`
	Text Value  `json:"content"` // which is exact for what is no UTF-8, too
}

// assignmentJSON is a profile.Assignment.
type assignmentJSON struct {
	Name  string          `json:"name"`
	Text  string          `json:"text,omitempty"`
	Value json.RawMessage `json:"value,omitempty"`
	Type  json.RawMessage `json:"type,omitempty"`
	From  string          `json:"from"`
}

func newAssignmentJSON(v profile.Assignment) (assignmentJSON, error) {
	a := assignmentJSON{Name: v.Name, Text: v.Text, From: v.From}
	if v.Value == cty.NilVal {
		return a, nil
	}
	var err error
	if a.Type, err = ctyjson.MarshalType(v.Value.Type()); err == nil {
		a.Value, err = ctyjson.Marshal(v.Value, v.Value.Type())
	}
	if err != nil {
		return a, fmt.Errorf("variable %s: %w", v.Name, err)
	}
	return a, nil
}

// assignment is lenient: a later version of the profile may not have it any more.
func (a assignmentJSON) assignment() (profile.Assignment, error) {
	v := profile.Assignment{Name: a.Name, Text: a.Text, From: a.From, Lenient: true}
	if a.Type == nil {
		return v, nil
	}
	t, err := ctyjson.UnmarshalType(a.Type)
	if err == nil {
		v.Value, err = ctyjson.Unmarshal(a.Value, t)
	}
	if err != nil {
		return v, fmt.Errorf("variable %s: %w", a.Name, err)
	}
	return v, nil
}

// keep saves a profile in the state directory, if it is not there already.
func (e *Engine) keep(name string, k Kept) error {
	f := keptJSON{Format: 1, Sources: []sourceJSON{}, Vars: []assignmentJSON{}}
	for _, s := range k.Sources {
		f.Sources = append(f.Sources, sourceJSON{s.Name, Value{Text: string(s.Text)}})
	}
	for _, v := range k.Vars {
		a, err := newAssignmentJSON(v)
		if err != nil {
			return fmt.Errorf("profile: %w", err)
		}
		f.Vars = append(f.Vars, a)
	}
	b, err := json.MarshalIndent(f, "", "  ")
	if err != nil {
		return fmt.Errorf("profile: %w", err)
	}
	b = append(b, '\n')
	if old, err := os.ReadFile(e.file(name)); err == nil && bytes.Equal(old, b) {
		return nil
	}
	if err := writeState(e.file(name), b); err != nil {
		return fmt.Errorf("profile: %w (make room or make %s writable)", err, e.State)
	}
	return nil
}

// LastGood returns the profile that was last applied completely, with its
// variables. The error is fs.ErrNotExist where there is none.
func (e *Engine) LastGood() (*Kept, error) { return e.kept("last good profile", lastGoodFile) }

// Applied returns the profile whose apply began last, however that ended, for good or
// only tried. The error is fs.ErrNotExist where there is none.
func (e *Engine) Applied() (*Kept, error) { return e.kept("applied profile", appliedFile) }

func (e *Engine) kept(what, name string) (*Kept, error) {
	b, err := os.ReadFile(e.file(name))
	if err != nil {
		return nil, fmt.Errorf("%s: %w", what, err)
	}
	damaged := func(err error) (*Kept, error) {
		return nil, fmt.Errorf("%s: %s: %w (the next complete apply writes a new one)", what, e.file(name), err)
	}
	var f keptJSON
	if err := json.Unmarshal(b, &f); err != nil {
		return damaged(err)
	}
	if f.Format != 1 || len(f.Sources) == 0 {
		return damaged(errors.New("not in a form that this version knows"))
	}
	k := &Kept{}
	for _, s := range f.Sources {
		k.Sources = append(k.Sources, profile.Source{Name: s.Name, Text: []byte(s.Text.Text)})
	}
	for _, a := range f.Vars {
		v, err := a.assignment()
		if err != nil {
			return damaged(err)
		}
		k.Vars = append(k.Vars, v)
	}
	return k, nil
}
