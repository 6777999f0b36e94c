package provision

import (
	"github.com/hashicorp/hcl/v2"

	"github.com/nodeprov/nodeprov/provision/host"
	"github.com/nodeprov/nodeprov/provision/profile"
)

// Kind is one kind of setting. It owns the schema of its construct in the
// language, its checks, and how its settings are read and written; the engine
// owns order, difference, journal, read-back, rollback and rendering. A new
// kind is one file and one line in Kinds.
type Kind struct {
	// Name is the first part of its settings' keys.
	Name string
	// Schema is its construct in the language; nil for a kind that only other
	// kinds' constructs use.
	Schema *profile.Schema
	// Wanted turns one evaluated construct into settings. It checks everything
	// that needs no machine; a value that is unknown is checked as far as it
	// can be, and gives no setting. The facts are nil where the host is unknown
	// (validate, --root): then settings that follow from facts are left out.
	Wanted func(b profile.Block, f *host.Facts) ([]Wanted, hcl.Diagnostics)
	// Open makes the setting of a journaled key, given the part after "NAME/".
	// Its error says that the key is not one of this kind's.
	Open func(name string) (Setting, error)
	// Scope, Lifetime and Effect are told in the plan.
	Scope    Scope
	Lifetime Lifetime
	// Effect is when a written value holds: "now", or in words.
	Effect string
	// Early settings need neither network nor D-Bus nor cloud-init; the early
	// unit applies them alone. There, and only there, what is absent is left to
	// the later unit.
	Early bool
}

// Kinds is the table of kinds, in the order in which settings are applied.
// Rolling back goes the other way. Within a kind the profile's order is kept.
func Kinds() []Kind {
	return []Kind{
		sysctlKind(),
		nicKind(),
		fileKind(),
		lbdKind(),
		unitKind(),
	}
}
