package provision

import (
	"context"
	"fmt"
)

// State is a Status in one word.
type State string

const (
	// Never: nothing was ever applied.
	Never State = "never applied"
	// Working: an apply or rollback is at work.
	Working State = "working"
	// Applied: the last apply was complete, and its values are still there.
	Applied State = "applied"
	// Drifting: it was, but values have changed since.
	Drifting State = "drifted"
	// Degraded: the last good profile is in force, as the newest is invalid or was
	// tried and never confirmed; or reboots did not bring what they should.
	Degraded State = "degraded"
	// Incomplete: the last apply was partial, failed or cancelled; its report
	// says what is true.
	Incomplete State = "incomplete"
	// Interrupted: the last run was killed.
	Interrupted State = "interrupted"
	// Stale: nothing was applied since the machine booted.
	Stale State = "not applied since boot"
	// RolledBack: the last thing done was a rollback.
	RolledBack State = "rolled back"
	// Trying: the last apply is reverted unless it is confirmed.
	Trying State = "tried, not confirmed"
	// NeedsReboot: it was complete, and some of it holds after a reboot only.
	NeedsReboot State = "reboot needed"
	// Missing: there was no profile to apply.
	Missing State = "no profile"
	// Refused: the profile was invalid, and nothing was applied.
	Refused State = "profile refused"
)

// Status is what is known of the host without a profile.
type Status struct {
	// Format is 1.
	Format int    `json:"format"`
	State  State  `json:"state"`
	Boot   string `json:"boot"`
	// Generation is the one in force, History those that a rollback can go to.
	Generation int   `json:"generation"`
	History    []int `json:"history"`
	// Drift are the applied values that are different now.
	Drift []Drift `json:"drift"`
	// Try is what waits to be confirmed, or was reverted; nil where nothing.
	Try *Try `json:"try"`
	// Watch is what nodeprov-watch tells; nil where it does not run.
	Watch *WatchState `json:"watch"`
	// Warnings say what of this could not be told.
	Warnings []string `json:"warnings,omitempty"`
	// Last is the last apply or rollback; nil when there was none.
	Last *Report `json:"last"`
}

// Drift is an applied value that has changed.
type Drift struct {
	Key     string `json:"key"`
	Applied Value  `json:"applied"`
	Live    Value  `json:"live"`
	// Error says why the live value cannot be told; Live means nothing then.
	Error string `json:"error,omitempty"`
}

// Status reads the last report and the values that it tells of. It takes no
// lock and writes nothing.
func (e *Engine) Status(ctx context.Context) (*Status, error) {
	j, err := e.openJournal()
	if err != nil {
		return nil, err
	}
	last, err := e.LastReport()
	if err != nil {
		return nil, err
	}
	s := &Status{Format: 1, Boot: j.boot, Generation: j.current().Gen, History: []int{0}, Drift: []Drift{}, Last: last}
	for _, g := range j.generations() {
		if g.Gen != s.Generation {
			s.History = append(s.History, g.Gen)
		}
	}
	if s.Generation == 0 {
		s.History = []int{}
	}
	if last != nil {
		for _, os := range [][]Outcome{last.Applied, last.Unchanged} {
			if err := e.drift(ctx, s, os); err != nil {
				return nil, err
			}
		}
	}
	// What stands beside the journal must not keep it from being shown.
	warn := func(err error) {
		if err != nil {
			s.Warnings = append(s.Warnings, err.Error())
		}
	}
	s.Try, err = e.Trying()
	warn(err)
	if e.Host != nil && e.Host.Live() {
		s.Watch, err = ReadWatchState(e.Host)
		warn(err)
	}
	s.State = e.state(s)
	return s, nil
}

func (e *Engine) drift(ctx context.Context, s *Status, os []Outcome) error {
	for _, o := range os {
		if interrupted(ctx) {
			return fmt.Errorf("status: %w", context.Cause(ctx))
		}
		k := e.lookup(o.Key)
		d := Drift{Key: o.Key, Applied: o.Live}
		set, err := e.reopen(o.Key)
		if err == nil && lifetime(k, set) == Runtime && (s.Last.Boot != s.Boot || e.offline()) {
			continue
		}
		if err == nil {
			d.Live, err = set.Read(ctx, e.Host)
		}
		if err != nil {
			d.Error = err.Error()
		}
		if err == nil && d.Live.Absent && deviceOf(set) != "" {
			continue // the device went, and its values with it
		}
		if err != nil || !same(set, d.Live, o.Live) {
			s.Drift = append(s.Drift, d)
		}
	}
	return nil
}

func (e *Engine) state(s *Status) State {
	last := s.Last
	switch {
	case e.locked():
		return Working
	case last == nil:
		return Never
	case last.Result == Running:
		return Interrupted
	case last.Boot != s.Boot:
		return Stale
	case last.Result == NoProfile:
		return Missing
	case last.Result == Invalid:
		return Refused
	case s.Try != nil && s.Try.Reverted == "" && s.Try.Boot == s.Boot:
		return Trying
	case last.Result != Complete && last.Degraded == "":
		return Incomplete
	case last.Operation == "rollback":
		return RolledBack
	case last.Degraded != "", last.Reboot != nil && last.Reboot.State == RebootGaveUp:
		return Degraded
	case len(s.Drift) > 0:
		return Drifting
	case len(last.Pending) > 0:
		return NeedsReboot
	}
	return Applied
}
