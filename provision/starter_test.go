package provision

import (
	"bytes"
	"strings"
	"testing"

	"github.com/nodeprov/nodeprov/provision/profile"
)

func TestStarter(t *testing.T) {
	for _, name := range pictures() {
		t.Run(name, func(t *testing.T) {
			h, f := picture(t, name)
			e := &Engine{Host: h, Kinds: Kinds(), State: t.TempDir(), Boot: "b"}
			text, err := e.Starter(t.Context(), f, "node")
			if err != nil {
				t.Fatal(err)
			}
			canonical, diags := profile.Format(profile.Source{Name: "p.hcl", Text: text})
			if diags.HasErrors() || !bytes.Equal(canonical, text) {
				t.Errorf("not canonical: %v", diags)
			}
			golden(t, "testdata/starter/"+name+".hcl", string(text))

			// The suggestions are right as well, once they are taken.
			var all strings.Builder
			for line := range strings.Lines(string(text)) {
				if strings.HasPrefix(line, "# What this host cannot have") {
					break
				}
				if strings.HasPrefix(line, "# lbd {}") || strings.Contains(line, "# left out, as") {
					continue // the first needs an installed lbd.service
				}
				code := strings.TrimPrefix(strings.TrimLeft(line, " "), "# ")
				if strings.ContainsAny(code, "={}[]") || strings.Contains(code, "builtin://") {
					line = code
				}
				all.WriteString(line)
			}
			s := &starter{engine: e, facts: f, d: newDoctor(t.Context(), h, f, e.Kinds)}
			if err := s.plan(t.Context(), []byte(all.String())); err != nil {
				t.Errorf("%v\n%s", err, all.String())
			}
		})
	}
}
