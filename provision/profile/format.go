package profile

import (
	"bytes"

	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/hclwrite"
)

// Format returns src in canonical form: hclwrite's layout, and one newline at
// the end, which is that of the other lines. Formatting the result again changes nothing, and only space differs
// from src. What does not parse is refused.
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
	return text, nil
}
