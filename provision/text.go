package provision

import (
	"bytes"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/hashicorp/hcl/v2"
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
	case Deferred, AtBoot:
		return ".", dim
	case Tolerated:
		return "o", dim
	case Unsupported, Unreadable, Ineffective:
		return "!", red
	}
	return " ", dim
}

// maxInline is how long the two values may be together to stand on one line,
// maxName and maxLive how wide their columns get at most.
const (
	maxInline = 64
	maxName   = 44
	maxLive   = 28
)

// maxDiff is how many lines of a file's difference are shown.
const maxDiff = 24

// Write prints the plan: by kind, and device, one setting a line; then the summary.
func (p *Plan) Write(w io.Writer, t Text) error {
	var b bytes.Buffer
	all := slices.Concat(p.Restores, p.Changes)
	shown := slices.DeleteFunc(all, func(c Change) bool {
		return c.release || c.Action == None && c.Pending == "" && !t.All
	})
	writeGroups(&b, shown, t)
	s := p.Summary()
	if len(shown) > 0 {
		b.WriteByte('\n')
	}
	b.WriteString(t.paint(bold, s.text("Plan: ")))
	if pending := p.Pending(); len(pending) > 0 {
		var keys []string
		for _, p := range pending {
			keys = append(keys, p.Key)
		}
		b.WriteString(t.paint(yellow, "; reboot needed for "+strings.Join(keys, ", ")))
	}
	b.WriteString(".\n")
	_, err := w.Write(b.Bytes())
	return err
}

// group is the heading under which a setting stands, and its name there.
func (c *Change) group() (heading, name string) {
	kind, name := kindName(c.Key), nameOf(c.Key)
	if rest, ok := strings.CutPrefix(name, c.device+"/"); ok && c.device != "" {
		return kind + " " + c.device, rest
	}
	return kind, name
}

// writeGroups prints changes kind by kind, in the order of the table, with
// aligned columns.
func writeGroups(b *bytes.Buffer, cs []Change, t Text) {
	slices.SortStableFunc(cs, func(a, b Change) int { return a.rank - b.rank })
	var headings []string
	groups := make(map[string][]Change)
	for _, c := range cs {
		h, _ := c.group()
		if groups[h] == nil {
			headings = append(headings, h)
		}
		groups[h] = append(groups[h], c)
	}
	for i, h := range headings {
		if i > 0 {
			b.WriteByte('\n')
		}
		b.WriteString(t.paint(bold, h) + "\n")
		names, lives := 0, 0
		for _, c := range groups[h] {
			_, name := c.group()
			names = max(names, utf8.RuneCountInString(name))
			if live := c.Live.String(); c.due() && c.inline() && utf8.RuneCountInString(live) <= maxLive {
				lives = max(lives, utf8.RuneCountInString(live))
			}
		}
		for _, c := range groups[h] {
			c.write(b, t, min(names, maxName), lives)
		}
	}
}

// inline tells whether both values stand on one line.
func (c *Change) inline() bool { return len(c.Live.String())+len(c.Want.String()) <= maxInline }

