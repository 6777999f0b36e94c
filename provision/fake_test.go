package provision

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/hashicorp/hcl/v2"

	"github.com/nodeprov/nodeprov/provision/host"
	"github.com/nodeprov/nodeprov/provision/profile"
)

// machine is a fake one: a value by key.
type machine interface {
	get(key string) (Value, error)
	set(key string, v Value) error
}

// memory is a machine whose writes can be made to fail.
type memory struct {
	values map[string]string
	// mu is for those who change values while something else reads them.
	mu     sync.Mutex
	writes int
	// failAt makes the n-th write fail, counted from 1; halfway, it changes
	// the value and fails.
	failAt  int
	halfway bool
	// limit clamps numbers.
	limit map[string]int
	// unreadable keys cannot be read.
	unreadable map[string]bool
	// refuse are keys that cannot be written.
	refuse map[string]bool
	// oneWay numbers can be raised only.
	oneWay map[string]bool
	// inexact, pending and ineffective are what settings say of themselves, by
	// key.
	inexact, pending, ineffective map[string]string
	// onWrite is called before each write.
	onWrite func(key string)
	// after is called after each write that succeeds.
	after func(key string)
}

func newMemory(kv ...string) *memory {
	m := &memory{values: make(map[string]string), limit: make(map[string]int), unreadable: make(map[string]bool)}
	for i := 0; i < len(kv); i += 2 {
		m.values[kv[i]] = kv[i+1]
	}
	return m
}

var (
	errWrite = errors.New("write refused (test)")
	errRead  = errors.New("read refused (test)")
)

