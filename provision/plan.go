package provision

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"

	"github.com/hashicorp/hcl/v2"
)

// Action is what is to be done with a setting.
type Action string

const (
	// None: it is right already.
	None Action = "none"
	// Set: it is there with another value.
	Set Action = "set"
	// Create and Remove: it is not there and shall be, or the other way round.
	Create Action = "create"
	Remove Action = "remove"
	// Restore: no profile asks for it any more, and it gets the value back that
	// it had before nodeprov.
	Restore Action = "restore"
	// Deferred: it is not there yet, and the early phase leaves it to a later
	// one.
	Deferred Action = "deferred"
	// Unsupported: this host cannot have it; Change.Err says why.
	Unsupported Action = "unsupported"
	// Unreadable: the live value cannot be told; Change.Err says why.
	Unreadable Action = "unreadable"
)

// Change is one setting of a plan.
type Change struct {
	Key string
	// Live is the value now, Want the one to have. Want is absent for Deferred,
	// Unsupported and Unreadable.
	Live, Want Value
	Action     Action
	Scope      Scope
	Lifetime   Lifetime
	// Effect is when a written value holds; "" and "now" are the same.
	Effect string
	// Others are the other places that set this, as "file:line: text".
	Others []string
	// Range is the place in the profile; zero for Restore.
	Range hcl.Range
	// Note is what else there is to know, in words.
	Note string
	// Err is set for Unsupported and Unreadable.
	Err error

	rank    int     // the kind's place in the table
	want    *Wanted // nil for Restore
	setting Setting
	// release says that the key has its old value already, so that it only has
	// to be let go of.
	release bool
}

// due tells whether the change writes something.
func (c *Change) due() bool {
	switch c.Action {
	case Set, Create, Remove, Restore:
		return true
	}
	return false
}

// Plan is what Apply would do now.
type Plan struct {
	Phase Phase
	// Generation is the one that an apply would belong to, and New tells
	// whether it would open it.
	Generation int
	New        bool
	// Restores are taken first, last kind first; then Changes, in order. Changes
	// has every wanted setting.
	Restores, Changes []Change

	asked map[string]*Value
}

// Plan reads the machine and compares. It writes nothing and takes no lock.
// Diagnostics are mistakes of the profile that only this machine shows.
func (e *Engine) Plan(ctx context.Context, ws []Wanted, ph Phase) (*Plan, hcl.Diagnostics, error) {
	j, err := e.openJournal()
	if err != nil {
		return nil, nil, err
	}
	return e.plan(ctx, j, ws, ph, true)
}

func (e *Engine) plan(ctx context.Context, j *journal, ws []Wanted, ph Phase, others bool) (*Plan, hcl.Diagnostics, error) {
	p := &Plan{Phase: ph, asked: make(map[string]*Value, len(ws))}
	chains, order := j.chains()
	var diags hcl.Diagnostics
	for i := range ws {
		if interrupted(ctx) {
			return nil, nil, fmt.Errorf("plan: %w", context.Cause(ctx))
		}
		c := e.examine(ctx, &ws[i], chains, ph)
		var bad *wantError
		if errors.As(c.Err, &bad) {
			diags = append(diags, &hcl.Diagnostic{
				Severity: hcl.DiagError,
				Summary:  "Value not possible on this host",
				Detail:   fmt.Sprintf("%s: %v.", c.Key, bad.err),
				Subject:  c.Range.Ptr(),
			})
		}
		if others && ws[i].Others != nil {
			c.Others = ws[i].Others(e.Host)
		}
		p.Changes = append(p.Changes, c)
		p.asked[c.Key] = nil
		if c.Action == None || c.due() {
			p.asked[c.Key] = &c.Want
		}
	}
	p.Restores = e.restores(ctx, chains, order, p.asked, ph)
	e.number(p, j, chains)
	return p, diags, nil
}

// wantError is a refusal of Wanted.Want.
type wantError struct{ err error }

func (e *wantError) Error() string { return e.err.Error() }
func (e *wantError) Unwrap() error { return e.err }

