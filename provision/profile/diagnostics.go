package profile

import (
	"bufio"
	"bytes"
	"cmp"
	"fmt"
	"io"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/hcled"
	"github.com/zclconf/go-cty/cty"
)

// Report is what JSON gives: Terraform's machine-readable diagnostics
// (`terraform validate -json`), so that editors and CI that read those can read
// ours.
type Report struct {
	Valid        bool         `json:"valid"`
	ErrorCount   int          `json:"error_count"`
	WarningCount int          `json:"warning_count"`
	Diagnostics  []Diagnostic `json:"diagnostics"`
}

// Diagnostic is one error or warning.
type Diagnostic struct {
	Severity string `json:"severity"` // error or warning
	Summary  string `json:"summary"`
	Detail   string `json:"detail"`
	// Range and Snippet are missing where there is no source to point at.
	Range   *Range   `json:"range,omitempty"`
	Snippet *Snippet `json:"snippet,omitempty"`
}

// Range is a part of a file; its end is exclusive.
type Range struct {
	Filename string `json:"filename"`
	Start    Pos    `json:"start"`
	End      Pos    `json:"end"`
}

// Pos is a place in a file: line and column count from 1, the column in
// characters as a person sees them, bytes from 0.
type Pos struct {
	Line   int `json:"line"`
	Column int `json:"column"`
	Byte   int `json:"byte"`
}

// Snippet is the source around a Range, in whole lines.
type Snippet struct {
	// Context is the block that it stands in, such as `nic "uplink"`.
	Context *string `json:"context"`
	Code    string  `json:"code"`
	// StartLine is the number of Code's first line.
	StartLine int `json:"start_line"`
	// The offsets are in bytes, within Code.
	HighlightStartOffset int `json:"highlight_start_offset"`
	HighlightEndOffset   int `json:"highlight_end_offset"`
	// Values are those of the references in the expression.
	Values []ExpressionValue `json:"values"`
}

// ExpressionValue is what a reference stands for: `host.arch`, `is "amd64"`.
type ExpressionValue struct {
	Traversal string `json:"traversal"`
	Statement string `json:"statement"`
}

// maxSnippet bounds a snippet's code in bytes: a line may be as long as a file.
const maxSnippet = 4096

// JSON returns the diagnostics in Terraform's shape. Files are the sources by
// name, see Files; where one is missing there is no snippet. Sensitive values
// are told as such and not shown.
func JSON(files map[string]*hcl.File, diags hcl.Diagnostics) Report {
	r := Report{Valid: !diags.HasErrors(), Diagnostics: []Diagnostic{}}
	for _, d := range diags {
		out := Diagnostic{Severity: "error", Summary: d.Summary, Detail: d.Detail}
		if d.Severity == hcl.DiagWarning {
			out.Severity = "warning"
			r.WarningCount++
		} else {
			r.ErrorCount++
		}
		if d.Subject != nil {
			subject := visible(*d.Subject)
			out.Range = &Range{Filename: subject.Filename, Start: Pos(subject.Start), End: Pos(subject.End)}
			out.Snippet = snippet(files[subject.Filename], d, subject)
		}
		r.Diagnostics = append(r.Diagnostics, out)
	}
	return r
}

// visible makes an empty range one character long, so that it can be marked.
func visible(r hcl.Range) hcl.Range {
	if r.Empty() {
		r.End = r.Start
		r.End.Byte++
		r.End.Column++
	}
	return r
}

