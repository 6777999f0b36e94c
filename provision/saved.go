package provision

import (
	"bytes"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/zclconf/go-cty/cty"
	ctyjson "github.com/zclconf/go-cty/cty/json"

	"github.com/nodeprov/nodeprov/provision/host"
	"github.com/nodeprov/nodeprov/provision/profile"
)

// SavedPlan is a plan in a file: what was decided, and all that it was decided from,
// so that exactly this is applied later or nothing. It holds no secret: of a
// sensitive variable a salted digest, and of the profile's texts their digests, as a
// text may hold secrets too.
type SavedPlan struct {
	// Format is 1, under a name by which the file is known.
	Format  int       `json:"nodeprov_plan"`
	Created time.Time `json:"created"`
	Boot    string    `json:"boot"`
	// From is the generation in force, Generation the one that an apply belongs
	// to.
	From       int   `json:"from_generation"`
	Generation int   `json:"generation"`
	Phase      Phase `json:"phase"`
	// Sources are those of the profile, itself first.
	Sources []SavedSource   `json:"sources"`
	Vars    []SavedVariable `json:"variables"`
	// Facts are those of the host that stay as they are, FactsDigest is their SHA-256.
	Facts       json.RawMessage `json:"facts"`
	FactsDigest string          `json:"facts_sha256"`
	Changes     []SavedChange   `json:"changes"`
}

// SavedSource is a text of the profile.
type SavedSource struct {
	Name   string `json:"name"`
	Digest string `json:"sha256"`
}

// SavedVariable is an assignment from outside. Of a sensitive one, Digest is the
// SHA-256 of Salt (in hex) and value.
type SavedVariable struct {
	assignmentJSON
	Lenient bool   `json:"lenient,omitempty"`
	Salt    string `json:"salt,omitempty"`
	Digest  string `json:"sha256,omitempty"`
}

// Sensitive tells whether the value is not in the plan, and has to be given again.
func (v *SavedVariable) Sensitive() bool { return v.Digest != "" }

// SavedChange is a setting of the plan: what it had, and what it is to have.
type SavedChange struct {
	Key    string `json:"key"`
	Action Action `json:"action"`
	Live   Value  `json:"live"`
	Want   Value  `json:"want"`
}

// StaleError says that a saved plan is not what would be done now.
type StaleError struct {
	// Changed names what is not as it was, one a line.
	Changed []string
}

func (e *StaleError) Error() string {
	return fmt.Sprintf("the plan is out of date (make a new one): %s", strings.Join(e.Changed, "; "))
}

// Save returns the plan in the form of a file. The sources, the variables and the
// facts are those that it was made from; sensitive names the variables whose values
// are kept out.
func (e *Engine) Save(p *Plan, sources []profile.Source, vars []profile.Assignment, sensitive []string, f *host.Facts) ([]byte, error) {
	j, err := e.openJournal()
	if err != nil {
		return nil, err
	}
	s := &SavedPlan{
		Format: 1, Created: e.now(), Boot: j.boot, From: j.current().Gen, Generation: p.Generation, Phase: p.Phase,
		Sources: []SavedSource{}, Vars: []SavedVariable{}, Changes: []SavedChange{},
	}
	for _, src := range sources {
		s.Sources = append(s.Sources, SavedSource{src.Name, Digest(src)})
	}
	for _, v := range vars {
		a, err := newAssignmentJSON(v)
		if err != nil {
			return nil, fmt.Errorf("saved plan: %w", err)
		}
		sv := SavedVariable{assignmentJSON: a, Lenient: v.Lenient}
		if slices.Contains(sensitive, v.Name) {
			salt := make([]byte, 16)
			_, _ = rand.Read(salt) // never fails
			sv.Salt = hex.EncodeToString(salt)
			if sv.Digest, err = secretDigest(sv.Salt, v); err != nil {
				return nil, fmt.Errorf("saved plan: %w", err)
			}
			sv.Text, sv.Value, sv.Type = "", nil, nil
		}
		s.Vars = append(s.Vars, sv)
	}
	if s.Facts, s.FactsDigest, err = lastingFacts(f); err != nil {
		return nil, fmt.Errorf("saved plan: %w", err)
	}
	s.Changes = p.saved()
	b, err := json.MarshalIndent(s, "", "  ")
	if err != nil {
		return nil, fmt.Errorf("saved plan: %w", err)
	}
	return append(b, '\n'), nil
}

