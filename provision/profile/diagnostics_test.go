package profile

import (
	"bytes"
	"encoding/json"
	"errors"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/hclsyntax"
	"github.com/zclconf/go-cty/cty"
)

func TestJSON(t *testing.T) {
	src := Source{Name: "profile.hcl", Text: []byte(header1 + "nic \"a\" {\n  mtu = \"é\" + host.cpu.count\n}\n")}
	_, diags := Load(src, Options{Schemas: testSchemas(), Host: testHost()})
	diags = append(diags, &hcl.Diagnostic{Severity: hcl.DiagWarning, Summary: "Sourceless"})
	got, err := json.MarshalIndent(JSON(Files(src), diags), "", "  ")
	if err != nil {
		t.Fatal(err)
	}
	want := `{
  "valid": false,
  "error_count": 1,
  "warning_count": 1,
  "diagnostics": [
    {
      "severity": "error",
      "summary": "Invalid operand",
      "detail": "Unsuitable value for left operand: a number is required. Check the values that go in.",
      "range": {
        "filename": "profile.hcl",
        "start": {
          "line": 3,
          "column": 9,
          "byte": 42
        },
        "end": {
          "line": 3,
          "column": 12,
          "byte": 46
        }
      },
      "snippet": {
        "context": "nic \"a\"",
        "code": "  mtu = \"é\" + host.cpu.count",
        "start_line": 3,
        "highlight_start_offset": 8,
        "highlight_end_offset": 12,
        "values": []
      }
    },
    {
      "severity": "warning",
      "summary": "Sourceless",
      "detail": ""
    }
  ]
}`
	if d := cmp.Diff(want, string(got)); d != "" {
		t.Error(d)
	}
	got, err = json.Marshal(JSON(nil, nil))
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(`{"valid":true,"error_count":0,"warning_count":0,"diagnostics":[]}`, string(got)); d != "" {
		t.Error(d)
	}
}

// Values come with an expression, whoever made the diagnostic.
func TestValues(t *testing.T) {
	src := Source{Name: "p", Text: []byte(`f(a, b, s, o, u, a, l, long)`)}
	expr, diags := hclsyntax.ParseExpression(src.Text, "p", hcl.InitialPos)
	if diags.HasErrors() {
		t.Fatal(diags)
	}
	ctx := &hcl.EvalContext{Variables: map[string]cty.Value{
		"a": cty.StringVal("x"), "b": cty.NullVal(cty.String), "s": cty.StringVal("hunter2").Mark(Sensitive),
		"o": cty.ObjectVal(map[string]cty.Value{"p": cty.StringVal("hunter2").Mark(Sensitive)}),
		"u": cty.UnknownVal(cty.Number), "l": cty.ListVal([]cty.Value{cty.True}), "long": cty.StringVal(strings.Repeat("y", 100)),
	}}
	d := problem(expr.Range(), "S", "D")
	d.Expression, d.EvalContext = expr, ctx
	want := []ExpressionValue{
		{"a", `is "x"`}, {"b", "is null"}, {"l", "is list of bool with 1 element"},
		{"long", `is "` + strings.Repeat("y", 80) + `" and 20 more characters`},
		{"o", "has a sensitive value"}, {"s", "has a sensitive value"}, {"u", "is a number, known only on the host"},
	}
	if d := cmp.Diff(want, JSON(Files(src), hcl.Diagnostics{d}).Diagnostics[0].Snippet.Values); d != "" {
		t.Error(d)
	}
}

func TestWriteText(t *testing.T) {
	src := Source{Name: "p", Text: []byte("one\n\ttwo \x1b[2J three\r\n" + strings.Repeat("a", 100) + "MARK" + strings.Repeat("b", 100) + "\nl4\nl5\nl6\nl7\nl8\nl9\nlast")}
	at := func(line, column, from, to int) *hcl.Range {
		return &hcl.Range{Filename: "p", Start: hcl.Pos{Line: line, Column: column, Byte: from}, End: hcl.Pos{Line: line, Column: column + to - from, Byte: to}}
	}
	tests := []struct {
		name  string
		diag  hcl.Diagnostic
		width int
		color bool
		want  string
	}{
		{"tab and escape", hcl.Diagnostic{Subject: at(2, 6, 9, 13)}, 0, false, "\n  on p:2:6:\n    2: \ttwo �[2J three\n       \t    ^^^^\n"},
		{"colour", hcl.Diagnostic{Subject: at(1, 1, 0, 3)}, 0, true, "\n  on p:1:1:\n    1: one\n       \x1b[1;31m^^^\x1b[0m\n"},
		{"empty range", hcl.Diagnostic{Subject: at(1, 2, 1, 1)}, 0, false, "\n  on p:1:2:\n    1: one\n        ^\n"},
		{"end of line", hcl.Diagnostic{Subject: at(1, 4, 3, 3)}, 0, false, "\n  on p:1:4:\n    1: one\n          ^\n"},
		{"end of file", hcl.Diagnostic{Subject: at(10, 5, len(src.Text), len(src.Text))}, 0, false, "\n  on p:10:5:\n   10: last\n           ^\n"},
		{"beyond the file", hcl.Diagnostic{Subject: at(99, 1, 9999, 9999)}, 0, false, "\n  on p:99:1:\n"},
		{"long line", hcl.Diagnostic{Subject: at(3, 101, bytes.Index(src.Text, []byte("MARK")), bytes.Index(src.Text, []byte("MARK"))+4)}, 47, false,
			"\n  on p:3:101:\n    3: …aaaaaaaaaaaaaaaaaaaMARKbbbbbbbbbbbbbbb…\n                           ^^^^\n"},
		{"no source", hcl.Diagnostic{Subject: &hcl.Range{Filename: "q\x1b", Start: hcl.Pos{Line: 1, Column: 1}}}, 0, false, "\n  on q�:1:1:\n"},
		{"wrapped detail", hcl.Diagnostic{Detail: "one two three four\n\n  keep"}, 10, false, "\none two\nthree four\n\n  keep\n"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			tt.diag.Severity, tt.diag.Summary = hcl.DiagError, "S"
			var b bytes.Buffer
			if err := WriteText(&b, map[string]*hcl.File{"p": {Bytes: src.Text}}, hcl.Diagnostics{&tt.diag}, tt.width, tt.color); err != nil {
				t.Fatal(err)
			}
			_, got, _ := strings.Cut(b.String(), "\n")
			if d := cmp.Diff(tt.want, got); d != "" {
				t.Error(d)
			}
		})
	}
	if err := WriteText(broken{}, nil, hcl.Diagnostics{problem(hcl.Range{}, "S", "D")}, 0, false); !errors.Is(err, errBroken) {
		t.Errorf("a failed write gives %v", err)
	}
}

var errBroken = errors.New("broken pipe")

type broken struct{}

func (broken) Write([]byte) (int, error) { return 0, errBroken }
