package profile

import (
	"bytes"
	"fmt"
	"regexp"
	"slices"
	"unicode/utf8"

	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/hclsyntax"
)

const (
	// MaxSize is the largest Source in bytes. Real profiles have a few KiB; the
	// limit keeps a wrong path (an image, a log) from being parsed.
	MaxSize = 1 << 20
	// maxNesting bounds how deep brackets, templates and chained operators go.
	// hclsyntax recurses once or more for each, and Go cannot recover from a
	// stack overflow, so the bound is checked on the tokens, before parsing.
	maxNesting = 500
	// maxSyntax is how many mistakes of syntax are told.
	maxSyntax = 50
)

// Files returns the sources in the form that WriteText and JSON print snippets
// from. Sources that cannot be parsed are fine.
func Files(sources ...Source) map[string]*hcl.File {
	files := make(map[string]*hcl.File, len(sources))
	for _, src := range sources {
		f, diags := parse(src)
		if f == nil || diags.HasErrors() && f.Body == nil {
			f = &hcl.File{Bytes: src.Text}
		}
		files[src.Name] = f
	}
	return files
}

// parse reads src. The file is nil where the text may not be parsed at all.
func parse(src Source) (*hcl.File, hcl.Diagnostics) {
	if d := src.check(); d != nil {
		return nil, hcl.Diagnostics{d}
	}
	file, diags := hclsyntax.ParseConfig(src.Text, src.Name, hcl.InitialPos)
	return file, condense(diags)
}

// condense makes what the parser says fit to be read: each mistake once, and
// not a message for every byte of something that is no profile at all.
func condense(diags hcl.Diagnostics) hcl.Diagnostics {
	var out hcl.Diagnostics
	unclosed := false
	for _, d := range diags {
		// One missing quote turns all quotes after it round: tell the first.
		if unclosed && (d.Summary == "Invalid multi-line string" || d.Summary == "Invalid string literal") {
			continue
		}
		unclosed = unclosed || d.Summary == "Invalid multi-line string"
		if n := len(out); n > 0 && out[n-1].Summary == d.Summary && d.Subject != nil && out[n-1].Subject != nil && out[n-1].Subject.End == d.Subject.Start {
			out[n-1].Subject.End = d.Subject.End
			continue
		}
		if len(out) == maxSyntax {
			out = append(out, &hcl.Diagnostic{
				Severity: hcl.DiagError,
				Summary:  "Too many errors",
				Detail:   fmt.Sprintf("The parser has %d messages, and only the first are shown. Is this a profile?", len(diags)),
				Subject:  d.Subject,
			})
			break
		}
		explainSyntax(d)
		out = append(out, d)
	}
	return out
}

// start is the range of the first character.
func (src Source) start() hcl.Range {
	r := hcl.Range{Filename: src.Name, Start: hcl.InitialPos, End: hcl.InitialPos}
	if len(src.Text) > 0 && src.Text[0] != '\n' && src.Text[0] != '\r' {
		_, n := utf8.DecodeRune(src.Text)
		r.End.Byte += n
		r.End.Column++
	}
	return r
}

// check finds what the parser must not see or would explain badly.
func (src Source) check() *hcl.Diagnostic {
	if d := src.checkText(); d != nil {
		return d
	}
	// What the scanner complains about, the parser will complain about too.
	tokens, _ := hclsyntax.LexConfig(src.Text, src.Name, hcl.InitialPos)
	return checkNesting(tokens)
}

// checkText wants UTF-8 of a sane size.
func (src Source) checkText() *hcl.Diagnostic {
	if len(src.Text) > MaxSize {
		return problem(src.start(), "File too large",
			"%s has more than %d bytes, which is the most. Is this the right file?", src.Name, MaxSize)
	}
	if bytes.HasPrefix(src.Text, []byte{0xEF, 0xBB, 0xBF}) {
		return problem(src.start(), "Byte order mark",
			"The file starts with a UTF-8 byte order mark (EF BB BF), which HCL does not have. Save it as UTF-8 without a BOM.")
	}
	if bytes.HasPrefix(src.Text, []byte{0xFF, 0xFE}) || bytes.HasPrefix(src.Text, []byte{0xFE, 0xFF}) {
		return problem(src.start(), "File is not UTF-8",
			"The file starts with a UTF-16 byte order mark. Save it as UTF-8 without a BOM.")
	}
	if at, ok := invalidUTF8(src.Text); ok {
		pos := hcl.Pos{Line: 1 + bytes.Count(src.Text[:at], []byte("\n")), Byte: at}
		line := src.Text[bytes.LastIndexByte(src.Text[:at], '\n')+1 : at]
		pos.Column = 1 + utf8.RuneCount(line)
		end := pos
		end.Byte++
		end.Column++
		return problem(hcl.Range{Filename: src.Name, Start: pos, End: end}, "File is not UTF-8",
			"The byte 0x%02X does not belong to any UTF-8 character. Save the file as UTF-8.", src.Text[at])
	}
	return nil
}