// ParseSavedPlan reads the text of a file. ok is false where it is no plan at all,
// but a profile.
func ParseSavedPlan(text []byte) (s *SavedPlan, ok bool, err error) {
	if !bytes.HasPrefix(bytes.TrimSpace(text), []byte("{")) || !bytes.Contains(text, []byte(`"nodeprov_plan"`)) {
		return nil, false, nil // no profile begins with a brace
	}
	s = &SavedPlan{}
	if err := json.Unmarshal(text, s); err != nil {
		return nil, true, fmt.Errorf("saved plan: %w (make a new one)", err)
	}
	if s.Format != 1 || len(s.Sources) == 0 || s.Phase != PhaseAll {
		return nil, true, errors.New("saved plan: not in a form that this version knows (make a new one)")
	}
	return s, true, nil
}

// Assignments are the variables of the plan; given are those from outside, of which
// only sensitive ones are taken, and must have the same value as then.
func (s *SavedPlan) Assignments(given []profile.Assignment) ([]profile.Assignment, error) {
	var out []profile.Assignment
	var missing, changed []string
	for _, v := range s.Vars {
		if !v.Sensitive() {
			a, err := v.assignment()
			if err != nil {
				return nil, fmt.Errorf("saved plan: %w", err)
			}
			a.Lenient = v.Lenient
			out = append(out, a)
			continue
		}
		// The variable may have been given in several places, the last of which won:
		// one that fits each is enough.
		found, named := false, false
		for _, g := range given {
			if g.Name != v.Name {
				continue
			}
			named = true
			d, err := secretDigest(v.Salt, g)
			if err != nil {
				return nil, fmt.Errorf("saved plan: %w", err)
			}
			if d == v.Digest {
				g.Lenient = v.Lenient
				out, found = append(out, g), true
				break
			}
		}
		switch {
		case found:
		case named:
			changed = append(changed, fmt.Sprintf("variable %s has another value", v.Name))
		default:
			missing = append(missing, v.Name)
		}
	}
	if len(missing) > 0 {
		slices.Sort(missing)
		return nil, fmt.Errorf("saved plan: it does not hold the values of sensitive variables: give %s again (--var, --var-file or NODEPROV_VAR_…)", strings.Join(slices.Compact(missing), ", "))
	}
	if len(changed) > 0 {
		return nil, &StaleError{changed}
	}
	return out, nil
}

// CheckSources compares the profile's texts with those that the plan was made from.
func (s *SavedPlan) CheckSources(sources []profile.Source) error {
	var changed []string
	was := make(map[string]string)
	for _, src := range s.Sources {
		was[src.Name] = src.Digest
	}
	for _, src := range sources {
		switch d, ok := was[src.Name]; {
		case !ok:
			changed = append(changed, src.Name+" was not part of the profile")
		case d != Digest(src):
			changed = append(changed, src.Name+" has changed")
		}
		delete(was, src.Name)
	}
	for _, name := range slices.Sorted(maps.Keys(was)) {
		changed = append(changed, name+" is no part of the profile any more")
	}
	if changed != nil {
		return &StaleError{changed}
	}
	return nil
}

// CheckFacts compares the host with the one that the plan was made on.
func (s *SavedPlan) CheckFacts(f *host.Facts) error {
	now, digest, err := lastingFacts(f)
	if err != nil {
		return fmt.Errorf("saved plan: %w", err)
	}
	if digest == s.FactsDigest {
		return nil
	}
	a, b := flatten(s.Facts), flatten(now)
	var changed []string
	for _, k := range slices.Sorted(maps.Keys(b)) {
		if old, ok := a[k]; !ok {
			changed = append(changed, fmt.Sprintf("%s is %s and was not there", k, b[k]))
		} else if old != b[k] {
			changed = append(changed, fmt.Sprintf("%s is %s and was %s", k, b[k], old))
		}
	}
	for _, k := range slices.Sorted(maps.Keys(a)) {
		if _, ok := b[k]; !ok {
			changed = append(changed, fmt.Sprintf("%s is gone and was %s", k, a[k]))
		}
	}
	if changed == nil {
		changed = []string{"the facts in the file are not those that its facts_sha256 is of"}
	}
	return &StaleError{few(changed)}
}

