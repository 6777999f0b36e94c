// Package profiles holds the node profiles that are shipped with nodeprov, one
// NAME.hcl each. A profile names them as builtin://NAME.
package profiles

import (
	"embed"
	"fmt"
	"io/fs"
	"slices"
	"strings"

	"github.com/nodeprov/nodeprov/provision/profile"
)

// Scheme stands before a shipped profile's name where a file's path could stand
// as well.
const Scheme = "builtin://"

//go:embed *.hcl
var files embed.FS

// Names returns the names of the shipped profiles, sorted: "base".
func Names() []string {
	names, err := fs.Glob(files, "*.hcl")
	if err != nil {
		panic(fmt.Sprintf("profiles: %v", err)) // the pattern is a constant
	}
	for i, n := range names {
		names[i] = strings.TrimSuffix(n, ".hcl")
	}
	return names
}

// Source returns the text of a shipped profile. Its name in diagnostics is
// "builtin://NAME". The error says which names there are.
func Source(name string) (profile.Source, error) {
	if !slices.Contains(Names(), name) {
		return profile.Source{}, fmt.Errorf("shipped profile %q: %w (there are: %s)", name, fs.ErrNotExist, strings.Join(Names(), ", "))
	}
	text, err := files.ReadFile(name + ".hcl")
	if err != nil {
		return profile.Source{}, fmt.Errorf("shipped profile %q: %w", name, err)
	}
	return profile.Source{Name: Scheme + name, Text: text}, nil
}

// Include is for profile.Options.Include where there are shipped profiles only:
// what they include.
func Include(_, ref string) (profile.Source, error) {
	name, ok := strings.CutPrefix(ref, Scheme)
	if !ok {
		return profile.Source{}, fmt.Errorf("%q is no shipped profile (write %sNAME; there are: %s)", ref, Scheme, strings.Join(Names(), ", "))
	}
	return Source(name)
}