// snippet cuts the lines of d out of file; nil where they are not there.
func snippet(file *hcl.File, d *hcl.Diagnostic, subject hcl.Range) *Snippet {
	if file == nil || subject.Start.Byte > len(file.Bytes) || subject.Start.Byte < 0 {
		return nil
	}
	whole := subject
	if d.Context != nil && d.Context.Filename == subject.Filename {
		whole = hcl.RangeOver(whole, *d.Context)
	}
	text := file.Bytes
	end := min(max(whole.End.Byte, whole.Start.Byte), len(text))
	from := bytes.LastIndexByte(text[:min(whole.Start.Byte, len(text))], '\n') + 1
	// A range that ends in a newline does not have the next line in it.
	if end > from && text[end-1] == '\n' {
		end--
	}
	to := len(text)
	if i := bytes.IndexByte(text[end:], '\n'); i >= 0 {
		to = end + i
	}
	// Of what is too long, keep what surrounds the start of the subject.
	if to-from > maxSnippet {
		from = max(from, subject.Start.Byte-maxSnippet/2)
		to = min(to, from+maxSnippet)
		for from < subject.Start.Byte && !utf8.RuneStart(text[from]) {
			from++
		}
		for to > subject.Start.Byte && to < len(text) && !utf8.RuneStart(text[to]) {
			to--
		}
	}
	code := string(text[from:to])
	s := &Snippet{
		Code:                 strings.TrimSuffix(code, "\r"),
		StartLine:            subject.Start.Line - bytes.Count(text[from:max(from, subject.Start.Byte)], []byte("\n")),
		HighlightStartOffset: subject.Start.Byte - from,
		Values:               values(d),
	}
	s.HighlightStartOffset = min(s.HighlightStartOffset, len(s.Code))
	s.HighlightEndOffset = min(max(subject.End.Byte-from, s.HighlightStartOffset), len(s.Code))
	if c := hcled.ContextString(file, subject.Start.Byte); c != "" {
		s.Context = &c
	}
	return s
}

// values tells what the references in d's expression stand for. Those of Load
// have been redacted already; the marks are asked once more, for diagnostics
// that others make.
func values(d *hcl.Diagnostic) []ExpressionValue {
	out := []ExpressionValue{}
	if d.Expression == nil || d.EvalContext == nil {
		return out
	}
	seen := map[string]bool{}
	for _, t := range d.Expression.Variables() {
		v, diags := t.TraverseAbs(d.EvalContext)
		name := traversalText(t)
		if diags.HasErrors() || seen[name] {
			continue
		}
		seen[name] = true
		switch {
		case v.ContainsMarked():
			out = append(out, ExpressionValue{name, "has a sensitive value"})
		case v.IsKnown():
			out = append(out, ExpressionValue{name, "is " + valueText(v)})
		case v.Type() != cty.DynamicPseudoType: // else it follows from another error, mostly
			out = append(out, ExpressionValue{name, "is " + describe(v) + ", known only on the host"})
		}
	}
	slices.SortFunc(out, func(a, b ExpressionValue) int { return cmp.Compare(a.Traversal, b.Traversal) })
	return out
}

// valueText is a known value without marks, in a few words.
func valueText(v cty.Value) string {
	ty := v.Type()
	count := func(n int, what string) string {
		switch n {
		case 0:
			return "empty " + what
		case 1:
			return what + " with 1 element"
		}
		return fmt.Sprintf("%s with %d elements", what, n)
	}
	switch {
	case v.IsNull():
		return "null"
	case ty == cty.Bool:
		return fmt.Sprint(v.True())
	case ty == cty.Number:
		return v.AsBigFloat().Text('g', 20)
	case ty == cty.String:
		s := v.AsString()
		if r := []rune(s); len(r) > 80 {
			return fmt.Sprintf("%q and %d more characters", string(r[:80]), len(r)-80)
		}
		return fmt.Sprintf("%q", s)
	case ty.IsCollectionType() || ty.IsTupleType():
		return count(v.LengthInt(), ty.FriendlyName())
	case ty.IsObjectType():
		return count(len(ty.AttributeTypes()), "object")
	}
	return ty.FriendlyName()
}

