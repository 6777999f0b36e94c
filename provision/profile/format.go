package profile

import (
	"bytes"
	"slices"

	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/hclsyntax"
	"github.com/hashicorp/hcl/v2/hclwrite"
)

// Format returns src in canonical form: hclwrite's layout, and one newline at
// the end, which is that of the other lines. Formatting the result again changes
// nothing, and only space differs from src. What does not parse is refused, and
// so is what would mean something else without its space.
func Format(src Source) ([]byte, hcl.Diagnostics) {
	if _, diags := parse(src); diags.HasErrors() {
		return nil, diags
	}
	text := src.Text
	// hclwrite aligns by what it finds, so a line that moved may move its
	// neighbours; a few rounds settle it.
	for range 8 {
		next := hclwrite.Format(text)
		if bytes.Equal(next, text) {
			break
		}
		text = next
	}
	text = bytes.TrimRight(text, " \t\r\n")
	if len(text) > 0 {
		end := "\n"
		if bytes.Contains(text, []byte("\r\n")) {
			end = "\r\n"
		}
		text = append(bytes.Clone(text), end...)
	}
	if d := src.sameTokens(text); d != nil {
		return nil, hcl.Diagnostics{d}
	}
	return text, nil
}

// sameTokens points at what is not the same in formatted: hclwrite takes the
// space out of "7 .5", which is an element of 7 (and so a mistake), and 7.5 is not.
func (src Source) sameTokens(formatted []byte) *hcl.Diagnostic {
	before, after := significant(src.Text, src.Name), significant(formatted, src.Name)
	for i, t := range before {
		if i == len(after) || t.Type != after[i].Type || !bytes.Equal(bytes.TrimSpace(t.Bytes), bytes.TrimSpace(after[i].Bytes)) {
			return problem(t.Range, "Space has a meaning here", "Without the space this would be something else, so it cannot be formatted. Put parentheses around what stands before it, or quotes around all of it.")
		}
	}
	return nil
}

// significant are the tokens of a text that are not layout.
func significant(text []byte, name string) hclsyntax.Tokens {
	tokens, _ := hclsyntax.LexConfig(text, name, hcl.InitialPos)
	return slices.DeleteFunc(tokens, func(t hclsyntax.Token) bool {
		return t.Type == hclsyntax.TokenNewline || t.Type == hclsyntax.TokenEOF
	})
}
