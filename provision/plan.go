package provision

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"

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
	// Deferred: it is not there yet, and the early phase, or that of one device,
	// leaves it to a later one.
	Deferred Action = "deferred"
	// AtBoot: the host is only a tree of files, and this setting is the running
	// kernel's: it is left to the boot of the machine that the tree becomes.
	AtBoot Action = "at boot"
	// Tolerated: this host cannot have it, or has refused it in this boot, and the
	// profile says that this is fine; Change.Err says why.
	Tolerated Action = "tolerated"
	// Unsupported: this host cannot have it; Change.Err says why.
	Unsupported Action = "unsupported"
	// Unreadable: the live value cannot be told; Change.Err says why.
	Unreadable Action = "unreadable"
	// Ineffective, of a verification: the value is as wanted and its effect is not;
	// Change.Err says what was found.
	Ineffective Action = "ineffective"
)

// Change is one setting of a plan.
type Change struct {
	Key string
	// Live is the value now, Want the one to have. Want is absent for Deferred,
	// AtBoot, Unsupported and Unreadable, and mostly for Tolerated.
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
	// Inexact says why going back may not restore this change exactly, or why this
	// Restore may not; empty where it can.
	Inexact string
	// Pending says what the machine lacks until it reboots; empty where nothing.
	Pending string
	// Err is set for Unsupported, Unreadable, Tolerated and Ineffective.
	Err error

	rank    int     // the kind's place in the table
	want    *Wanted // nil for Restore
	setting Setting
	// device is the setting's, kindScope the kind's Scope.
	device    string
	kindScope Scope
	// before is what the machine would have without nodeprov.
	before Value
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
	// head is what the journal is to have before the changes; nil where the
	// generation in force says it all.
	head *record
}

// Pending is a setting that holds only after a reboot.
type Pending struct {
	Key string `json:"key"`
	// Reason is what the machine lacks until then, as a clause.
	Reason string `json:"reason"`
}

// Pending is what would hold only after a reboot, in order.
func (p *Plan) Pending() []Pending {
	return append(pending(p.Restores), pending(p.Changes)...)
}

func pending(cs []Change) []Pending {
	ps := []Pending{}
	for _, c := range cs {
		if c.Pending != "" {
			ps = append(ps, Pending{c.Key, c.Pending})
		}
	}
	return ps
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
	p := &Plan{Phase: ph, asked: make(map[string]*Value, len(ws)), Changes: make([]Change, 0, len(ws))}
	h := j.history()
	var diags hcl.Diagnostics
	for i := range ws {
		if interrupted(ctx) {
			return nil, nil, fmt.Errorf("plan: %w", context.Cause(ctx))
		}
		c := e.examine(ctx, &ws[i], h, ph)
		var bad *wantError
		if c.Action == Unsupported && errors.As(c.Err, &bad) {
			diags = append(diags, &hcl.Diagnostic{
				Severity: hcl.DiagError,
				Summary:  "Value not possible on this host",
				Detail:   fmt.Sprintf("%s: %v.", c.Key, bad.err),
				Subject:  c.Range.Ptr(),
			})
		}
		if others && ws[i].Others != nil && c.Action != AtBoot {
			c.Others = ws[i].Others(e.Host)
		}
		p.Changes = append(p.Changes, c)
		p.asked[c.Key] = nil
		if c.Action == None || c.due() {
			p.asked[c.Key] = &c.Want
		}
	}
	p.Restores = e.restores(ctx, h, p.asked, ph)
	return p, diags, e.number(ctx, p, j, h.chains)
}

// Compare reads settings of network devices, given by device, and says what a Plan for
// the PhaseNIC of each would do with them. The journal is read once for all.
func (e *Engine) Compare(ctx context.Context, sets map[string][]Wanted) (map[string][]Change, error) {
	j, err := e.openJournal()
	if err != nil {
		return nil, err
	}
	h := j.history()
	changes := make(map[string][]Change, len(sets))
	for device, ws := range sets {
		for i := range ws {
			if interrupted(ctx) {
				return nil, fmt.Errorf("compare: %w", context.Cause(ctx))
			}
			changes[device] = append(changes[device], e.examine(ctx, &ws[i], h, PhaseNIC(device)))
		}
	}
	return changes, nil
}

// wantError is a refusal of Wanted.Want.
type wantError struct{ err error }

func (e *wantError) Error() string { return e.err.Error() }
func (e *wantError) Unwrap() error { return e.err }

// lifetime is a setting's own, or its kind's.
func lifetime(k *Kind, s Setting) Lifetime {
	if l, ok := s.(Lifetimer); ok {
		return l.Lifetime()
	}
	return k.Lifetime
}

