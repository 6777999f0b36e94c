package provision

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/hashicorp/hcl/v2"

	"github.com/nodeprov/nodeprov/provision/host"
	"github.com/nodeprov/nodeprov/provision/profile"
)

// Phase says which settings a run takes.
type Phase string

const (
	// PhaseAll takes every setting.
	PhaseAll Phase = "all"
	// PhaseEarly takes the settings of early kinds, and leaves those alone that
	// do not exist yet: they are deferred to a later run of PhaseAll.
	PhaseEarly Phase = "early"
)

// PhaseNIC takes the settings of one network device (see Devicer): the device
// has appeared, or was reset. It neither opens a generation nor puts anything
// back that is not the device's.
func PhaseNIC(device string) Phase { return Phase("nic/" + device) }

// Device is the device of a PhaseNIC; empty for the other phases.
func (p Phase) Device() string {
	device, _ := strings.CutPrefix(string(p), "nic/")
	if device == string(p) {
		return ""
	}
	return device
}

// Engine makes a host match what is wanted of it, and can go back. Its methods
// may be called from one goroutine at a time; several processes may share one
// State, where Apply and Rollback take turns.
type Engine struct {
	Host *host.Host
	// Kinds is the table of kinds, in order; see Kinds.
	Kinds []Kind
	// State is the directory of the journal, the report and the last good
	// profile. Apply and Rollback create it.
	State string
	// Boot identifies the boot. Empty means the kernel's boot_id.
	Boot string
	// Now is the clock of the reports; nil means time.Now.
	Now func() time.Time
	// Waiting is called once when another process holds the lock and Apply or
	// Rollback has to wait for it. May be nil.
	Waiting func(lock string)

	// open opens the journal for appending; nil means the file system. Tests
	// put a failing disk here.
	open func(path string) (journalFile, error)
}

// Desired turns an evaluated profile into settings, in the order in which they
// are applied: by the kind of their keys, then as the profile has them. Two
// constructs that ask for the same key are an error. The facts are nil where
// the host is unknown.
func (e *Engine) Desired(p *profile.Profile, f *host.Facts, ph Phase) ([]Wanted, hcl.Diagnostics) {
	var all []Wanted
	var diags hcl.Diagnostics
	for _, b := range p.Blocks {
		k := e.schemaKind(b.Type)
		// The early unit cannot know the facts that later blocks are made of.
		if ph == PhaseEarly && !k.Early {
			continue
		}
		ws, ds := k.Wanted(b, Target{Host: e.Host, Facts: f})
		all, diags = append(all, ws...), append(diags, ds...)
	}

	first := make(map[string]hcl.Range)
	ws := all[:0]
	for _, w := range all {
		at, dup := first[w.Key()]
		switch {
		case dup:
			diags = append(diags, &hcl.Diagnostic{
				Severity: hcl.DiagError,
				Summary:  "Setting asked for twice",
				Detail:   fmt.Sprintf("%s is already set at %s. Remove one of the two.", w.Key(), place(at)),
				Subject:  w.Range.Ptr(),
			})
		default:
			first[w.Key()] = w.Range
			if k := e.kindOf(w.Key()); ph == PhaseEarly && !k.Early {
				continue
			}
			ws = append(ws, w)
		}
	}
	slices.SortStableFunc(ws, func(a, b Wanted) int { return e.rank(a.Key()) - e.rank(b.Key()) })
	return ws, diags
}

// Schemas are the constructs of all kinds, for profile.Options.
func Schemas(kinds []Kind) []profile.Schema {
	var ss []profile.Schema
	for _, k := range kinds {
		if k.Schema != nil {
			ss = append(ss, *k.Schema)
		}
	}
	return ss
}

// schemaKind returns the kind of a construct. profile.Load lets only those of
// its schemas through, so another one is a mistake of the caller.
func (e *Engine) schemaKind(construct string) *Kind {
	for i := range e.Kinds {
		if s := e.Kinds[i].Schema; s != nil && s.Type == construct {
			return &e.Kinds[i]
		}
	}
	panic("provision: no kind has the construct " + construct)
}

// kindOf returns the kind of a wanted setting's key.
func (e *Engine) kindOf(key string) *Kind {
	if k := e.lookup(key); k != nil {
		return k
	}
	panic("provision: no kind has the key " + key)
}

// lookup returns nil for a key of a kind that this version does not have.
func (e *Engine) lookup(key string) *Kind {
	if i := e.rank(key); i < len(e.Kinds) {
		return &e.Kinds[i]
	}
	return nil
}

func (e *Engine) rank(key string) int {
	kind, _, _ := strings.Cut(key, "/")
	for i := range e.Kinds {
		if e.Kinds[i].Name == kind {
			return i
		}
	}
	return len(e.Kinds)
}

// reopen makes the setting of a journaled key again.
func (e *Engine) reopen(key string) (Setting, error) {
	k := e.lookup(key)
	if k == nil {
		return nil, fmt.Errorf("%s: unknown kind of setting (use the version of nodeprov that set it)", key)
	}
	return k.Open(nameOf(key))
}

// nameOf is the key without "KIND/".
func nameOf(key string) string {
	_, name, _ := strings.Cut(key, "/")
	return name
}

func kindName(key string) string {
	kind, _, _ := strings.Cut(key, "/")
	return kind
}

func (e *Engine) boot() (string, error) {
	if e.Boot != "" {
		return e.Boot, nil
	}
	return e.Host.BootID()
}

func (e *Engine) now() time.Time {
	if e.Now != nil {
		return e.Now()
	}
	return time.Now().UTC().Truncate(time.Millisecond)
}

func (e *Engine) file(name string) string { return filepath.Join(e.State, name) }

// place is "file:line:column", as diagnostics are printed.
func place(r hcl.Range) string {
	return fmt.Sprintf("%s:%d:%d", r.Filename, r.Start.Line, r.Start.Column)
}

// Digest is the hash by which reports name a profile's text: SHA-256 in hex.
func Digest(text []byte) string {
	s := sha256.Sum256(text)
	return hex.EncodeToString(s[:])
}

// interrupted tells a run that was asked to stop from one that failed.
func interrupted(ctx context.Context) bool { return ctx.Err() != nil }
