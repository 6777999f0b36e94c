package provision

import (
	"bytes"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/rogpeppe/go-internal/diff"
)

// Text says how things are written for people.
type Text struct {
	// Color adds ANSI colours.
	Color bool
	// All shows the settings that are right already too.
	All bool
}

type style string

const (
	plain  style = ""
	bold   style = "1"
	dim    style = "2"
	red    style = "31"
	green  style = "32"
	yellow style = "33"
	cyan   style = "36"
)

func (t Text) paint(s style, text string) string {
	if !t.Color || s == plain || text == "" {
		return text
	}
	return "\x1b[" + string(s) + "m" + text + "\x1b[0m"
}

// mark is an action's sign in the first column.
func (a Action) mark() (string, style) {
	switch a {
	case Set:
		return "~", yellow
	case Create:
		return "+", green
	case Remove:
		return "-", red
	case Restore:
		return "<", cyan
	case Deferred:
		return ".", dim
	case Unsupported, Unreadable:
		return "!", red
	}
	return " ", dim
}

// maxInline is how long the two values may be together to stand on one line.
const maxInline = 64

// maxDiff is how many lines of a file's difference are shown.
const maxDiff = 24

// Write prints the plan: by kind, one setting a line, then the summary.
func (p *Plan) Write(w io.Writer, t Text) error {
	var b bytes.Buffer
	all := slices.Concat(p.Restores, p.Changes)
	shown := slices.DeleteFunc(all, func(c Change) bool { return c.release || c.Action == None && !t.All })
	writeGroups(&b, shown, t)
	s := p.Summary()
	if len(shown) > 0 {
		b.WriteByte('\n')
	}
	b.WriteString(t.paint(bold, s.text("Plan: ", "to set", "to create", "to remove", "to restore")) + "\n")
	_, err := w.Write(b.Bytes())
	return err
}

// writeGroups prints changes kind by kind, in the order of the table, with
// aligned columns.
func writeGroups(b *bytes.Buffer, cs []Change, t Text) {
	slices.SortStableFunc(cs, func(a, b Change) int { return a.rank - b.rank })
	var kinds []string
	for _, c := range cs {
		if k := kindName(c.Key); !slices.Contains(kinds, k) {
			kinds = append(kinds, k)
		}
	}
	for i, kind := range kinds {
		if i > 0 {
			b.WriteByte('\n')
		}
		b.WriteString(t.paint(bold, kind) + "\n")
		width := 0
		for _, c := range cs {
			if kindName(c.Key) == kind {
				width = max(width, utf8.RuneCountInString(nameOf(c.Key)))
			}
		}
		for i := range cs {
			if kindName(cs[i].Key) == kind {
				cs[i].write(b, t, min(width, 44))
			}
		}
	}
}

func (c *Change) write(b *bytes.Buffer, t Text, width int) {
	sign, st := c.Action.mark()
	fmt.Fprintf(b, "  %s %s", t.paint(st, sign), pad(nameOf(c.Key), width))
	indent := strings.Repeat(" ", width+6)
	live, want := c.Live.String(), c.Want.String()
	var tags []string
	if c.Scope == NetNS {
		tags = append(tags, "netns")
	}
	if e := c.effect(); e != "now" && c.due() {
		tags = append(tags, "effect "+e)
	}
	tag := ""
	if len(tags) > 0 {
		tag = t.paint(dim, "  ("+strings.Join(tags, ", ")+")")
	}
	switch {
	case c.Err != nil:
		fmt.Fprintf(b, "  %s\n", t.paint(red, string(c.Action)))
		note(b, t, red, c.Err.Error())
	case c.Action == Deferred:
		fmt.Fprintf(b, "  %s\n", t.paint(dim, string(c.Action)))
	case c.Action == None:
		fmt.Fprintf(b, "  %s%s\n", live, tag)
	case len(live)+len(want) <= maxInline:
		fmt.Fprintf(b, "  %s %s %s%s\n", live, t.paint(dim, "->"), t.paint(st, want), tag)
	default:
		fmt.Fprintf(b, "  %s%s\n%s%s %s\n", live, tag, indent[:max(0, len(indent)-3)], t.paint(dim, "->"), t.paint(st, want))
	}
	if c.Err == nil {
		note(b, t, dim, c.Note)
	}
	for _, o := range c.Others {
		note(b, t, yellow, "also set by "+o)
	}
	if c.due() {
		writeDiff(b, t, c.Live, c.Want)
	}
}

