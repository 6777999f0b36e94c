package provision

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/google/renameio/v2"
)

// Record types. The journal is read by later versions too: a type is never
// given another meaning.
const (
	// recGeneration opens a generation, or completes one that the early phase
	// opened.
	recGeneration = "generation"
	// recChange comes before a value is written.
	recChange = "change"
	// recReleased says that a key which is no longer wanted has its old value
	// again; what is set there from now on is not nodeprov's.
	recReleased = "released"
	// recRefused says that the host refused a tolerated value, and what it has
	// since: in this boot, the same is not tried again.
	recRefused = "refused"
	// recUndo says that all changes of a key after a generation are undone.
	recUndo = "undo"
	// recRollback says that a rollback to a generation is complete.
	recRollback = "rollback"
	// recCount keeps the highest generation over a compaction.
	recCount = "count"
)

// record is one line of the journal.
type record struct {
	Type string `json:"type"`
	// Gen is the generation that the record belongs to; of undo and rollback,
	// the one that is gone back to.
	Gen  int    `json:"generation"`
	Boot string `json:"boot,omitempty"`

	// Of change, released, refused and undo.
	Key string `json:"key,omitempty"`

	// Of change and refused. Before is what was there before, or is there after
	// the refusal.
	Before   *Value   `json:"before,omitempty"`
	Want     *Value   `json:"want,omitempty"`
	Lifetime Lifetime `json:"lifetime,omitempty"`
	// Restore marks the return of a key that is no longer wanted.
	Restore bool `json:"restore,omitempty"`
	// Why is the reason of a refusal.
	Why string `json:"why,omitempty"`

	// Of generation. Asked is what was wanted; null where that could not be
	// told yet. Devices are the network devices that there were: the keys of
	// others may come later without a change of the profile.
	Asked   map[string]*Value `json:"asked,omitempty"`
	Devices []string          `json:"devices,omitempty"`
	Phase   Phase             `json:"phase,omitempty"`
	Time    *time.Time        `json:"time,omitempty"`
	// Profile names the text that asked, Digest is its SHA-256 in hex.
	Profile string `json:"profile,omitempty"`
	Digest  string `json:"sha256,omitempty"`
}

// journalFile is what the journal needs of a file.
type journalFile interface {
	io.WriteCloser
	Sync() error
	Truncate(size int64) error
}

// journal is the record of every value that may have been overwritten.
type journal struct {
	path string
	boot string
	// records are all intact ones, in order; size is theirs in bytes.
	records []record
	size    int64
	open    func(path string) (journalFile, error)
}

// maxHistory is how many generations keep what they asked for. Older ones can
// still be gone back to.
const maxHistory = 20

// openJournal reads STATE/journal. One that is not there is empty.
func (e *Engine) openJournal() (*journal, error) {
	boot, err := e.boot()
	if err != nil {
		return nil, err
	}
	j := &journal{path: e.file("journal"), boot: boot, open: e.open}
	if j.open == nil {
		j.open = openAppend
	}
	b, err := os.ReadFile(j.path)
	if errors.Is(err, fs.ErrNotExist) {
		return j, nil
	}
	if err != nil {
		return nil, fmt.Errorf("journal: %w (run as root, or give another --state-dir)", err)
	}
	var n int
	j.records, n, err = parseJournal(b)
	if errors.Is(err, errNewer) {
		return nil, fmt.Errorf("journal %s: %w: go on with the version of nodeprov that wrote it", j.path, err)
	}
	if err != nil {
		return nil, fmt.Errorf("journal %s: %w (the values before nodeprov are not all known; move the file away to go on without them)", j.path, err)
	}
	j.size = int64(n)
	return j, nil
}

// parseJournal returns the records and the length of the intact part. A last
// line that is damaged or has no end is left out: its append was never
// acknowledged, so no value was written for it.
func parseJournal(b []byte) ([]record, int, error) {
	var rs []record
	intact := 0
	for line := 1; intact < len(b); line++ {
		text, rest, whole := bytes.Cut(b[intact:], []byte("\n"))
		if !whole {
			break
		}
		r, err := parseRecord(text)
		if err != nil {
			// A crash cannot make a good checksum: such a line is another
			// version's, and must not be cut off.
			if len(rest) == 0 && errors.Is(err, errDamaged) {
				break
			}
			return nil, 0, fmt.Errorf("line %d: %w", line, err)
		}
		rs = append(rs, r)
		intact += len(text) + 1
	}
	return rs, intact, nil
}

// errDamaged is a line whose text is not what was written.
var errDamaged = errors.New("damaged")

// errNewer is a line that this version cannot have written.
var errNewer = errors.New("written by a newer nodeprov?")

func parseRecord(line []byte) (record, error) {
	var r record
	head, text, ok := bytes.Cut(line, []byte(" "))
	if !ok || len(head) != 8 {
		return r, fmt.Errorf("%w: no checksum", errDamaged)
	}
	if string(head) != checksum(text) {
		return r, fmt.Errorf("%w: checksum does not match", errDamaged)
	}
	if err := json.Unmarshal(text, &r); err != nil {
		return r, err
	}
	return r, r.check()
}