// examine reads one setting and says what is to be done with it.
func (e *Engine) examine(ctx context.Context, w *Wanted, chains map[string]*chain, ph Phase) Change {
	k := e.kindOf(w.Key())
	c := Change{
		Key: w.Key(), Scope: k.Scope, Lifetime: k.Lifetime, Effect: k.Effect, Range: w.Range,
		rank: e.rank(w.Key()), want: w, setting: w.Setting,
	}
	if w.Scope != "" {
		c.Scope = w.Scope
	}
	refuse := func(a Action, err error) Change {
		c.Action, c.Err, c.Want = a, err, Value{Absent: true}
		return c
	}
	live, err := w.Read(ctx, e.Host)
	if err != nil {
		return refuse(Unreadable, err)
	}
	c.Live = live
	if live.Absent && ph == PhaseEarly {
		c.Note = "not there yet: left to the later run"
		return refuse(Deferred, nil)
	}
	if live.Absent && w.Unsupported != nil {
		if err := w.Unsupported(e.Host); err != nil {
			return refuse(Unsupported, err)
		}
	}
	want, err := w.Want(basis(live, chains[c.Key]))
	if err != nil {
		return refuse(Unsupported, &wantError{err})
	}
	c.Want = want
	switch {
	case same(w.Setting, live, want):
		c.Action = None
	case live.Absent:
		c.Action = Create
	case want.Absent:
		c.Action = Remove
	default:
		c.Action = Set
	}
	return c
}

// basis is the value that Want is asked with: the one that the machine would
// have without us. Were it the live one, at_least would never lower what an
// earlier profile raised, and the end state would depend on both.
func basis(live Value, c *chain) Value {
	if c != nil && c.ours(live) {
		return c.baseline
	}
	return live
}

// restores are the keys that an earlier profile set and this one does not ask
// for, the last first.
func (e *Engine) restores(ctx context.Context, chains map[string]*chain, order []string, asked map[string]*Value, ph Phase) []Change {
	var cs []Change
	for _, key := range e.backwards(order) {
		ch := chains[key]
		if _, ok := asked[key]; ok {
			continue
		}
		c := Change{Key: key, Action: Restore, Want: ch.baseline, Lifetime: ch.lifetime, rank: e.rank(key)}
		k := e.lookup(key)
		if k == nil || ph == PhaseEarly && !k.Early {
			if ph == PhaseEarly {
				continue
			}
			_, err := e.reopen(key)
			c.Action, c.Err = Unreadable, err
			cs = append(cs, c)
			continue
		}
		c.Scope, c.Effect = k.Scope, k.Effect
		s, err := e.reopen(key)
		if err == nil {
			c.setting = s
			c.Live, err = s.Read(ctx, e.Host)
		}
		switch {
		case err != nil:
			c.Action, c.Err = Unreadable, err
		case same(s, c.Live, ch.baseline):
			c.Action, c.release = None, true
		case c.Live.Absent && ph == PhaseEarly:
			continue
		case !ch.ours(c.Live):
			c.Note = fmt.Sprintf("has %s now, not the %s that was applied: something else has set it since", c.Live, ch.applied)
		}
		cs = append(cs, c)
	}
	return cs
}

// backwards orders keys, given in order of change, for going back: the last
// kind first, and within a kind the last change first.
func (e *Engine) backwards(keys []string) []string {
	out := make([]string, 0, len(keys))
	for rank := len(e.Kinds); rank >= 0; rank-- {
		for i := len(keys) - 1; i >= 0; i-- {
			if e.rank(keys[i]) == rank {
				out = append(out, keys[i])
			}
		}
	}
	return out
}

// number tells the plan's generation: the one in force when it asked for the
// same, else a new one.
func (e *Engine) number(p *Plan, j *journal, chains map[string]*chain) {
	cur := j.current()
	inPhase := func(key string) bool {
		k := e.lookup(key)
		return p.Phase == PhaseAll || k != nil && k.Early
	}
	n := 0
	for key := range cur.Asked {
		if _, ok := p.asked[key]; !ok && inPhase(key) {
			n = -1
			break
		}
		if inPhase(key) {
			n++
		}
	}
	// What an early phase has begun, the other completes.
	completes := cur.Phase == PhaseEarly && p.Phase == PhaseAll
	same := cur.Type != "" && n >= 0 && (completes || n == len(p.asked)) && p.agree(cur, chains)
	p.Generation, p.New = cur.Gen, completes
	if !same {
		p.Generation, p.New = j.highest()+1, true
	}
}

// agree compares the values of the keys that both have.
func (p *Plan) agree(cur record, chains map[string]*chain) bool {
	for _, c := range p.Changes {
		prev := cur.Asked[c.Key]
		if prev == nil || p.asked[c.Key] == nil {
			continue
		}
		// What at_least keeps depends on the live value, which is no change of
		// the profile: ask again with what was there then.
		b := *prev
		if ch := chains[c.Key]; ch != nil {
			b = ch.baseline
		}
		if want, err := c.want.Want(b); err != nil || !same(c.setting, *prev, want) {
			return false
		}
	}
	return true
}