// writeDiff shows what changes in a text of several lines.
func writeDiff(b *bytes.Buffer, t Text, live, want Value) {
	if len(live.lines()) < 2 && len(want.lines()) < 2 {
		return
	}
	d := diff.Diff("live", []byte(live.Text), "want", []byte(want.Text))
	n := 0
	for line := range strings.Lines(string(d)) {
		line = strings.TrimSuffix(line, "\n")
		st := dim
		switch {
		case strings.HasPrefix(line, "diff "), strings.HasPrefix(line, "--- "), strings.HasPrefix(line, "+++ "):
			continue
		case strings.HasPrefix(line, "+"):
			st = green
		case strings.HasPrefix(line, "-"):
			st = red
		case strings.HasPrefix(line, "@@"):
			continue
		}
		if n++; n > maxDiff {
			continue
		}
		fmt.Fprintf(b, "        %s\n", t.paint(st, line))
	}
	if n > maxDiff {
		fmt.Fprintf(b, "        %s\n", t.paint(dim, fmt.Sprintf("… %d more lines", n-maxDiff)))
	}
}

func note(b *bytes.Buffer, t Text, st style, text string) {
	if text == "" {
		return
	}
	for line := range strings.Lines(text) {
		fmt.Fprintf(b, "      %s\n", t.paint(st, strings.TrimSuffix(line, "\n")))
	}
}

func pad(s string, width int) string {
	if n := utf8.RuneCountInString(s); n < width {
		return s + strings.Repeat(" ", width-n)
	}
	return s
}

func (s Summary) text(head, set, create, remove, restore string) string {
	var parts []string
	add := func(n int, what string) {
		if n > 0 {
			parts = append(parts, fmt.Sprintf("%d %s", n, what))
		}
	}
	add(s.Set, set)
	add(s.Create, create)
	add(s.Remove, remove)
	add(s.Restore, restore)
	if s.Due() == 0 {
		parts = append(parts, "nothing to change")
	}
	add(s.Unsupported, "not possible here")
	add(s.Unreadable, "unreadable")
	add(s.Deferred, "deferred")
	add(s.Unchanged, "already right")
	return head + strings.Join(parts, ", ") + "."
}

// Write prints one setting's outcome, as it happens.
func (o Outcome) Write(w io.Writer, t Text) error {
	var b bytes.Buffer
	sign, st := o.Action.mark()
	if o.Error != "" {
		sign, st = "!", red
	}
	switch {
	case o.Error != "":
		class := ""
		if o.Class == Warn {
			class = " (going on)"
		}
		fmt.Fprintf(&b, "  %s %s  %s%s\n", t.paint(st, sign), o.Key, t.paint(red, "failed"), class)
		note(&b, t, red, o.Error)
	case o.Action == Deferred:
		fmt.Fprintf(&b, "  %s %s  %s\n", t.paint(st, sign), o.Key, t.paint(dim, "deferred"))
	default:
		fmt.Fprintf(&b, "  %s %s  %s %s %s\n", t.paint(st, sign), o.Key, o.Before, t.paint(dim, "->"), t.paint(st, o.Live.String()))
	}
	if o.Error == "" {
		note(&b, t, dim, o.Note)
	}
	_, err := w.Write(b.Bytes())
	return err
}

