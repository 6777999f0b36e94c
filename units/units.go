// Package units renders the systemd units of nodeprov and lbd, and nodeprov's udev
// rule. Rendering is pure: the same options give the same bytes.
package units

import (
	"bytes"
	"embed"
	"fmt"
	"io/fs"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"text/template"

	"github.com/coreos/go-systemd/v22/unit"

	"github.com/nodeprov/nodeprov/k3s"
)

//go:embed *.service *.timer *.rules
var templates embed.FS

// Dir is where the units go: the administrator's directory, so that a
// distribution's package in /usr/lib may bring its own.
const Dir = "/etc/systemd/system"

// RulesDir is where the udev rule goes, for the same reason.
const RulesDir = "/etc/udev/rules.d"

// Options are what the units depend on.
type Options struct {
	// BinDir is the absolute directory of the binaries on the machine.
	BinDir string
}

// File is one file to install.
type File struct {
	Path string // absolute, on the machine
	Mode fs.FileMode
	Text []byte
}

// Files returns the units and the udev rule, sorted by path.
func Files(o Options) ([]File, error) {
	if !filepath.IsAbs(o.BinDir) || strings.ContainsAny(o.BinDir, " \t\n\"'\\%$") {
		return nil, fmt.Errorf("units: directory of the binaries %q: it must be absolute, without blanks and quotes", o.BinDir)
	}
	names, err := Names()
	if err != nil {
		return nil, err
	}
	t, err := template.New("").Option("missingkey=error").ParseFS(templates, "*")
	if err != nil {
		return nil, fmt.Errorf("units: %w", err)
	}
	data := map[string]any{"BinDir": path.Clean(o.BinDir), "K3s": strings.Join(k3s.Units(), " ")}
	var files []File
	for _, name := range names {
		var b bytes.Buffer
		if err := t.ExecuteTemplate(&b, name, data); err != nil {
			return nil, fmt.Errorf("units: %w", err)
		}
		dir := Dir
		if strings.HasSuffix(name, ".rules") {
			dir = RulesDir
		}
		files = append(files, File{Path: path.Join(dir, name), Mode: 0o644, Text: b.Bytes()})
	}
	slices.SortFunc(files, func(a, b File) int { return strings.Compare(a.Path, b.Path) })
	return files, nil
}

// Names returns the names of the files, sorted.
func Names() ([]string, error) {
	return fs.Glob(templates, "*")
}

// WantedBy returns the units that a unit's [Install] section names: enabling it
// means a symbolic link in each one's .wants directory. Units that something else
// starts have none, and the udev rule neither.
func WantedBy(f File) ([]string, error) {
	if path.Dir(f.Path) != Dir {
		return nil, nil
	}
	opts, err := unit.DeserializeOptions(bytes.NewReader(f.Text))
	if err != nil {
		return nil, fmt.Errorf("unit %s: %w", f.Path, err)
	}
	var by []string
	for _, o := range opts {
		if o.Section == "Install" && o.Name == "WantedBy" {
			by = append(by, strings.Fields(o.Value)...)
		}
	}
	return by, nil
}
