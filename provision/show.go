package provision

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"
)

// Shown is a generation: what it asked for, and what the host has of that.
type Shown struct {
	Format int `json:"format"` // 1
	Heading
	Settings []ShownSetting `json:"settings"`
}

// Heading is a generation in a line.
type Heading struct {
	Generation int       `json:"generation"`
	Current    bool      `json:"current"`
	Time       time.Time `json:"time,omitzero"`
	// Phase is "all", or that of a run that has begun it and that no run of all has
	// completed.
	Phase   Phase  `json:"phase"`
	Profile string `json:"profile,omitempty"`
	Digest  string `json:"sha256,omitempty"`
	// Count is how many settings it asked for.
	Count int `json:"count"`
}

// ShownSetting is a key of a generation.
type ShownSetting struct {
	Key string `json:"key"`
	// Asked is what was asked for; nil where that could not be told: the host did
	// not have it.
	Asked *Value `json:"asked"`
	Live  Value  `json:"live"`
	// Before is what was there before nodeprov; nil where it was not changed.
	Before *Value `json:"before"`
	// Same tells that the live value is as good as the one asked for.
	Same bool `json:"same"`
	// Error says why the live value cannot be told.
	Error string `json:"error,omitempty"`

	rank int
}

// Generations are those that the journal knows in full, the newest first.
func (e *Engine) Generations() ([]Heading, error) {
	j, err := e.openJournal()
	if err != nil {
		return nil, err
	}
	gs := j.generations()
	out := []Heading{}
	for i := len(gs) - 1; i >= 0; i-- {
		out = append(out, heading(gs[i], i == len(gs)-1))
	}
	return out, nil
}

func heading(g record, current bool) Heading {
	h := Heading{Generation: g.Gen, Current: current, Phase: g.Phase, Profile: g.Profile, Digest: g.Digest, Count: len(g.Asked)}
	if g.Time != nil {
		h.Time = *g.Time
	}
	return h
}

// Show tells what a generation asked for, nil being the one in force, and reads what
// the host has. It takes no lock and writes nothing.
func (e *Engine) Show(ctx context.Context, generation *int) (*Shown, error) {
	j, err := e.openJournal()
	if err != nil {
		return nil, err
	}
	gs := j.generations()
	at := len(gs) - 1
	if generation != nil {
		at = slices.IndexFunc(gs, func(g record) bool { return g.Gen == *generation })
	}
	switch {
	case at < 0 && generation == nil:
		return nil, errors.New("show: nothing is in force (nodeprov apply)")
	case at < 0:
		var have []string
		for _, g := range gs {
			have = append(have, fmt.Sprint(g.Gen))
		}
		if have == nil {
			have = []string{"none"}
		}
		return nil, fmt.Errorf("show: generation %d is not known (known: %s)", *generation, strings.Join(have, ", "))
	}
	s := &Shown{Format: 1, Heading: heading(gs[at], at == len(gs)-1), Settings: []ShownSetting{}}
	chains, _ := j.chains()
	for _, key := range slices.Sorted(maps.Keys(gs[at].Asked)) {
		if interrupted(ctx) {
			return nil, fmt.Errorf("show: %w", context.Cause(ctx))
		}
		set := ShownSetting{Key: key, Asked: gs[at].Asked[key], rank: e.rank(key)}
		if c := chains[key]; c != nil {
			set.Before = &c.baseline
		}
		k := e.lookup(key)
		if setting, err := e.reopen(key); err != nil {
			set.Error = err.Error()
		} else if lifetime(k, setting) == Runtime && e.offline() {
			set.Error = "only the booted machine has it"
		} else if set.Live, err = setting.Read(ctx, e.Host); err != nil {
			set.Error = err.Error()
		} else {
			set.Same = set.Asked != nil && same(setting, set.Live, *set.Asked)
		}
		s.Settings = append(s.Settings, set)
	}
	slices.SortStableFunc(s.Settings, func(a, b ShownSetting) int { return a.rank - b.rank })
	return s, nil
}
