package testbed

import (
	"encoding/json"
	"errors"
	"io"
	"os/exec"
	"strings"
	"testing"
)

// The arrows between the packages go one way: docs/ARCHITECTURE.md, "Layout".
func TestImports(t *testing.T) {
	const module = "github.com/nodeprov/nodeprov/"
	// What a package may import of the module. Each also may import itself.
	allowed := map[string][]string{
		"cmd/nodeprov":             {"internal/cli", "provision", "provision/profile", "provision/host", "profiles", "units"},
		"cmd/lbd":                  {"internal/cli", "lbd", "lbd/config", "bpf"},
		"provision":                {"provision/profile", "provision/host", "units", "k3s", "profiles", "lbd/config"},
		"provision/profile":        {},
		"provision/host":           {},
		"profiles":                 {"provision/profile"},
		"units":                    {"k3s"},
		"k3s":                      {},
		"lbd":                      {"bpf", "lbd/config"},
		"lbd/config":               {},
		"bpf":                      {},
		"internal/probe":           {},
		"internal/cli":             {},
		"internal/testbed":         {"internal/probe"},
		"internal/probe/cmd/probe": {"internal/probe"},
	}
	cmd := exec.Command("go", "list", "-json=ImportPath,Imports,Deps", "./...")
	cmd.Dir = "../.."
	out, err := cmd.Output()
	if err != nil {
		t.Fatal(err)
	}
	seen := map[string]bool{}
	for d := json.NewDecoder(strings.NewReader(string(out))); ; {
		var p struct {
			ImportPath    string
			Imports, Deps []string
		}
		if err := d.Decode(&p); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			t.Fatal(err)
		}
		name := strings.TrimPrefix(p.ImportPath, module)
		may, ok := allowed[name]
		if !ok {
			t.Errorf("%s: a package that docs/ARCHITECTURE.md does not know", name)
			continue
		}
		seen[name] = true
		ours := map[string]bool{}
		for _, m := range may {
			ours[module+m] = true
		}
		for _, i := range p.Imports {
			if strings.HasPrefix(i, module) && !ours[i] {
				t.Errorf("%s imports %s", name, strings.TrimPrefix(i, module))
			}
			if i == "os/exec" && name != "provision/host" && name != "internal/testbed" {
				t.Errorf("%s imports os/exec: only provision/host runs programs", name)
			}
		}
		for _, i := range p.Deps {
			if strings.HasPrefix(i, "k8s.io/") && !strings.HasPrefix(i, "k8s.io/utils/") && name != "lbd" && name != "cmd/lbd" {
				t.Errorf("%s depends on %s: only lbd talks to Kubernetes", name, i)
				break
			}
		}
	}
	for name := range allowed {
		if !seen[name] {
			t.Errorf("%s: no such package", name)
		}
	}
}