// examine reads one setting and says what is to be done with it.
func (e *Engine) examine(ctx context.Context, w *Wanted, h *history, ph Phase) Change {
	k := e.kindOf(w.Key())
	c := Change{
		Key: w.Key(), Scope: k.Scope, Lifetime: lifetime(k, w.Setting), Effect: k.Effect, Range: w.Range,
		rank: e.rank(w.Key()), want: w, setting: w.Setting, device: deviceOf(w.Setting), kindScope: k.Scope,
	}
	if w.Scope != "" {
		c.Scope = w.Scope
	}
	if w.Effect != "" {
		c.Effect = w.Effect
	}
	refuse := func(a Action, err error) Change {
		if err != nil && w.OnError == Tolerate {
			a = Tolerated
		}
		c.Action, c.Err, c.Want = a, err, Value{Absent: true}
		return c
	}
	if e.offline() && c.Lifetime == Runtime {
		return refuse(AtBoot, nil)
	}
	live, err := w.Read(ctx, e.Host)
	if err != nil {
		return refuse(Unreadable, err)
	}
	c.Live = live
	if live.Absent && w.Unsupported != nil {
		if err := w.Unsupported(e.Host); err != nil {
			if ph == PhaseEarly || ph.Device() != "" {
				c.Note = "not there yet: left to the later run"
				return refuse(Deferred, nil)
			}
			return refuse(Unsupported, err)
		}
	}
	c.before = basis(live, h.chains[c.Key])
	want, err := w.Want(c.before)
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
	if r, ok := h.refused[c.Key]; ok && c.due() && w.OnError == Tolerate && *r.Want == want && *r.Before == live {
		// Trying again would only disturb: some devices are reset by it.
		c.Action, c.Err = Tolerated, fmt.Errorf("refused earlier in this boot: %s", r.Why)
	}
	if c.due() {
		c.Inexact = inexact(w.Setting, live, want)
	}
	c.Pending = e.pending(ctx, &c)
	return c
}

// pending asks what of a change holds only after a reboot.
func (e *Engine) pending(ctx context.Context, c *Change) string {
	s, ok := c.setting.(Pender)
	switch {
	case !ok || e.offline() || c.want == nil:
		return ""
	case c.due() && c.effect() != "now":
		return "what is to be written holds after a reboot"
	case c.Action != None:
		return ""
	}
	why, err := s.Pending(ctx, e.Host, c.Want)
	if err != nil {
		return fmt.Sprintf("whether it holds cannot be told: %v", err)
	}
	return why
}

// offline tells whether the host is only a tree of files.
func (e *Engine) offline() bool { return e.Host != nil && !e.Host.Live() }

func deviceOf(s Setting) string {
	if d, ok := s.(Devicer); ok {
		return d.Device()
	}
	return ""
}