// WriteText writes the diagnostics for a person, each with its place as
// file:line:column, its source line and a mark under the exact part. Files are
// the sources by name, see Files. Details are wrapped to width columns; 0 keeps
// their lines as they are. Colour adds to the text and replaces nothing of it.
// Sensitive values are not shown.
func WriteText(w io.Writer, files map[string]*hcl.File, diags hcl.Diagnostics, width int, color bool) error {
	b := bufio.NewWriter(w) // its first error is kept, and returned by Flush
	paint := func(code, s string) string {
		if !color {
			return s
		}
		return "\x1b[" + code + "m" + s + "\x1b[0m"
	}
	for i, d := range diags {
		if i > 0 {
			fmt.Fprintln(b)
		}
		severity, tint := "Error", "1;31"
		if d.Severity == hcl.DiagWarning {
			severity, tint = "Warning", "1;33"
		}
		fmt.Fprintf(b, "%s %s\n", paint(tint, severity+":"), paint("1", printable(d.Summary)))
		if d.Subject != nil {
			subject := visible(*d.Subject)
			s := snippet(files[subject.Filename], d, subject)
			fmt.Fprintf(b, "\n  on %s", printable(place(subject)))
			if s != nil && s.Context != nil {
				fmt.Fprintf(b, ", in %s", printable(*s.Context))
			}
			fmt.Fprintln(b, ":")
			if s != nil {
				s.write(b, width, func(text string) string { return paint(tint, text) })
			}
		}
		if d.Detail != "" {
			fmt.Fprintln(b)
			for line := range strings.SplitSeq(d.Detail, "\n") {
				fmt.Fprintln(b, wrap(printable(line), width))
			}
		}
	}
	return b.Flush()
}

// maxLines is how many lines of a snippet are printed: the start of a long
// block says enough.
const maxLines = 6

func (s *Snippet) write(b *bufio.Writer, width int, paint func(string) string) {
	const gutter = "%5d: "
	at := 0
	for i, line := range strings.Split(s.Code, "\n") {
		if i == maxLines {
			fmt.Fprintf(b, "%7s…\n", "")
			break
		}
		start := min(max(s.HighlightStartOffset-at, 0), len(line))
		end := min(max(s.HighlightEndOffset-at, 0), len(line))
		past := at+len(line) < s.HighlightStartOffset || at >= s.HighlightEndOffset
		at += len(line) + 1
		before, marked, after := printable(line[:start]), printable(line[start:end]), printable(line[end:])
		if width > 20 {
			before, marked, after = fit(before, marked, after, width-7)
		}
		fmt.Fprintf(b, gutter+"%s\n", s.StartLine+i, before+marked+after)
		if past && (i > 0 || s.HighlightStartOffset != len(line)) {
			continue
		}
		// Space at the ends of a line that is marked whole is not a mistake.
		trimmed := strings.TrimLeft(marked, " \t")
		pad := before + marked[:len(marked)-len(trimmed)]
		n := max(1, utf8.RuneCountInString(strings.TrimRight(trimmed, " \t\r")))
		blank := strings.Map(func(r rune) rune {
			if r == '\t' {
				return r
			}
			return ' '
		}, pad)
		fmt.Fprintf(b, "%7s%s%s\n", "", blank, paint(strings.Repeat("^", n)))
	}
	for _, v := range s.Values {
		fmt.Fprintf(b, "%7s%s %s\n", "", printable(v.Traversal), printable(v.Statement))
	}
}

// fit cuts a line that is wider than width, and keeps the start of what is
// marked.
func fit(before, marked, after string, width int) (string, string, string) {
	b, m, a := []rune(before), []rune(marked), []rune(after)
	if len(b)+len(m)+len(a) <= width {
		return before, marked, after
	}
	if room := width / 2; len(b) > room && len(b)+len(m) > width {
		b = append([]rune("…"), b[len(b)-room+1:]...)
	}
	if len(b)+len(m) > width {
		m, a = append(m[:max(width-len(b)-1, 0):max(width-len(b)-1, 0)], '…'), nil
	} else if len(b)+len(m)+len(a) > width {
		n := max(width-len(b)-len(m)-1, 0)
		a = append(a[:n:n], '…')
	}
	return string(b), string(m), string(a)
}

// printable keeps control characters of a source or of a name from reaching a
// terminal.
func printable(s string) string {
	return strings.Map(func(r rune) rune {
		if r == '\t' || unicode.IsPrint(r) {
			return r
		}
		if r == '\r' {
			return -1
		}
		return utf8.RuneError
	}, s)
}

// wrap breaks a line at spaces; words that are longer stay whole.
func wrap(line string, width int) string {
	if width <= 0 {
		return line
	}
	var out strings.Builder
	column := 0
	for i, word := range strings.Split(line, " ") {
		n := utf8.RuneCountInString(word)
		switch {
		case i == 0:
		case column+1+n > width:
			out.WriteByte('\n')
			column = 0
		default:
			out.WriteByte(' ')
			column++
		}
		out.WriteString(word)
		column += n
	}
	return out.String()
}