func (c *Change) write(b *bytes.Buffer, t Text, names, lives int) {
	sign, st := c.Action.mark()
	_, name := c.group()
	fmt.Fprintf(b, "  %s %s  ", t.paint(st, sign), pad(name, names))
	live, want := c.Live.String(), c.Want.String()
	// The plan says only what is not as it mostly is.
	var tags []string
	if c.Scope != "" && c.Scope != c.kindScope {
		tags = append(tags, string(c.Scope))
	}
	if e := c.effect(); e != "now" && c.due() {
		tags = append(tags, e)
	}
	tag := ""
	if len(tags) > 0 {
		tag = t.paint(dim, "  ("+strings.Join(tags, ", ")+")")
	}
	switch {
	case c.Action == Tolerated:
		fmt.Fprintf(b, "%s\n", t.paint(dim, "tolerated"))
		note(b, t, dim, c.Err.Error())
	case c.Action == Ineffective:
		fmt.Fprintf(b, "%s, %s\n", live, t.paint(red, "without effect"))
		note(b, t, red, c.Err.Error())
	case c.Err != nil:
		fmt.Fprintf(b, "%s\n", t.paint(red, string(c.Action)))
		note(b, t, red, c.Err.Error())
		if c.Range != (hcl.Range{}) {
			note(b, t, dim, "asked for at "+place(c.Range))
		}
	case c.Action == Deferred, c.Action == AtBoot:
		fmt.Fprintf(b, "%s\n", t.paint(dim, string(c.Action)))
	case c.Action == None:
		fmt.Fprintf(b, "%s%s\n", live, tag)
	case c.inline():
		fmt.Fprintf(b, "%s %s %s%s\n", pad(live, lives), t.paint(dim, "->"), t.paint(st, want), tag)
	default:
		fmt.Fprintf(b, "%s%s\n%s%s %s\n", live, tag, strings.Repeat(" ", names+3), t.paint(dim, "->"), t.paint(st, want))
	}
	if c.Err == nil {
		note(b, t, dim, c.Note)
	}
	if c.Inexact != "" {
		note(b, t, dim, "may not be restored exactly: "+c.Inexact)
	}
	if c.Pending != "" {
		note(b, t, yellow, "reboot needed: "+c.Pending)
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

// text is the summary without its full stop.
func (s Summary) text(head string) string {
	var parts []string
	add := func(n int, what string) {
		if n > 0 {
			parts = append(parts, fmt.Sprintf("%d %s", n, what))
		}
	}
	add(s.Set, "to change")
	add(s.Create, "to create")
	add(s.Remove, "to remove")
	add(s.Restore, "to restore")
	if s.Due() == 0 {
		parts = append(parts, "nothing to change")
	}
	add(s.Unchanged, "unchanged")
	add(s.Tolerated, "tolerated")
	add(s.Deferred, "deferred")
	add(s.AtBoot, "at boot")
	add(s.Unsupported, "not possible here")
	add(s.Unreadable, "unreadable")
	return head + strings.Join(parts, ", ")
}

// Write prints one setting's outcome, as it happens.
func (o Outcome) Write(w io.Writer, t Text) error {
	var b bytes.Buffer
	sign, st := o.Action.mark()
	switch {
	case o.Class == Tolerate:
		sign, st = Tolerated.mark()
		fmt.Fprintf(&b, "  %s %s  %s\n", t.paint(st, sign), o.Key, t.paint(dim, "tolerated"))
		note(&b, t, dim, o.Error)
	case o.Error != "":
		class := ""
		if o.Class == Warn {
			class = " (going on)"
		}
		fmt.Fprintf(&b, "  %s %s  %s%s\n", t.paint(red, "!"), o.Key, t.paint(red, "failed"), class)
		note(&b, t, red, o.Error)
	case o.Action == Deferred, o.Action == AtBoot:
		fmt.Fprintf(&b, "  %s %s  %s\n", t.paint(st, sign), o.Key, t.paint(dim, string(o.Action)))
	case o.Inexact != "":
		fmt.Fprintf(&b, "  %s %s  %s, and not %s as it was\n", t.paint(st, sign), o.Key, o.Live, o.Want)
		note(&b, t, dim, o.Inexact)
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
// happened: one line, what was not tried, and what is still to come.
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
	add(s.Set, "changed")
	add(s.Create, "created")
	add(s.Remove, "removed")
	add(s.Restore, "restored")
	add(len(r.Inexact), "not exactly restored")
	if len(r.Applied)+len(r.Inexact) == 0 {
		parts = append(parts, "nothing changed")
	}
	later := 0
	for _, o := range r.Deferred {
		if o.Action == AtBoot {
			later++
		}
	}
	add(len(r.Failed), "failed")
	add(len(r.NotTried), "not tried")
	add(len(r.Unchanged), "unchanged")
	add(len(r.Tolerated), "tolerated")
	add(len(r.Deferred)-later, "deferred")
	add(later, "at boot")
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
	r.writePending(&b, t)
	if r.Try != nil {
		fmt.Fprintf(&b, "%s It is reverted at %s, unless `nodeprov confirm` comes before.\n", t.paint(yellow, "Tried only."), r.Try.Deadline.Format(time.RFC3339))
	}
	_, err := w.Write(b.Bytes())
	return err
}

// writePending prints what holds after a reboot only.
func (r *Report) writePending(b *bytes.Buffer, t Text) {
	if len(r.Pending) == 0 {
		return
	}
	head := "Reboot needed"
	if r.Reboot != nil && r.Reboot.State == RebootGaveUp {
		head = "Still not in force"
	}
	b.WriteString(t.paint(yellow, head) + ":\n")
	for _, p := range r.Pending {
		fmt.Fprintf(b, "    %s: %s\n", p.Key, p.Reason)
	}
	if r.Reboot != nil && r.Reboot.State != RebootNeeded {
		fmt.Fprintf(b, "    %s\n", r.Reboot.Reason)
	}
}

// Write prints what is not as the profile has it, the checks, and the count.
func (v *Verification) Write(w io.Writer, t Text) error {
	var b bytes.Buffer
	shown := slices.Concat(v.Drifted, v.Failed, v.Tolerated)
	for _, c := range v.OK {
		if t.All || c.Pending != "" {
			shown = append(shown, c)
		}
	}
	if t.All {
		shown = slices.Concat(shown, v.Left)
	}
	writeGroups(&b, shown, t)
	if len(shown) > 0 {
		b.WriteByte('\n')
	}
	passed := 0
	for i, c := range v.Checks {
		if i == 0 {
			b.WriteString(t.paint(bold, "check") + "\n")
		}
		if c.OK {
			passed++
			fmt.Fprintf(&b, "    %s  %s\n", c.Name, t.paint(green, "passed"))
			continue
		}
		fmt.Fprintf(&b, "  %s %s  %s\n", t.paint(red, "!"), c.Name, t.paint(red, "failed"))
		note(&b, t, red, c.Error)
		note(&b, t, dim, strings.TrimRight(c.Output, "\n"))
	}
	if len(v.Checks) > 0 {
		b.WriteByte('\n')
	}
	line := fmt.Sprintf("Verified %s: %d as the profile has them", count(len(v.OK)+len(v.Drifted)+len(v.Failed)+len(v.Tolerated), "setting"), len(v.OK))
	for _, p := range []struct {
		n    int
		what string
	}{{len(v.Drifted), "drifted"}, {len(v.Failed), "not to be told"}, {len(v.Tolerated), "tolerated"}, {len(v.Left), "at boot"}} {
		if p.n > 0 {
			line += fmt.Sprintf(", %d %s", p.n, p.what)
		}
	}
	if n := len(v.Checks); n > 0 {
		line += fmt.Sprintf("; %d of %s passed", passed, count(n, "check"))
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
	case Degraded, Drifting, Incomplete, Interrupted, Refused, Stale, Trying, NeedsReboot:
		st = yellow
	}
	row := func(name, value string) { fmt.Fprintf(&b, "%-11s %s\n", name+":", value) }
	row("State", t.paint(st, string(s.State)))
	row("Generation", fmt.Sprint(s.Generation))
	if tr := s.Try; tr != nil {
		switch {
		case tr.Reverted != "":
			row("Try", fmt.Sprintf("%s was %s, and reverted; at boot the last good profile is applied in its place", tr.Profile, tr.Reverted))
		case tr.Boot != s.Boot:
			row("Try", fmt.Sprintf("%s was tried in an earlier boot and never confirmed (nodeprov rollback --to %d)", tr.Profile, tr.Before))
		default:
			row("Try", fmt.Sprintf("%s is reverted at %s to generation %d (nodeprov confirm keeps it)", tr.Profile, tr.Deadline.Format(time.RFC3339), tr.Before))
		}
	}
	if r := s.Last; r != nil {
		line := fmt.Sprintf("%s, %s, %s", r.Operation, r.Result, r.Started.Format(time.RFC3339))
		if r.Boot != s.Boot {
			line += ", in an earlier boot"
		}
		row("Last", line)
		if r.Why != "" {
			row("Why", r.Why)
		}
		if r.Profile != "" {
			line := r.Profile
			if len(r.Digest) >= 12 {
				line += " (sha256 " + r.Digest[:12] + ")"
			}
			row("Profile", line)
		}
		line = fmt.Sprintf("%d changed, %d unchanged, %d failed, %d deferred, %d not tried",
			len(r.Applied), len(r.Unchanged), len(r.Failed), len(r.Deferred), len(r.NotTried))
		if n := len(r.Tolerated); n > 0 {
			line += fmt.Sprintf(", %d tolerated", n)
		}
		row("Settings", line)
		if r.Degraded != "" {
			row("Degraded", r.Degraded)
		}
		if r.Reboot != nil {
			row("Reboot", string(r.Reboot.State)+": "+r.Reboot.Reason)
		}
		if r.Error != "" {
			row("Error", r.Error)
		}
		for _, o := range r.Failed {
			fmt.Fprintf(&b, "  %s %s\n", t.paint(red, "!"), o.Key)
			note(&b, t, red, o.Error)
		}
		for _, o := range r.Tolerated {
			fmt.Fprintf(&b, "  %s %s  %s\n", t.paint(dim, "o"), o.Key, t.paint(dim, "tolerated"))
			note(&b, t, dim, o.Error)
		}
		if r.Boot == s.Boot {
			r.writePending(&b, t)
		}
	}
	if wt := s.Watch; wt != nil {
		switch {
		case wt.Idle != "":
			row("Watch", "idle: "+wt.Idle)
		case wt.Latency != "":
			row("Watch", "runs, and holds the CPUs' wake-up latency at "+wt.Latency+" us")
		default:
			row("Watch", "runs")
		}
		for _, g := range wt.GaveUp {
			fmt.Fprintf(&b, "  %s %s  %s %s %s\n", t.paint(yellow, "~"), g.Key, g.Want, t.paint(dim, "->"), g.Live)
			note(&b, t, yellow, fmt.Sprintf("left as it is since %s: something else set it back %s", g.Since.Format(time.RFC3339), count(g.Heals, "time")))
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
	for _, warning := range s.Warnings {
		row("Warning", t.paint(yellow, warning))
	}
	_, err := w.Write(b.Bytes())
	return err
}

// Write prints a generation: what it asked for, and what is not so.
func (s *Shown) Write(w io.Writer, t Text) error {
	var b bytes.Buffer
	b.WriteString(t.paint(bold, s.text()) + "\n")
	kind, names := "", 0
	differ := 0
	for i, set := range s.Settings {
		if k := kindName(set.Key); k != kind {
			kind, names = k, 0
			for _, o := range s.Settings[i:] {
				if kindName(o.Key) == k {
					names = max(names, utf8.RuneCountInString(nameOf(o.Key)))
				}
			}
			names = min(names, maxName)
			b.WriteString("\n" + t.paint(bold, kind) + "\n")
		}
		asked := "(could not be told)"
		if set.Asked != nil {
			asked = set.Asked.String()
		}
		sign, st, is := " ", plain, ""
		switch {
		case set.Error != "":
			sign, st, is = "!", red, set.Error
		case set.Asked != nil && !set.Same:
			sign, st, is = "~", yellow, "has "+set.Live.String()
			differ++
		case set.Asked == nil:
			sign, st, is = ".", dim, "has "+set.Live.String()
		}
		if is != "" {
			is = "  " + t.paint(st, is)
		}
		fmt.Fprintf(&b, "  %s %s  %s%s\n", t.paint(st, sign), pad(nameOf(set.Key), names), asked, is)
	}
	fmt.Fprintf(&b, "\n%s asked for, %d different now.\n", count(len(s.Settings), "setting"), differ)
	_, err := w.Write(b.Bytes())
	return err
}

// WriteGenerations prints a line for each generation.
func WriteGenerations(w io.Writer, hs []Heading) error {
	var b bytes.Buffer
	for _, h := range hs {
		fmt.Fprintf(&b, "%s, %s\n", h.text(), count(h.Count, "setting"))
	}
	if len(hs) == 0 {
		b.WriteString("No generations.\n")
	}
	_, err := w.Write(b.Bytes())
	return err
}

func (h Heading) text() string {
	line := fmt.Sprintf("Generation %d", h.Generation)
	if h.Current {
		line += " (in force)"
	}
	if !h.Time.IsZero() {
		line += ", " + h.Time.Format(time.RFC3339)
	}
	if h.Profile != "" {
		line += ", " + h.Profile
		if len(h.Digest) >= 12 {
			line += " (sha256 " + h.Digest[:12] + ")"
		}
	}
	if h.Phase != PhaseAll && h.Phase != "" {
		line += ", only " + string(h.Phase)
	}
	return line
}