// Summary counts a plan's actions. Restores count as such.
type Summary struct {
	Set         int `json:"set"`
	Create      int `json:"create"`
	Remove      int `json:"remove"`
	Restore     int `json:"restore"`
	Unchanged   int `json:"unchanged"`
	Deferred    int `json:"deferred"`
	Unsupported int `json:"unsupported"`
	Unreadable  int `json:"unreadable"`
}

// Due is how many settings would be written.
func (s Summary) Due() int { return s.Set + s.Create + s.Remove + s.Restore }

// Bad is how many settings cannot be applied.
func (s Summary) Bad() int { return s.Unsupported + s.Unreadable }

// Summary counts.
func (p *Plan) Summary() Summary {
	var s Summary
	for _, cs := range [][]Change{p.Restores, p.Changes} {
		for _, c := range cs {
			switch c.Action {
			case Set:
				s.Set++
			case Create:
				s.Create++
			case Remove:
				s.Remove++
			case Restore:
				s.Restore++
			case Deferred:
				s.Deferred++
			case Unsupported:
				s.Unsupported++
			case Unreadable:
				s.Unreadable++
			default:
				if !c.release {
					s.Unchanged++
				}
			}
		}
	}
	return s
}

// MarshalJSON is the machine-readable plan. The shape is stable: fields are
// added, never renamed or given another meaning while format is 1.
//
//	{"format": 1, "phase": "all"|"early", "generation": N, "new_generation": bool,
//	 "changes": [{"key", "kind", "name", "action", "live": VALUE, "want": VALUE,
//	   "scope": "machine"|"netns", "lifetime": "runtime"|"persistent", "effect",
//	   "others": [TEXT], "range": RANGE, "note", "error"}],
//	 "summary": {"set", "create", "remove", "restore", "unchanged", "deferred",
//	   "unsupported", "unreadable"}}
//
// VALUE is {"text": TEXT}, {"absent": true}, or {"base64": TEXT} for what is no
// UTF-8; RANGE has the shape of a diagnostic's and is left out for a restore.
// Restores come first.
func (p *Plan) MarshalJSON() ([]byte, error) {
	changes := []changeJSON{}
	for _, cs := range [][]Change{p.Restores, p.Changes} {
		for i := range cs {
			if !cs[i].release {
				changes = append(changes, cs[i].json())
			}
		}
	}
	return json.Marshal(struct {
		Format     int          `json:"format"`
		Phase      Phase        `json:"phase"`
		Generation int          `json:"generation"`
		New        bool         `json:"new_generation"`
		Changes    []changeJSON `json:"changes"`
		Summary    Summary      `json:"summary"`
	}{1, p.Phase, p.Generation, p.New, changes, p.Summary()})
}

type changeJSON struct {
	Key      string     `json:"key"`
	Kind     string     `json:"kind"`
	Name     string     `json:"name"`
	Action   Action     `json:"action"`
	Live     Value      `json:"live"`
	Want     Value      `json:"want"`
	Scope    Scope      `json:"scope,omitempty"`
	Lifetime Lifetime   `json:"lifetime,omitempty"`
	Effect   string     `json:"effect"`
	Others   []string   `json:"others,omitempty"`
	Range    *rangeJSON `json:"range,omitempty"`
	Note     string     `json:"note,omitempty"`
	Error    string     `json:"error,omitempty"`
}

type rangeJSON struct {
	Filename string  `json:"filename"`
	Start    posJSON `json:"start"`
	End      posJSON `json:"end"`
}

type posJSON struct {
	Line   int `json:"line"`
	Column int `json:"column"`
	Byte   int `json:"byte"`
}

func (c *Change) json() changeJSON {
	out := changeJSON{
		Key: c.Key, Kind: kindName(c.Key), Name: nameOf(c.Key), Action: c.Action, Live: c.Live, Want: c.Want,
		Scope: c.Scope, Lifetime: c.Lifetime, Effect: c.effect(), Others: c.Others, Note: c.Note,
	}
	if c.Err != nil {
		out.Error = c.Err.Error()
	}
	if c.Range != (hcl.Range{}) {
		out.Range = &rangeJSON{c.Range.Filename, posJSON(c.Range.Start), posJSON(c.Range.End)}
	}
	return out
}

func (c *Change) effect() string {
	if c.Effect == "" {
		return "now"
	}
	return c.Effect
}
