package profile

import (
	"bytes"
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/hclsyntax"
)

func TestFormat(t *testing.T) {
	for _, tt := range []struct{ name, in, want string }{
		{"empty", "", ""},
		{"only space", "\n\n  \n", ""},
		{"aligned", "nodeprov{\nschema=1\n}\n\n\nsysctl={\n\"a\"=1\n\"bcd\"   =at_least( 2 )\n}", "nodeprov {\n  schema = 1\n}\n\n\nsysctl = {\n  \"a\"   = 1\n  \"bcd\" = at_least(2)\n}\n"},
		{"final newlines", "a = 1\n\n\n", "a = 1\n"},
		{"comments", "#one\na=1 # two\nlonger=2 // three", "#one\na      = 1 # two\nlonger = 2 // three\n"},
		{"line ends of Windows", "a=1\r\nb=2\r\n\r\n", "a = 1\r\nb = 2\r\n"},
		{"heredoc is text", "a = <<E\n  x   =  1\nE\n", "a = <<E\n  x   =  1\nE\n"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got, diags := Format(Source{Name: "profile.hcl", Text: []byte(tt.in)})
			if diags.HasErrors() {
				t.Fatal(diags)
			}
			if d := cmp.Diff(tt.want, string(got)); d != "" {
				t.Error(d)
			}
		})
	}
	for _, bad := range []string{"a = ", "nic {", "a = 1\na = 2\n", "\xff", "\xef\xbb\xbfa = 1\n", "a = 7 .77E7\n"} {
		if got, diags := Format(Source{Name: "p", Text: []byte(bad)}); got != nil || !diags.HasErrors() {
			t.Errorf("%q: %q, %v", bad, got, diags)
		}
	}
}

// tokens is a text without its layout.
func tokens(t *testing.T, text []byte) []string {
	lexed, diags := hclsyntax.LexConfig(text, "p", hcl.InitialPos)
	if diags.HasErrors() {
		t.Fatal(diags)
	}
	var out []string
	for _, tok := range lexed {
		switch tok.Type {
		case hclsyntax.TokenNewline, hclsyntax.TokenEOF:
		case hclsyntax.TokenComment:
			out = append(out, string(bytes.TrimSpace(tok.Bytes)))
		default:
			out = append(out, string(tok.Bytes))
		}
	}
	return out
}

func FuzzFormat(f *testing.F) {
	files, err := filepath.Glob("testdata/bad/*.hcl")
	if err != nil {
		f.Fatal(err)
	}
	for _, name := range files {
		src, err := os.ReadFile(name)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(src)
	}
	f.Add([]byte("a = 7 .77E7\n"))
	f.Add([]byte("a={b=1\nccc=2 # x\n}\nd=<<-E\n  x ${ 1 }\n E\ne=[1,\n2]\n"))
	f.Fuzz(func(t *testing.T, text []byte) {
		once, diags := Format(Source{Name: "p", Text: text})
		if diags.HasErrors() {
			return
		}
		twice, diags := Format(Source{Name: "p", Text: once})
		if diags.HasErrors() {
			t.Fatalf("formatted text is refused: %v\n%q\n%q", diags, text, once)
		}
		if d := cmp.Diff(string(once), string(twice)); d != "" {
			t.Errorf("from %q:\n%s", text, d)
		}
		if d := cmp.Diff(tokens(t, text), tokens(t, once)); d != "" {
			t.Errorf("more than space: %s", d)
		}
	})
}
