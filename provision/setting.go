package provision

import (
	"context"

	"github.com/hashicorp/hcl/v2"

	"github.com/nodeprov/nodeprov/provision/host"
)

// Value is what a setting has or shall have. The text is the kind's own form,
// exact enough that writing it again restores the setting byte for byte, and
// fit to be shown to a person. The zero Value is an empty text that is present.
type Value struct {
	// Absent means that the thing does not exist: no such file, unit not
	// installed. Text is empty then.
	Absent bool   `json:"absent,omitempty"`
	Text   string `json:"text,omitempty"`
}

// Setting is one thing on the host that has one value.
type Setting interface {
	// Key is unique and stable, "KIND/NAME": "sysctl/net.core.somaxconn",
	// "nic/eth0/mtu", "file//etc/lbd/lbd.hcl". The kind's Open makes the
	// setting again from what follows "KIND/".
	Key() string
	// Read returns the live value. What is not there is a Value, not an error.
	Read(context.Context, *host.Host) (Value, error)
	// Write makes the live value v. Writing the same value twice changes
	// nothing. The engine never writes a value that Read returned.
	Write(context.Context, *host.Host, Value) error
}

// Comparer is a Setting for which values that differ may be as good as each
// other: the kernel prints tabs where people write blanks, and nobody can ask
// for a service that keeps failing. Same tells whether live is as good as writing
// want can make it. Without it, values are the same when they are equal.
type Comparer interface {
	Same(live, want Value) bool
}

func same(s Setting, live, want Value) bool {
	if c, ok := s.(Comparer); ok {
		return c.Same(live, want)
	}
	return live == want
}

// Class says what a setting's failure means for the whole apply.
type Class string

const (
	// Warn goes on with the next setting; the apply is "partly applied".
	Warn Class = "warn"
	// Fail stops the apply: later settings are left alone.
	Fail Class = "fail"
)

// Scope says how far a setting reaches.
type Scope string

const (
	// Machine settings hold for the whole machine.
	Machine Scope = "machine"
	// NetNS settings hold for the network namespace that nodeprov runs in.
	NetNS Scope = "netns"
)

// Lifetime says what ends a setting.
type Lifetime string

const (
	// Runtime values are the kernel's and are gone after a reboot, so what was
	// journaled in an older boot is never restored.
	Runtime Lifetime = "runtime"
	// Persistent values are files and outlive reboots.
	Persistent Lifetime = "persistent"
)

// Wanted is a setting together with what the profile asks of it.
type Wanted struct {
	Setting
	// Want returns the value to have where live is the value now: a fixed value
	// mostly, but at_least keeps a live value that is larger. Its error is a
	// mistake of the profile that only the live value shows.
	Want func(live Value) (Value, error)
	// Range is the place in the profile that asks for it.
	Range hcl.Range
	// OnError is the class of a failure to write or to read back.
	OnError Class
	// Unsupported says, for a live value that is Absent, why it cannot be set
	// and what to do; it returns nil where absence is a value like any other.
	// A nil func is the latter. The host is there to look for what may have
	// been meant instead.
	Unsupported func(*host.Host) error
	// Scope is this setting's own where the Kind's does not hold for all of
	// them (sysctls are of both scopes); empty means the Kind's.
	Scope Scope
	// Others are the other places that set this and may win or lose against us,
	// each as "file:line: text". Filled by kinds that can know.
	Others func(*host.Host) []string
}
