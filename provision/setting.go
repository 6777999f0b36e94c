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

// The interfaces below are for settings that can say more; the engine asks each
// setting for them, also those that are opened from a journaled key.

// Devicer is a Setting of one network device.
type Devicer interface {
	// Device returns the device's name. A device that comes or goes is no change
	// of the profile: its settings open no new generation, and those of one that
	// is gone are not drift. Empty means that this one is of no device.
	Device() string
}

// Lifetimer is a Setting that does not have its Kind's lifetime: a file below /run.
type Lifetimer interface {
	Lifetime() Lifetime
}

// Inexacter is a Setting that going back may not restore exactly: hugepages that
// memory is too fragmented for, a key that the kernel only lets be raised, a
// module that stays loaded.
type Inexacter interface {
	// Inexact says why, as a clause for people, for a change from live to want; it
	// is empty where the change can be undone exactly. The plan says so, and a
	// rollback that ends with another value reports it and is no failure.
	Inexact(live, want Value) string
}

// Pender is a Setting whose written value holds only after a reboot.
type Pender interface {
	// Pending says what the running kernel still lacks, as a clause for people
	// ("the kernel was not booted with preempt=none"); empty where nothing. It is
	// asked for settings whose live value is want.
	Pending(ctx context.Context, h *host.Host, want Value) (string, error)
}

// Verifier is a Setting whose value may be as wanted while its effect is not:
// systemd has the property, but the cgroup does not.
type Verifier interface {
	// Verify is asked by verify for settings whose live value is want. Its error
	// is drift, and says what was found and what to do.
	Verify(ctx context.Context, h *host.Host, want Value) error
}

// Class says what a setting's failure means for the whole apply.
type Class string

const (
	// Warn goes on with the next setting; the apply is "partly applied".
	Warn Class = "warn"
	// Fail stops the apply: later settings are left alone.
	Fail Class = "fail"
	// Tolerate is what best_effort() and on_missing = "skip" ask for: that this
	// host cannot have the setting, or refuses to set it, is reported as
	// "tolerated" and is no failure of the apply, nor of verify.
	Tolerate Class = "tolerate"
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

// RebootPolicy says whether nodeprov may reboot the machine by itself. It does so
// in a boot-time apply only, where nothing runs yet that would be lost.
type RebootPolicy struct {
	IfNeeded bool
	// MaxAttempts is how often at most for one wanted value, over all boots: a
	// kernel may drop an argument, and a boot loader may not read our file. At
	// least 1 where IfNeeded.
	MaxAttempts int
}

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
	// Reboot says what a boot-time apply does when the setting is a Pender that
	// still pends; the zero value only tells.
	Reboot RebootPolicy
	// Effect is this setting's own where the Kind's does not hold for all of
	// them; empty means the Kind's.
	Effect string
	// Others are the other places that set this and may win or lose against us,
	// each as "file:line: text". Filled by kinds that can know.
	Others func(*host.Host) []string
}
