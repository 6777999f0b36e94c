package provision

import (
	"encoding/json"
	"fmt"
	"strings"
	"unicode/utf8"
)

// valueJSON is the wire form of a Value. JSON texts are UTF-8, so a text that
// is not goes as base64: encoding/json would replace its bytes in silence, and
// the journal must restore them.
type valueJSON struct {
	Absent bool   `json:"absent,omitempty"`
	Text   string `json:"text,omitempty"`
	Base64 []byte `json:"base64,omitempty"`
}

// MarshalJSON gives {"absent":true}, {"text":"…"}, or {"base64":"…"} for a text
// that is not UTF-8. An empty text that is present is {}.
func (v Value) MarshalJSON() ([]byte, error) {
	w := valueJSON{Absent: v.Absent, Text: v.Text}
	if !utf8.ValidString(v.Text) {
		w.Text, w.Base64 = "", []byte(v.Text)
	}
	return json.Marshal(w)
}

// UnmarshalJSON reads what MarshalJSON wrote.
func (v *Value) UnmarshalJSON(b []byte) error {
	var w valueJSON
	if err := json.Unmarshal(b, &w); err != nil {
		return err
	}
	*v = Value{Absent: w.Absent, Text: w.Text}
	if len(w.Base64) > 0 {
		v.Text = string(w.Base64)
	}
	return nil
}

// String is the value for people, on one line: "(absent)", the text itself, or
// a summary where it has several lines or is no text at all.
func (v Value) String() string {
	t := strings.TrimSuffix(v.Text, "\n")
	switch {
	case v.Absent:
		return "(absent)"
	case t == "":
		return `""`
	case !utf8.ValidString(t) || strings.ContainsFunc(t, unprintable):
		return fmt.Sprintf("(binary, %d bytes)", len(v.Text))
	case strings.Contains(t, "\n"):
		return fmt.Sprintf("(%d lines, %d bytes)", strings.Count(t, "\n")+1, len(v.Text))
	}
	return strings.ReplaceAll(t, "\t", " ")
}

// lines are the text's lines where it is worth showing as such, else nil.
func (v Value) lines() []string {
	t := strings.TrimSuffix(v.Text, "\n")
	if v.Absent || !utf8.ValidString(t) || strings.ContainsFunc(t, unprintable) {
		return nil
	}
	if t == "" {
		return []string{}
	}
	return strings.Split(t, "\n")
}

func unprintable(r rune) bool {
	return r < ' ' && r != '\t' && r != '\n' || r == 0x7f
}