// check refuses a record that replay could not use: one with a good checksum
// was written so, by a version of the future or a mistake.
func (r *record) check() error {
	switch r.Type {
	case recChange, recRefused:
		if r.Key == "" || r.Before == nil || r.Want == nil {
			return fmt.Errorf("%s without key or values", r.Type)
		}
	case recReleased, recUndo:
		if r.Key == "" {
			return fmt.Errorf("%s without key", r.Type)
		}
	case recGeneration, recRollback, recCount:
	default:
		return fmt.Errorf("record type %q is unknown (%w)", r.Type, errNewer)
	}
	if r.Gen < 0 {
		return fmt.Errorf("generation %d", r.Gen)
	}
	return nil
}

// checksum is CRC-32C in 8 hex digits.
func checksum(b []byte) string {
	return fmt.Sprintf("%08x", crc32.Checksum(b, crc32.MakeTable(crc32.Castagnoli)))
}

func (r *record) appendLine(b []byte) []byte {
	text, err := json.Marshal(r)
	if err != nil {
		panic(err) // texts, numbers and times only
	}
	b = append(b, checksum(text)...)
	b = append(b, ' ')
	b = append(b, text...)
	return append(b, '\n')
}

func openAppend(path string) (journalFile, error) {
	return os.OpenFile(path, os.O_WRONLY|os.O_APPEND|os.O_CREATE, 0o600)
}

// append adds records with one fsync. When it returns nil, they survive a
// crash; when not, none of the values that they announce may be written.
func (j *journal) append(rs ...record) (err error) {
	if len(rs) == 0 {
		return nil
	}
	defer func() {
		if err != nil {
			err = fmt.Errorf("journal: %w (nothing is written to the machine that is not in the journal; make room or make %s writable)", err, filepath.Dir(j.path))
		}
	}()
	var b []byte
	for i := range rs {
		b = rs[i].appendLine(b)
	}
	created := j.size == 0
	f, err := j.open(j.path)
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			// The next append would do it too; now, it leaves a file that
			// ends as its reader believes.
			_ = f.Truncate(j.size)
		}
		err = errors.Join(err, f.Close())
	}()
	// A torn tail would become damage in the middle.
	if err := f.Truncate(j.size); err != nil {
		return err
	}
	if _, err := f.Write(b); err != nil {
		return err
	}
	if err := f.Sync(); err != nil {
		return err
	}
	if created {
		if err := syncDir(filepath.Dir(j.path)); err != nil {
			return err
		}
	}
	j.records = append(j.records, rs...)
	j.size += int64(len(b))
	return nil
}

// compactFrom is how many records a journal has at least that is compacted within a
// boot: each apply reads all of them.
const compactFrom = 512

// compact drops what can never be used again: runtime values of older boots, and their
// refusals, once a new boot made that true; and what was undone, when it is most of
// the journal. The file is replaced at once or not at all.
func (j *journal) compact() error {
	dead := func(r record) bool {
		return r.Boot != j.boot && (r.Type == recChange && r.Lifetime == Runtime || r.Type == recRefused)
	}
	stale := slices.ContainsFunc(j.records, dead)
	if !stale && len(j.records) < compactFrom {
		return nil
	}
	keep := []record{{Type: recCount, Gen: j.highest()}}
	live := j.live()
	heads := j.generations()
	oldest := 0
	if n := len(heads); n > maxHistory {
		oldest = heads[n-maxHistory].Gen
	}
	kept := make(map[string]bool)
	for i, r := range j.records {
		switch r.Type {
		case recChange:
			if live[i] {
				keep = append(keep, r)
				kept[r.Key] = true
			}
		case recReleased:
			if live[i] && kept[r.Key] {
				keep = append(keep, r)
			}
		case recRefused:
			if live[i] {
				keep = append(keep, r)
			}
		case recGeneration:
			if r.Gen >= oldest && slices.ContainsFunc(heads, func(h record) bool { return h.Gen == r.Gen }) {
				keep = append(keep, r)
			}
		}
	}
	if !stale && len(keep) > len(j.records)/2 {
		return nil
	}
	var b []byte
	for i := range keep {
		b = keep[i].appendLine(b)
	}
	if err := writeState(j.path, b); err != nil {
		return fmt.Errorf("journal: %w (make room or make %s writable)", err, filepath.Dir(j.path))
	}
	j.records, j.size = keep, int64(len(b))
	return nil
}

// live tells for each record whether it is a change, a release or a refusal that
// holds: not undone, and not of a runtime value, or a refusal, in an older boot.
func (j *journal) live() []bool {
	live := make([]bool, len(j.records))
	of := make(map[string][]int) // the records of a key so far
	for i, r := range j.records {
		if r.Key != "" && r.Type != recUndo {
			of[r.Key] = append(of[r.Key], i)
		}
		switch r.Type {
		case recChange:
			live[i] = r.Lifetime != Runtime || r.Boot == j.boot
		case recReleased:
			live[i] = true
		case recRefused:
			live[i] = r.Boot == j.boot
		case recUndo:
			for _, n := range of[r.Key] {
				if j.records[n].Gen > r.Gen {
					live[n] = false
				}
			}
		}
	}
	return live
}