func invalidUTF8(text []byte) (at int, found bool) {
	for at < len(text) {
		r, n := utf8.DecodeRune(text[at:])
		if r == utf8.RuneError && n == 1 {
			return at, true
		}
		at += n
	}
	return 0, false
}

// checkNesting adds up, for each open bracket, itself and the operators since
// the last separator inside it: that is how deep the syntax tree can get there.
func checkNesting(tokens hclsyntax.Tokens) *hcl.Diagnostic {
	type level struct {
		operators int
		lines     bool // a newline separates here
	}
	levels := []level{{lines: true}}
	depth := 0
	for i, t := range tokens {
		top := &levels[len(levels)-1]
		switch t.Type {
		case hclsyntax.TokenOBrace:
			levels = append(levels, level{lines: !startsFor(tokens[i+1:])})
			depth++
		case hclsyntax.TokenOBrack, hclsyntax.TokenOParen, hclsyntax.TokenTemplateControl:
			// An index nests the expression before it, and a directive the
			// template after it, so both count where they stand as well.
			top.operators++
			levels = append(levels, level{})
			depth += 2
		case hclsyntax.TokenOQuote, hclsyntax.TokenOHeredoc, hclsyntax.TokenTemplateInterp:
			levels = append(levels, level{})
			depth++
		case hclsyntax.TokenCBrace, hclsyntax.TokenCBrack, hclsyntax.TokenCParen, hclsyntax.TokenCQuote,
			hclsyntax.TokenCHeredoc, hclsyntax.TokenTemplateSeqEnd:
			if len(levels) > 1 {
				depth -= 1 + top.operators
				levels = levels[:len(levels)-1]
			}
		case hclsyntax.TokenComma:
			depth -= top.operators
			top.operators = 0
		case hclsyntax.TokenNewline:
			if top.lines {
				depth -= top.operators
				top.operators = 0
			}
		default:
			if slices.Contains(operators, t.Type) {
				top.operators++
				depth++
			}
		}
		if depth > maxNesting {
			return problem(t.Range, "Nested too deeply",
				"Brackets, templates and operators go more than %d levels deep here. Split the expression up with locals.", maxNesting)
		}
	}
	return nil
}

var operators = []hclsyntax.TokenType{
	hclsyntax.TokenStar, hclsyntax.TokenSlash, hclsyntax.TokenPlus, hclsyntax.TokenMinus, hclsyntax.TokenPercent,
	hclsyntax.TokenEqualOp, hclsyntax.TokenNotEqual, hclsyntax.TokenLessThan, hclsyntax.TokenLessThanEq,
	hclsyntax.TokenGreaterThan, hclsyntax.TokenGreaterThanEq, hclsyntax.TokenAnd, hclsyntax.TokenOr,
	hclsyntax.TokenBang, hclsyntax.TokenQuestion, hclsyntax.TokenColon, hclsyntax.TokenDot,
}

// startsFor tells whether the tokens after a brace are those of a for
// expression, in which newlines separate nothing.
func startsFor(tokens hclsyntax.Tokens) bool {
	for _, t := range tokens {
		switch t.Type {
		case hclsyntax.TokenNewline, hclsyntax.TokenComment:
		case hclsyntax.TokenIdent:
			return string(t.Bytes) == "for"
		default:
			return false
		}
	}
	return false
}

// hclPlace is a place as hcl.Range.String prints it: "file:3,5-9".
var hclPlace = regexp.MustCompile(`:(\d+),(\d+)-(?:\d+,)?\d+`)

// explainSyntax makes one of the parser's messages name places as all others
// do, and gives a remedy where it has none.
func explainSyntax(d *hcl.Diagnostic) {
	d.Detail = hclPlace.ReplaceAllString(d.Detail, ":$1:$2")
	remedy := map[string]string{
		"Argument or block definition required": `Write NAME = VALUE or TYPE { … }. A name with dots is a quoted key of a map: sysctl = { "net.core.somaxconn" = 4096 }.`,
		"Attribute redefined":                   "Remove one of the two.",
		"Invalid argument name":                 `Keys in quotes go into a map: sysctl = { "net.core.somaxconn" = 4096 }.`,
		"Invalid multi-line string":             "Is the closing quote missing?",
		"Invalid expression":                    "Texts are quoted, lists are [a, b] and maps are { key = value }.",
		"Missing newline after argument":        "Start a new line for the next one.",
		"Missing key/value separator":           `Write "KEY" = VALUE, one on each line.`,
		"Unclosed configuration block":          "Add the missing } where the block ends.",
		"Unterminated template string":          `Add the missing quote; a " within the text is written \".`,
	}[d.Summary]
	if remedy != "" {
		d.Detail += " " + remedy
	}
}

// problem is an error about r. The format's text ends in a remedy.
func problem(r hcl.Range, summary, format string, args ...any) *hcl.Diagnostic {
	return &hcl.Diagnostic{
		Severity: hcl.DiagError,
		Summary:  summary,
		Detail:   fmt.Sprintf(format, args...),
		Subject:  &r,
	}
}

// place is where r starts, as "file:line:column".
func place(r hcl.Range) string {
	return fmt.Sprintf("%s:%d:%d", r.Filename, r.Start.Line, r.Start.Column)
}