// check compares the plan with what would be done now, under the lock.
func (s *SavedPlan) check(p *Plan, j *journal) error {
	var changed []string
	if s.Boot != j.boot {
		return &StaleError{[]string{"the machine has rebooted since"}}
	}
	if n := j.current().Gen; n != s.From {
		changed = append(changed, fmt.Sprintf("generation %d is in force, and it was %d", n, s.From))
	}
	now := make(map[string]SavedChange)
	for _, c := range p.saved() {
		now[c.Key] = c
	}
	for _, was := range s.Changes {
		is, ok := now[was.Key]
		delete(now, was.Key)
		switch {
		case !ok:
			changed = append(changed, was.Key+" would not be set any more")
		case is.Live != was.Live:
			changed = append(changed, fmt.Sprintf("%s has %s and had %s", was.Key, is.Live, was.Live))
		case is.Want != was.Want:
			changed = append(changed, fmt.Sprintf("%s would be set to %s, and not to %s", was.Key, is.Want, was.Want))
		case is.Action != was.Action:
			changed = append(changed, fmt.Sprintf("%s: %s, and it was %s", was.Key, is.Action, was.Action))
		}
	}
	for _, key := range slices.Sorted(maps.Keys(now)) {
		changed = append(changed, key+" would be set too")
	}
	if changed != nil {
		return &StaleError{few(changed)}
	}
	return nil
}

// saved are all settings of the plan, also those that are right: that they stay so
// was part of what was shown.
func (p *Plan) saved() []SavedChange {
	out := []SavedChange{}
	for _, cs := range [][]Change{p.Restores, p.Changes} {
		for _, c := range cs {
			if !c.release {
				out = append(out, SavedChange{c.Key, c.Action, c.Live, c.Want})
			}
		}
	}
	return out
}

// few shortens a list of reasons for a person.
func few(reasons []string) []string {
	const most = 5
	if len(reasons) <= most+1 {
		return reasons
	}
	return append(slices.Clone(reasons[:most]), fmt.Sprintf("and %d more", len(reasons)-most))
}

// secretDigest stands for a value that is not kept.
func secretDigest(salt string, v profile.Assignment) (string, error) {
	text := v.Text
	if v.Value != cty.NilVal {
		b, err := ctyjson.Marshal(v.Value, v.Value.Type())
		if err != nil {
			return "", fmt.Errorf("variable %s: %w", v.Name, err)
		}
		// A text is the same whether it came from a file or a command line.
		if text = string(b); v.Value.Type() == cty.String && !v.Value.IsNull() {
			text = v.Value.AsString()
		}
	}
	h := sha256.Sum256([]byte(salt + text))
	return hex.EncodeToString(h[:]), nil
}

// lastingFacts are the facts without what comes and goes by itself, or by an apply:
// whether a device is up, its MTU, queues and rings in use, the default route, and
// virtual devices, which pods bring. What a plan made of those shows in its values.
func lastingFacts(f *host.Facts) (json.RawMessage, string, error) {
	if f == nil {
		return json.RawMessage("null"), Digest(profile.Source{}), nil
	}
	g := *f
	g.NICs = []host.NICFacts{}
	for _, n := range f.NICs {
		if n.Virtual {
			continue
		}
		n.Up, n.MTU, n.DefaultRoute = false, 0, false
		n.Channels.Combined, n.Channels.RX, n.Channels.TX = 0, 0, 0
		n.Rings.RX, n.Rings.TX = 0, 0
		g.NICs = append(g.NICs, n)
	}
	b, err := json.Marshal(g)
	if err != nil {
		return nil, "", fmt.Errorf("facts: %w", err)
	}
	return b, Digest(profile.Source{Text: b}), nil
}

// flatten gives each fact by its name in a profile.
func flatten(facts json.RawMessage) map[string]string {
	out := make(map[string]string)
	var walk func(name string, v any)
	walk = func(name string, v any) {
		switch v := v.(type) {
		case map[string]any:
			for k, e := range v {
				walk(name+"."+k, e)
			}
		case []any:
			for i, e := range v {
				walk(fmt.Sprintf("%s[%d]", name, i), e)
			}
		default:
			b, _ := json.Marshal(v) // it was JSON
			out[name] = string(b)
		}
	}
	var v any
	if json.Unmarshal(facts, &v) == nil && v != nil {
		walk("host", v)
	}
	return out
}