// generations are those in force, oldest first: the last record of each, without
// those that were rolled back.
func (j *journal) generations() []record {
	var gs []record
	for _, r := range j.records {
		switch r.Type {
		case recGeneration:
			gs = slices.DeleteFunc(gs, func(g record) bool { return g.Gen >= r.Gen })
			gs = append(gs, r)
		case recRollback:
			gs = slices.DeleteFunc(gs, func(g record) bool { return g.Gen > r.Gen })
		}
	}
	return gs
}

// current is the generation in force; the zero record, of generation 0, stands
// for the machine without nodeprov.
func (j *journal) current() record {
	if gs := j.generations(); len(gs) > 0 {
		return gs[len(gs)-1]
	}
	return record{}
}

// highest is the highest generation that there ever was.
func (j *journal) highest() int {
	n := 0
	for _, r := range j.records {
		n = max(n, r.Gen)
	}
	return n
}

// chain is what the journal knows of a key that nodeprov has changed and not
// released.
type chain struct {
	key string
	// baseline is the value before nodeprov.
	baseline Value
	// applied is the last value that a profile asked for, wrote are all values
	// that may have been written: the last write may have failed.
	applied  Value
	wrote    []Value
	lifetime Lifetime
}

// ours tells whether a live value is one that nodeprov wrote or found.
func (c *chain) ours(live Value) bool {
	return live == c.baseline || contains(c.wrote, live)
}

// contains looks for a live value among written ones. Blanks do not count: the
// kernel has its own ideas of them.
func contains(wrote []Value, live Value) bool {
	return slices.ContainsFunc(wrote, func(w Value) bool {
		return w == live || w.Absent == live.Absent && slices.Equal(strings.Fields(w.Text), strings.Fields(live.Text))
	})
}

// chains are the chains by key, and the keys in the order of the first change.
func (j *journal) chains() (map[string]*chain, []string) {
	cs := make(map[string]*chain)
	var order []string
	live := j.live()
	for i, r := range j.records {
		switch {
		case !live[i]:
		case r.Type == recRefused:
			// What the kernel made of our value is ours too.
			if c := cs[r.Key]; c != nil {
				c.wrote = append(c.wrote, *r.Before)
			}
		case r.Type == recReleased:
			delete(cs, r.Key)
			order = slices.DeleteFunc(order, func(k string) bool { return k == r.Key })
		default:
			c := cs[r.Key]
			if c == nil {
				c = &chain{key: r.Key, baseline: *r.Before, applied: *r.Before, lifetime: r.Lifetime}
				cs[r.Key] = c
				order = append(order, r.Key)
			}
			c.wrote = append(c.wrote, *r.Want)
			if !r.Restore {
				c.applied = *r.Want
			}
		}
	}
	return cs, order
}

// history is what the journal knows of each key.
type history struct {
	chains map[string]*chain
	// order are the keys of the chains, in the order of their first change.
	order []string
	// refused are the last refusals by key.
	refused map[string]record
}

func (j *journal) history() *history {
	h := &history{refused: make(map[string]record)}
	h.chains, h.order = j.chains()
	live := j.live()
	for i, r := range j.records {
		if r.Type == recRefused && live[i] {
			h.refused[r.Key] = r
		}
	}
	return h
}

// undoes are what a rollback to a generation has to restore: per key the value
// before its first change after it, in the order of the last changes.
func (j *journal) undoes(to int) []undo {
	us := make(map[string]*undo)
	live := j.live()
	for i, r := range j.records {
		if !live[i] || r.Type != recChange || r.Gen <= to {
			continue
		}
		u := us[r.Key]
		if u == nil {
			u = &undo{key: r.Key, target: *r.Before}
			us[r.Key] = u
		}
		u.applied, u.last = *r.Want, i
		u.wrote = append(u.wrote, *r.Want)
	}
	return slices.SortedFunc(func(yield func(undo) bool) {
		for u := range maps.Values(us) {
			if !yield(*u) {
				return
			}
		}
	}, func(a, b undo) int { return a.last - b.last })
}

// undo is one key's part of a rollback.
type undo struct {
	key             string
	target, applied Value
	wrote           []Value // all that may have been written, applied last
	last            int     // index of its last record
}

// writeState replaces a file of the state directory, so that after a crash
// there is the old one or the new one, and after it returned, the new one.
func writeState(path string, b []byte) error {
	dir := filepath.Dir(path)
	if err := renameio.WriteFile(path, b, 0o600, renameio.WithTempDir(dir), renameio.WithStaticPermissions(0o600)); err != nil {
		return err
	}
	return syncDir(dir)
}

func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}
