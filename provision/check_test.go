package provision

import (
	"testing"
	"time"

	gocmp "github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
)

func TestCheck(t *testing.T) {
	p := evaluate(t, `
check "lbd" {
  command = ["lbd", "status", "--wait=60s"]
  timeout = "1m30s"
}
check "unknown" {
  command = ["ping", host.hostname]
}
check "default" {
  command = ["/bin/true"]
}`, unknownHost())
	var got []Check
	for _, b := range p.Blocks {
		cs, diags := checkKind().Checks(b)
		if diags.HasErrors() {
			t.Error(diags)
		}
		got = append(got, cs...)
	}
	want := []Check{
		{Name: "lbd", Command: []string{"lbd", "status", "--wait=60s"}, Timeout: 90 * time.Second},
		{Name: "default", Command: []string{"/bin/true"}, Timeout: 30 * time.Second},
	}
	if d := gocmp.Diff(want, got, cmpopts.IgnoreFields(Check{}, "Range")); d != "" {
		t.Error(d)
	}
	if got[0].Range.Start.Line != 5 {
		t.Error(got[0].Range)
	}
	if _, err := checkKind().Open("lbd"); err == nil {
		t.Error("a check has a setting")
	}
}

func TestCheckMistakes(t *testing.T) {
	for text, want := range map[string]string{
		`command = []`:                           `2,11: error: Invalid value of command: The list is empty. It begins with the program, as in ["lbd", "status"].`,
		`command = [""]`:                         `2,11: error: Invalid value of command: The first element, the program, is empty.`,
		`command = ["bin/x"]`:                    `2,11: error: Invalid value of command: "bin/x" is neither an absolute path nor a name to be looked for in PATH: it would depend on the directory that verify is run in.`,
		`command = ["lbd status"]`:               `2,11: error: Invalid value of command: The program "lbd status" has a blank in it. There is no shell: write each word as an element, ["lbd", …].`,
		`command = ["x", null]`:                  `2,11: error: Invalid value of command: All elements are strings; argument 1 is none.`,
		"command = [\"x\"]\ntimeout = \"0\"":     `3,11: error: Invalid value of timeout: 0 is out of range: a check may take 1s to 1h.`,
		"command = [\"x\"]\ntimeout = \"61m\"":   `3,11: error: Invalid value of timeout: 61m is out of range: a check may take 1s to 1h.`,
		"command = [\"x\"]\ntimeout = \"a day\"": `3,11: error: Invalid value of timeout: "a day" is no length of time. Write a number and its unit, as in "60s" or "5m".`,
	} {
		sameText(t, want, wantedText(t, "check \"x\" {\n"+text+"\n}", nil))
	}
	// A secret would stand in the list of processes and in the report.
	sameText(t, `7,13: error: Sensitive value: command cannot be set from a sensitive value: plan, report and journal hold it. Use a value that is not secret.`, wantedText(t, `variable "s" {
  type      = string
  default   = "x"
  sensitive = true
}
check "x" {
  command = ["x", var.s]
}`, nil))
}