func inexact(s Setting, live, want Value) string {
	if i, ok := s.(Inexacter); ok {
		return i.Inexact(live, want)
	}
	return ""
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
func (e *Engine) restores(ctx context.Context, h *history, asked map[string]*Value, ph Phase) []Change {
	var cs []Change
	for _, key := range e.backwards(h.order) {
		ch := h.chains[key]
		if _, ok := asked[key]; ok {
			continue
		}
		k := e.lookup(key)
		s, err := e.reopen(key)
		if ph != PhaseAll && (k == nil || !e.inPhase(ph, k, s)) || e.offline() && ch.lifetime == Runtime {
			continue
		}
		c := Change{Key: key, Action: Restore, Want: ch.baseline, Lifetime: ch.lifetime, rank: e.rank(key), before: ch.baseline, setting: s}
		if k != nil {
			c.Scope, c.kindScope, c.Effect = k.Scope, k.Scope, k.Effect
		}
		if err == nil {
			c.device = deviceOf(s)
			c.Live, err = s.Read(ctx, e.Host)
		}
		switch {
		case err != nil:
			c.Action, c.Err = Unreadable, err
		case same(s, c.Live, ch.baseline):
			c.Action, c.release = None, true
		case c.Live.Absent && ch.lifetime == Runtime && !ch.ours(c.Live):
			if ph != PhaseAll {
				continue // not there yet
			}
			// The device or the module went, and its value with it.
			c.Action, c.release = None, true
		default:
			if !ch.ours(c.Live) {
				c.Note = fmt.Sprintf("has %s now, not the %s that was applied: something else has set it since", c.Live, ch.applied)
			}
			c.Inexact = inexact(s, ch.baseline, ch.applied)
			if _, ok := s.(Pender); ok && !e.offline() && c.effect() != "now" {
				c.Pending = "what is put back holds after a reboot"
			}
		}
		cs = append(cs, c)
	}
	return cs
}

// inPhase tells whether a run of that phase takes a setting; it is nil where the
// key cannot be opened.
func (e *Engine) inPhase(ph Phase, k *Kind, s Setting) bool {
	switch d := ph.Device(); {
	case d != "":
		return s != nil && deviceOf(s) == d
	case ph == PhaseEarly:
		return k.Early
	}
	return true
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
// same, else a new one. That a device came or went is no difference.
func (e *Engine) number(ctx context.Context, p *Plan, j *journal, chains map[string]*chain) error {
	cur := j.current()
	devices, err := e.devices()
	if err != nil {
		return err
	}
	came := make(map[string]*Value)
	same := cur.Type != ""
	for key := range cur.Asked {
		_, ok := p.asked[key]
		k := e.lookup(key)
		if ok || !same {
			continue
		}
		s, _ := e.reopen(key) // a key that cannot be opened has no device
		if k == nil || !e.inPhase(p.Phase, k, s) {
			same = p.Phase != PhaseAll
			continue
		}
		d := deviceOf(s)
		same = d != "" && !slices.Contains(devices, d) || d == "" && p.Phase == PhaseEarly && chains[key] == nil && e.absent(ctx, k, s)
	}
	// What another phase has begun, the whole run completes.
	completes := cur.Type != "" && cur.Phase != PhaseAll && p.Phase == PhaseAll
	for _, c := range p.Changes {
		if _, ok := cur.Asked[c.Key]; ok || completes {
			continue
		}
		if c.device == "" || slices.Contains(cur.Devices, c.device) {
			same = same && p.Phase.Device() != ""
		}
		came[c.Key] = p.asked[c.Key]
	}
	if p.Phase.Device() != "" && cur.Type != "" {
		same, completes = true, false // it belongs to the generation in force, whatever that asked
	} else {
		same = same && p.agree(cur, chains)
	}
	p.Generation, p.New = cur.Gen, completes
	switch {
	case !same:
		p.open(j, devices)
	case completes:
		p.head = &record{Type: recGeneration, Gen: cur.Gen, Boot: j.boot, Asked: p.asked, Devices: devices, Phase: p.Phase}
	case len(came) > 0:
		// Later runs must know that these were asked for; not what was of devices that
		// have gone: a node's pods have another one each, for ever.
		for key, v := range cur.Asked {
			if s, _ := e.reopen(key); s == nil || deviceOf(s) == "" || slices.Contains(devices, deviceOf(s)) {
				came[key] = v
			}
		}
		head := cur
		head.Asked, head.Devices = came, devices
		p.head = &head
	}
	return nil
}

// absent tells whether a value of the kernel's is not there: early at boot, a
// pattern does not find yet what a module or a disk brings later.
func (e *Engine) absent(ctx context.Context, k *Kind, s Setting) bool {
	if s == nil || lifetime(k, s) != Runtime {
		return false
	}
	live, err := s.Read(ctx, e.Host)
	return err == nil && live.Absent
}

// open makes the plan one of a generation of its own.
func (p *Plan) open(j *journal, devices []string) {
	p.Generation, p.New = j.highest()+1, true
	p.head = &record{Type: recGeneration, Gen: p.Generation, Boot: j.boot, Asked: p.asked, Devices: devices, Phase: p.Phase}
}

// devices are the network devices that there are.
func (e *Engine) devices() ([]string, error) {
	switch {
	case e.listDevices != nil:
		return e.listDevices()
	case e.Host == nil:
		return nil, nil
	}
	return e.Host.Devices()
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
	AtBoot      int `json:"at_boot"`
	Tolerated   int `json:"tolerated"`
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
			case AtBoot:
				s.AtBoot++
			case Tolerated:
				s.Tolerated++
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
//	{"format": 1, "phase": "all"|"early"|"nic/DEVICE", "generation": N, "new_generation": bool,
//	 "changes": [{"key", "kind", "name", "device", "action", "live": VALUE, "want": VALUE,
//	   "class": "warn"|"fail"|"tolerate", "scope": "machine"|"netns",
//	   "lifetime": "runtime"|"persistent", "effect", "others": [TEXT], "range": RANGE,
//	   "note", "inexact", "pending", "error"}],
//	 "pending": [{"key", "reason"}],
//	 "summary": {"set", "create", "remove", "restore", "unchanged", "deferred",
//	   "at_boot", "tolerated", "unsupported", "unreadable"}}
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
		Pending    []Pending    `json:"pending"`
		Summary    Summary      `json:"summary"`
	}{1, p.Phase, p.Generation, p.New, changes, p.Pending(), p.Summary()})
}

type changeJSON struct {
	Key      string     `json:"key"`
	Kind     string     `json:"kind"`
	Name     string     `json:"name"`
	Device   string     `json:"device,omitempty"`
	Action   Action     `json:"action"`
	Live     Value      `json:"live"`
	Want     Value      `json:"want"`
	Class    Class      `json:"class,omitempty"`
	Scope    Scope      `json:"scope,omitempty"`
	Lifetime Lifetime   `json:"lifetime,omitempty"`
	Effect   string     `json:"effect"`
	Others   []string   `json:"others,omitempty"`
	Range    *rangeJSON `json:"range,omitempty"`
	Note     string     `json:"note,omitempty"`
	Inexact  string     `json:"inexact,omitempty"`
	Pending  string     `json:"pending,omitempty"`
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
		Key: c.Key, Kind: kindName(c.Key), Name: nameOf(c.Key), Device: c.device, Action: c.Action, Live: c.Live, Want: c.Want,
		Scope: c.Scope, Lifetime: c.Lifetime, Effect: c.effect(), Others: c.Others, Note: c.Note, Inexact: c.Inexact, Pending: c.Pending,
	}
	if c.want != nil {
		out.Class = c.want.OnError
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
