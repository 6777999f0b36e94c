package provision

import (
	"bytes"
	"os"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// sampleJournal is one with every type of record.
func sampleJournal(tb testing.TB) (*Engine, *memory, []byte) {
	tb.Helper()
	m := newMemory("sysctl/a", "1", "file/b", "\xff")
	e := newEngine(tb, m)
	mustApply(tb, e, wants(m, "sysctl/a", "2", "file/b", "new"))
	mustApply(tb, e, wants(m, "sysctl/a", "3"))
	mustRollback(tb, e)
	mustApply(tb, e, wants(m, "sysctl/a", "4"))
	e.Boot = "boot-2"
	mustApply(tb, e, wants(m, "sysctl/a", "5"))
	return e, m, []byte(read(tb, e.file("journal")))
}

func TestJournalTorn(t *testing.T) {
	e, m, b := sampleJournal(t)
	all, n, err := parseJournal(b)
	if err != nil || n != len(b) {
		t.Fatal(err, n)
	}
	for cut := range b {
		rs, n, err := parseJournal(b[:cut])
		whole := bytes.Count(b[:cut], []byte("\n"))
		if err != nil || n > cut || len(rs) != whole {
			t.Fatalf("cut at %d: %d records of %d bytes, %v; want %d", cut, len(rs), n, err, whole)
		}
		if d := cmp.Diff(all[:whole], rs, cmp.AllowUnexported(Value{})); whole > 0 && d != "" {
			t.Fatalf("cut at %d:\n%s", cut, d)
		}
		if cut%7 != 0 {
			continue
		}
		// The next append leaves a journal without damage.
		if err := os.WriteFile(e.file("journal"), b[:cut], 0o600); err != nil {
			t.Fatal(err)
		}
		m.values["sysctl/a"] = "0"
		mustApply(t, e, wants(m, "sysctl/a", "6"))
		if _, err := e.openJournal(); err != nil {
			t.Fatalf("cut at %d, after an apply: %v", cut, err)
		}
	}
}

func TestJournalDamaged(t *testing.T) {
	e, m, b := sampleJournal(t)
	lines := bytes.Count(b, []byte("\n"))
	for at := range b {
		bad := bytes.Clone(b)
		bad[at] ^= 0x20
		line := bytes.Count(b[:at], []byte("\n")) + 1
		if b[at] == '\n' && line >= lines-1 {
			continue // now the last line is longer, or has no end
		}
		_, n, err := parseJournal(bad)
		switch {
		case line == lines:
			if err != nil || n >= len(b) {
				t.Errorf("byte %d, in the last line: %d bytes, %v", at, n, err)
			}
		case err == nil:
			t.Errorf("byte %d, in line %d: not found", at, line)
		}
	}
	b[12] ^= 1
	if err := os.WriteFile(e.file("journal"), b, 0o600); err != nil {
		t.Fatal(err)
	}
	m.writes = 0
	_, _, err := e.Apply(t.Context(), wants(m, "sysctl/a", "9"), ApplyOptions{Phase: PhaseAll})
	want := "journal " + e.file("journal") + ": line 1: damaged: checksum does not match (the values before nodeprov are not all known; move the file away to go on without them)"
	if err == nil || err.Error() != want || m.writes != 0 {
		t.Errorf("error %v", err)
	}
}

// TestJournalNewer keeps a last line that another version wrote from being taken
// for one that a crash has torn, and cut off.
func TestJournalNewer(t *testing.T) {
	e, m, b := sampleJournal(t)
	b = append(b, sum(`{"type":"new"}`)+"\n"...)
	if err := os.WriteFile(e.file("journal"), b, 0o600); err != nil {
		t.Fatal(err)
	}
	_, _, err := e.Apply(t.Context(), wants(m, "sysctl/a", "9"), ApplyOptions{Phase: PhaseAll})
	want := `record type "new" is unknown (written by a newer nodeprov?): go on with the version of nodeprov that wrote it`
	if err == nil || !strings.HasSuffix(err.Error(), want) {
		t.Errorf("error %v", err)
	}
	if d := cmp.Diff(string(b), read(t, e.file("journal"))); d != "" {
		t.Error(d)
	}
}

func TestJournalLine(t *testing.T) {
	r := record{Type: recChange, Gen: 1, Boot: "b", Key: "sysctl/a", Before: &Value{Text: "1"}, Want: &Value{Absent: true}, Lifetime: Runtime}
	want := `760c7896 {"type":"change","generation":1,"boot":"b","key":"sysctl/a","before":{"text":"1"},"want":{"absent":true},"lifetime":"runtime"}` + "\n"
	if d := cmp.Diff(want, string(r.appendLine(nil))); d != "" {
		t.Errorf("(-want +got):\n%s", d)
	}
	for line, want := range map[string]string{
		"":                                      "no checksum",
		"zzzzzzzz {}":                           "checksum does not match",
		"00000000 {}":                           "checksum does not match",
		sum(`{`):                                "unexpected end of JSON input",
		sum(`{"type":"change"}`):                "change without key or values",
		sum(`{"type":"undo"}`):                  "undo without key",
		sum(`{"type":"new"}`):                   `record type "new" is unknown (written by a newer nodeprov?)`,
		sum(`{"type":"count","generation":-1}`): "generation -1",
	} {
		if _, err := parseRecord([]byte(line)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: error %v, want %s", line, err, want)
		}
	}
}

// sum puts the checksum before a text.
func sum(text string) string { return checksum([]byte(text)) + " " + text }

func FuzzJournal(f *testing.F) {
	_, _, b := sampleJournal(f)
	f.Add(b)
	f.Add(b[:len(b)-9])
	f.Add([]byte(sum(`{"type":"change","key":"sysctl/x","before":{"base64":"/w=="},"want":{},"lifetime":"persistent"}`) + "\n"))
	f.Add([]byte(sum(`{"type":"rollback","generation":3}`) + "\n" + sum(`{"type":"undo","key":"k"}`) + "\n"))
	f.Fuzz(func(t *testing.T, b []byte) {
		rs, n, err := parseJournal(b)
		if err != nil {
			return
		}
		if n > len(b) {
			t.Fatalf("%d of %d bytes", n, len(b))
		}
		// Whatever was read can be replayed, written and read again.
		j := &journal{boot: "boot-1", records: rs}
		j.chains()
		j.current()
		j.undoes(0)
		var out []byte
		for i := range rs {
			out = rs[i].appendLine(out)
		}
		again, m, err := parseJournal(out)
		if err != nil || m != len(out) {
			t.Fatalf("written again: %d of %d bytes, %v", m, len(out), err)
		}
		if d := cmp.Diff(rs, again); d != "" {
			t.Fatalf("(-want +got):\n%s", d)
		}
	})
}

// What was undone does not stay for ever: a journal that is mostly that is compacted
// within a boot, and knows the same afterwards.
func TestJournalCompactedWithinBoot(t *testing.T) {
	m := newMemory("sysctl/a", "1", "sysctl/b", "2", "file/f", "old")
	e := newEngine(t, m)
	mustApply(t, e, wants(m, "file/f", "new"))
	for i := range compactFrom / 4 {
		mustApply(t, e, wants(m, "sysctl/a", strconv.Itoa(10+i), "sysctl/b", "7", "file/f", "new"))
		mustRollback(t, e, 1)
	}
	mustApply(t, e, wants(m, "sysctl/a", "9", "file/f", "new"))
	j, err := e.openJournal()
	if err != nil {
		t.Fatal(err)
	}
	if len(j.records) > compactFrom {
		t.Errorf("%d records", len(j.records))
	}
	mustRollback(t, e, 0)
	want := map[string]string{"sysctl/a": "1", "sysctl/b": "2", "file/f": "old"}
	if d := cmp.Diff(want, m.values); d != "" {
		t.Error(d)
	}
}