func (m *memory) get(key string) (Value, error) {
	if m.unreadable[key] {
		return Value{}, errRead
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	t, ok := m.values[key]
	return Value{Absent: !ok, Text: t}, nil
}

// put is a change by something else.
func (m *memory) put(key, text string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.values[key] = text
}

func (m *memory) peek(key string) string {
	v, _ := m.get(key)
	return v.Text
}

func (m *memory) set(key string, v Value) error {
	if m.onWrite != nil {
		m.onWrite(key)
	}
	m.writes++
	if m.refuse[key] || m.oneWay[key] && (v.Absent || number(v.Text) < number(m.peek(key))) {
		return errWrite
	}
	failing := m.writes == m.failAt
	if failing && !m.halfway {
		return errWrite
	}
	if l, ok := m.limit[key]; ok {
		if n, err := strconv.Atoi(v.Text); err == nil && n > l {
			v.Text = strconv.Itoa(l)
		}
	}
	m.mu.Lock()
	if v.Absent {
		delete(m.values, key)
	} else {
		m.values[key] = v.Text
	}
	m.mu.Unlock()
	if failing {
		return errWrite
	}
	if m.after != nil {
		m.after(key)
	}
	return nil
}

func number(s string) int {
	n, _ := strconv.Atoi(s)
	return n
}

// text is the whole machine.
func (m *memory) text() string { return render(m.values) }

func render(values map[string]string) string {
	var b strings.Builder
	for _, k := range slices.Sorted(maps.Keys(values)) {
		fmt.Fprintf(&b, "%s = %q\n", k, values[k])
	}
	return b.String()
}

// tree is a machine in files, for processes that are killed. Its writes are
// not atomic, as those of the kernel mostly are.
type tree struct{ dir string }

func (t tree) path(key string) string {
	return filepath.Join(t.dir, strings.ReplaceAll(key, "/", "_"))
}

func (t tree) get(key string) (Value, error) {
	b, err := os.ReadFile(t.path(key))
	if errors.Is(err, fs.ErrNotExist) {
		return Value{Absent: true}, nil
	}
	return Value{Text: string(b)}, err
}

func (t tree) set(key string, v Value) error {
	if v.Absent {
		return os.Remove(t.path(key))
	}
	return os.WriteFile(t.path(key), []byte(v.Text), 0o644)
}

func (t tree) text(tb testing.TB) string {
	tb.Helper()
	es, err := os.ReadDir(t.dir)
	if err != nil {
		tb.Fatal(err)
	}
	values := make(map[string]string)
	for _, e := range es {
		b, err := os.ReadFile(filepath.Join(t.dir, e.Name()))
		if err != nil {
			tb.Fatal(err)
		}
		values[e.Name()] = string(b)
	}
	return render(values)
}

type fakeSetting struct {
	m   machine
	key string
}

func (s fakeSetting) Key() string                                          { return s.key }
func (s fakeSetting) Read(context.Context, *host.Host) (Value, error)      { return s.m.get(s.key) }
func (s fakeSetting) Write(_ context.Context, _ *host.Host, v Value) error { return s.m.set(s.key, v) }

// Device is DEVICE of the key "nic/DEVICE/NAME".
func (s fakeSetting) Device() string {
	if parts := strings.Split(s.key, "/"); parts[0] == "nic" && len(parts) == 3 {
		return parts[1]
	}
	return ""
}

func (s fakeSetting) Inexact(Value, Value) string {
	if m, ok := s.m.(*memory); ok {
		return m.inexact[s.key]
	}
	return ""
}

func (s fakeSetting) Pending(context.Context, *host.Host, Value) (string, error) {
	if m, ok := s.m.(*memory); ok {
		return m.pending[s.key], nil
	}
	return "", nil
}

func (s fakeSetting) Verify(context.Context, *host.Host, Value) error {
	if m, ok := s.m.(*memory); ok && m.ineffective[s.key] != "" {
		return errors.New(m.ineffective[s.key])
	}
	return nil
}

// fakeKinds are the kinds of a fake machine: early runtime values, runtime
// values, files.
func fakeKinds(m machine) []Kind {
	kind := func(name string, l Lifetime, s Scope, early bool) Kind {
		return Kind{
			Name: name, Lifetime: l, Scope: s, Early: early, Effect: "now",
			Schema: &profile.Schema{Type: name, Map: true},
			Open: func(n string) (Setting, error) {
				if n == "" {
					return nil, errors.New("no name")
				}
				return fakeSetting{m, name + "/" + n}, nil
			},
			Wanted: func(b profile.Block, _ Target) ([]Wanted, hcl.Diagnostics) {
				var ws []Wanted
				for _, e := range b.Attrs[name].Entries {
					w := want(m, name+"/"+e.Key, e.Value.AsString())
					w.Range = e.KeyRange
					ws = append(ws, w)
				}
				return ws, nil
			},
		}
	}
	kinds := []Kind{
		kind("sysctl", Runtime, Machine, true),
		kind("nic", Runtime, NetNS, false),
		kind("file", Persistent, Machine, false),
	}
	kinds[1].Device = true
	return kinds
}

// want asks for a value; "" asks for absence.
func want(m machine, key, value string) Wanted {
	v := Value{Text: value, Absent: value == ""}
	return Wanted{
		Setting: fakeSetting{m, key},
		Want:    func(Value) (Value, error) { return v, nil },
		Range:   hcl.Range{Filename: "test.hcl", Start: hcl.Pos{Line: 1, Column: 1}, End: hcl.Pos{Line: 1, Column: 2}},
		OnError: Fail,
	}
}

// wants asks for several, given as key, value, ….
func wants(m machine, kv ...string) []Wanted {
	var ws []Wanted
	for i := 0; i < len(kv); i += 2 {
		ws = append(ws, want(m, kv[i], kv[i+1]))
	}
	return ws
}

// tolerated is want, for what a host may refuse.
func tolerated(m machine, key, value string) Wanted {
	w := want(m, key, value)
	w.OnError = Tolerate
	return w
}

// missing makes absence be something that the host cannot mend.
func missing(w Wanted) Wanted {
	w.Unsupported = func(*host.Host) error { return errors.New("no such thing here") }
	return w
}

func atLeast(m machine, key string, n int) Wanted {
	w := want(m, key, "x")
	w.Want = func(live Value) (Value, error) {
		have, err := strconv.Atoi(live.Text)
		if err != nil {
			return Value{}, fmt.Errorf("at_least needs a number, and the host has %s", live)
		}
		return Value{Text: strconv.Itoa(max(have, n))}, nil
	}
	return w
}

func newEngine(tb testing.TB, m machine) *Engine {
	tb.Helper()
	h, err := host.New(host.Options{})
	if err != nil {
		tb.Fatal(err)
	}
	n := 0
	return &Engine{
		Host: h, Kinds: fakeKinds(m), State: filepath.Join(tb.TempDir(), "state"), Boot: "boot-1",
		listDevices: func() ([]string, error) { return devicesOf(m), nil },
		Now: func() time.Time {
			n++
			return time.Date(2026, 1, 2, 3, 4, n, 0, time.UTC)
		},
	}
}

// devicesOf are those that a machine has a value of.
func devicesOf(m machine) []string {
	var names []string
	if m, ok := m.(*memory); ok {
		for key := range m.values {
			if d := (fakeSetting{m, key}).Device(); d != "" && !slices.Contains(names, d) {
				names = append(names, d)
			}
		}
	}
	slices.Sort(names)
	return names
}

// apply must succeed.
func mustApply(tb testing.TB, e *Engine, ws []Wanted, o ...ApplyOptions) *Report {
	tb.Helper()
	opts := ApplyOptions{Phase: PhaseAll}
	if len(o) > 0 {
		opts = o[0]
	}
	r, diags, err := e.Apply(tb.Context(), ws, opts)
	if err != nil || diags.HasErrors() {
		tb.Fatalf("apply: %v %v", err, diags)
	}
	return r
}

func mustRollback(tb testing.TB, e *Engine, to ...int) *Report {
	tb.Helper()
	var o RollbackOptions
	if len(to) > 0 {
		o.To = &to[0]
	}
	r, err := e.Rollback(tb.Context(), o)
	if err != nil {
		tb.Fatal(err)
	}
	return r
}

// keys are the outcomes' keys, in order.
func keys(os []Outcome) []string {
	ks := []string{}
	for _, o := range os {
		ks = append(ks, o.Key)
	}
	return ks
}
