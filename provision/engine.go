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
// has appeared, or was reset. What it writes belongs to the generation in force;
// where there is none, it opens one as the early phase does, for a run of PhaseAll
// to complete. It puts back what is the device's only, and leaves alone what
// does not exist yet. Its outcomes take the place of those of the device in the
// report of the last apply, if that was one of PhaseAll in this boot; else they
// are in no saved report.
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
	// Booting: the machine comes up, and devices may still come. One that a profile
	// names and that is not there yet is a warning then: its own unit sets it when it
	// appears, and must not keep the rest from being applied.
	Booting bool
	// Boot identifies the boot. Empty means the kernel's boot_id.
	Boot string
	// Now is the clock of the reports; nil means time.Now.
	Now func() time.Time
	// Timer reverts what is only tried (ApplyOptions.Try), whatever becomes of this
	// process; nil refuses to try.
	Timer TryTimer
	// Stamp is the path of the file that says that all which K3s needs is in place;
	// see StampFile. Empty for none, as with a State that is not the machine's.
	Stamp string
	// Waiting is called once when another process holds the lock and Apply or
	// Rollback has to wait for it. May be nil.
	Waiting func(lock string)

	// open opens the journal for appending; nil means the file system. Tests
	// put a failing disk here.
	open func(path string) (journalFile, error)
	// listDevices lists the network devices; nil means the Host. For tests.
	listDevices func() ([]string, error)
}

// StampFile is there while the last apply of PhaseAll in this boot found, or put, all
// settings of class Fail in place: what kubelet refuses to start without. The unit
// of K3s is ordered after nodeprov-apply.service and has it as
// ConditionPathExists=. It is removed before an apply that writes such a setting, or
// puts something back, and written at its end; an apply that ends with one failed
// or not tried leaves it removed, and so does a rollback to generation 0. A running
// K3s does not look at it again. Its text is the generation.
const StampFile = "/run/nodeprov/ready"

// Desired turns an evaluated profile into settings, in the order in which they
// are applied: by the kind of their keys, then as the profile has them. Two
// constructs that ask for the same key are an error. The facts are nil where
// the host is unknown.
func (e *Engine) Desired(p *profile.Profile, f *host.Facts, ph Phase) ([]Wanted, hcl.Diagnostics) {
	ws, diags := e.desired(p, f, ph)
	return slices.DeleteFunc(ws, func(w Wanted) bool { return !e.inPhase(ph, e.kindOf(w.Key()), w.Setting) }), diags
}

// DesiredByDevice is what Desired returns for the PhaseNIC of each network device,
// of all devices at once: a node has hundreds. What is wrong with one device does not
// keep the others from theirs.
func (e *Engine) DesiredByDevice(p *profile.Profile, f *host.Facts) map[string][]Wanted {
	// Which device it is makes no difference to what is evaluated.
	ws, _ := e.desired(p, f, PhaseNIC("any"))
	sets := make(map[string][]Wanted)
	for _, w := range ws {
		if d := deviceOf(w.Setting); d != "" {
			sets[d] = append(sets[d], w)
		}
	}
	return sets
}

// desired are the settings of the constructs that the phase evaluates, those of
// other phases among them.
func (e *Engine) desired(p *profile.Profile, f *host.Facts, ph Phase) ([]Wanted, hcl.Diagnostics) {
	var all []Wanted
	var diags hcl.Diagnostics
	for _, b := range p.Blocks {
		k := e.schemaKind(b.Type)
		// The early unit cannot know the facts that later blocks are made of, and
		// a device's needs only what has settings of devices.
		if ph == PhaseEarly && !k.Early || ph.Device() != "" && !k.Device {
			continue
		}
		ws, ds := k.Wanted(b, Target{Host: e.Host, Facts: f, Booting: e.Booting})
		all, diags = append(all, ws...), append(diags, ds...)
	}

	first := make(map[string]hcl.Range)
	ws := all[:0]
	for _, w := range all {
		if at, dup := first[w.Key()]; dup {
			diags = append(diags, &hcl.Diagnostic{
				Severity: hcl.DiagError,
				Summary:  "Setting asked for twice",
				Detail:   fmt.Sprintf("%s is already set at %s. Remove one of the two.", w.Key(), place(at)),
				Subject:  w.Range.Ptr(),
			})
			continue
		}
		first[w.Key()] = w.Range
		ws = append(ws, w)
	}
	slices.SortStableFunc(ws, func(a, b Wanted) int { return e.rank(a.Key()) - e.rank(b.Key()) })
	return ws, diags
}

// Constructs are those that a phase evaluates, for profile.Options.Only; nil for
// all.
func Constructs(kinds []Kind, ph Phase) []string {
	if ph == PhaseAll {
		return nil
	}
	only := []string{}
	for _, k := range kinds {
		if k.Schema != nil && (ph == PhaseEarly && k.Early || ph.Device() != "" && k.Device) {
			only = append(only, k.Schema.Type)
		}
	}
	return only
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

// Digest is the hash by which reports name a profile: SHA-256 in hex, of the text of
// its only source, or of the digests of its several ones, the profile itself first.
func Digest(sources ...profile.Source) string {
	hash := func(text []byte) string {
		s := sha256.Sum256(text)
		return hex.EncodeToString(s[:])
	}
	if len(sources) == 1 {
		return hash(sources[0].Text)
	}
	var b strings.Builder
	for _, s := range sources {
		fmt.Fprintln(&b, hash(s.Text))
	}
	return hash([]byte(b.String()))
}

// interrupted tells a run that was asked to stop from one that failed.
func interrupted(ctx context.Context) bool { return ctx.Err() != nil }