// WriteSummary prints the report without the outcomes that were shown as they
// happened: one line, and what was not tried.
func (r *Report) WriteSummary(w io.Writer, t Text) error {
	var b bytes.Buffer
	var parts []string
	add := func(n int, what string) {
		if n > 0 {
			parts = append(parts, fmt.Sprintf("%d %s", n, what))
		}
	}
	var s Summary
	for _, o := range r.Applied {
		switch o.Action {
		case Create:
			s.Create++
		case Remove:
			s.Remove++
		case Restore:
			s.Restore++
		default:
			s.Set++
		}
	}
	add(s.Set, "set")
	add(s.Create, "created")
	add(s.Remove, "removed")
	add(s.Restore, "restored")
	if len(r.Applied) == 0 {
		parts = append(parts, "nothing changed")
	}
	add(len(r.Failed), "failed")
	add(len(r.NotTried), "not tried")
	add(len(r.Deferred), "deferred")
	add(len(r.Unchanged), "already right")
	head, st := "Applied: ", green
	if r.Operation == "rollback" {
		head = "Rolled back: "
	}
	switch r.Result {
	case Partial:
		head, st = "Partly applied: ", yellow
	case Failed:
		head, st = "Stopped: ", red
	case Cancelled:
		head, st = "Cancelled: ", yellow
	}
	fmt.Fprintf(&b, "%s (generation %d)\n", t.paint(st, head+strings.Join(parts, ", ")+"."), r.Generation)
	if len(r.NotTried) > 0 {
		b.WriteString("Not tried, and left as they were:\n")
		for _, k := range r.NotTried {
			fmt.Fprintf(&b, "    %s\n", k)
		}
	}
	_, err := w.Write(b.Bytes())
	return err
}

// Write prints what is not as the profile has it, and the count.
func (v *Verification) Write(w io.Writer, t Text) error {
	var b bytes.Buffer
	shown := slices.Concat(v.Drifted, v.Failed)
	if t.All {
		shown = slices.Concat(shown, v.OK)
	}
	writeGroups(&b, shown, t)
	if len(shown) > 0 {
		b.WriteByte('\n')
	}
	n := len(v.OK) + len(v.Drifted) + len(v.Failed)
	line := fmt.Sprintf("Verified %d settings: %d as the profile has them", n, len(v.OK))
	if d := len(v.Drifted); d > 0 {
		line += fmt.Sprintf(", %d drifted", d)
	}
	if f := len(v.Failed); f > 0 {
		line += fmt.Sprintf(", %d not to be told", f)
	}
	b.WriteString(t.paint(bold, line+".") + "\n")
	_, err := w.Write(b.Bytes())
	return err
}

// Write prints the status on a few lines.
func (s *Status) Write(w io.Writer, t Text) error {
	var b bytes.Buffer
	st := green
	switch s.State {
	case Degraded, Drifting, Incomplete, Interrupted, Refused, Stale:
		st = yellow
	}
	row := func(name, value string) { fmt.Fprintf(&b, "%-11s %s\n", name+":", value) }
	row("State", t.paint(st, string(s.State)))
	row("Generation", fmt.Sprint(s.Generation))
	if r := s.Last; r != nil {
		line := fmt.Sprintf("%s, %s, %s", r.Operation, r.Result, r.Started.Format(time.RFC3339))
		if r.Boot != s.Boot {
			line += ", in an earlier boot"
		}
		row("Last", line)
		if r.Profile != "" {
			line := r.Profile
			if len(r.Digest) >= 12 {
				line += " (sha256 " + r.Digest[:12] + ")"
			}
			row("Profile", line)
		}
		row("Settings", fmt.Sprintf("%d changed, %d already right, %d failed, %d deferred, %d not tried",
			len(r.Applied), len(r.Unchanged), len(r.Failed), len(r.Deferred), len(r.NotTried)))
		if r.Degraded != "" {
			row("Degraded", r.Degraded)
		}
		if r.Error != "" {
			row("Error", r.Error)
		}
		for _, o := range r.Failed {
			fmt.Fprintf(&b, "  %s %s\n", t.paint(red, "!"), o.Key)
			note(&b, t, red, o.Error)
		}
	}
	if len(s.Drift) > 0 {
		b.WriteString("Changed since:\n")
		for _, d := range s.Drift {
			if d.Error != "" {
				fmt.Fprintf(&b, "  %s %s\n", t.paint(red, "!"), d.Key)
				note(&b, t, red, d.Error)
				continue
			}
			fmt.Fprintf(&b, "  %s %s  %s %s %s\n", t.paint(yellow, "~"), d.Key, d.Applied, t.paint(dim, "->"), d.Live)
		}
	}
	_, err := w.Write(b.Bytes())
	return err
}
