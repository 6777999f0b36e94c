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
	// can be, and gives no setting. It may read the machine (which keys a wildcard
	// stands for, which CPUs there are) and never writes. Host and Facts are nil
	// where the machine is unknown (validate); then settings that follow from it
	// are left out.
	Wanted func(b profile.Block, t Target) ([]Wanted, hcl.Diagnostics)
	// Checks are the commands that a construct lets verify run; nil for all kinds
	// but check.
	Checks func(b profile.Block) ([]Check, hcl.Diagnostics)
	// Open makes the setting of a journaled key, given the part after "NAME/".
	// Its error says that the key is not one of this kind's.
	Open func(name string) (Setting, error)
	// Scope, Lifetime and Effect are told in the plan. With --root, the settings
	// of a Persistent kind are applied to the tree of files; Runtime ones are
	// left to the boot of the machine that it becomes.
	Scope    Scope
	Lifetime Lifetime
	// Effect is when a written value holds: "now", or in words.
	Effect string
	// Early settings need neither network nor D-Bus nor cloud-init; the early
	// unit applies them alone. There, and only there, what is absent is left to
	// the later unit.
	Early bool
	// Entangled settings may change each other: the kernel writes some keys along with
	// others. They are looked at once more when all of the kind are written.
	Entangled bool
	// Device constructs have settings of network devices (see Devicer), so that
	// a run for one device (PhaseNIC) evaluates them.
	Device bool
}

// Target is the machine that settings are wanted for.
type Target struct {
	// Host is nil where the machine is unknown.
	Host *host.Host
	// Facts are nil where the machine is unknown, or only a tree of files.
	Facts *host.Facts
	// Booting is the Engine's.
	Booting bool
}

// Kinds is the table of kinds, in the order in which settings are applied.
// Rolling back goes the other way. Within a kind the profile's order is kept. A
// kind whose construct is made of other kinds' settings (kernel, cpu, lbd) has no
// keys of its own: what its Wanted returns is sorted by the kinds of the keys.
func Kinds() []Kind {
	return []Kind{
		// Constructs that are made of other kinds' settings.
		kernelKind(),
		cpuKind(),
		// Settings, in order.
		moduleKind(),
		sysctlKind(),
		sysfsKind(),
		latencyKind(),
		sliceKind(),
		irqbalanceKind(),
		nicKind(),
		queueKind(),
		qdiscKind(),
		cmdlineKind(),
		fileKind(),
		lbdKind(),
		unitKind(),
		checkKind(),
	}
}
