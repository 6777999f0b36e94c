package provision

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/google/renameio/v2"

	"github.com/nodeprov/nodeprov/provision/host"
	"github.com/nodeprov/nodeprov/provision/profile"
)

// RunDir is where a running nodeprov tells of itself; it goes with the boot.
const RunDir = "/run/nodeprov"

// WatchFile is the WatchState of nodeprov-watch, while it runs.
const WatchFile = RunDir + "/watch.json"

const (
	// healLimit is how often a value of one device is set again within healWindow.
	// Whoever sets it back as often will do so for ever: then it is left alone.
	healLimit  = 5
	healWindow = 10 * time.Minute
	// A device that appears or is reset makes a dozen events. It is looked at when
	// none came for settle, and settleMax after the first one at the latest.
	settle    = 50 * time.Millisecond
	settleMax = 250 * time.Millisecond
	// fullRead is how often everything is read: the kernel does not tell of a
	// changed file in /proc/sys or /sys.
	fullRead = 5 * time.Minute
	// heldLatency names the PM-QoS descriptor for the service manager.
	heldLatency = "cpu-latency"
	// reportFile is written by each apply and rollback.
	reportFile = "report.json"
)

// WatchState is what nodeprov-watch tells of itself.
type WatchState struct {
	// Format is 1.
	Format int `json:"format"`
	// Idle says why no device is kept as the profile has it: nothing was applied in
	// this boot, or it was rolled back. Empty where they are.
	Idle string `json:"idle,omitempty"`
	// GaveUp are the values that something else kept setting back.
	GaveUp []GaveUp `json:"gave_up"`
	// Latency is the limit of the CPUs' wake-up latency that is held, in
	// microseconds, in decimal; empty where none is.
	Latency string `json:"latency"`
}

// GaveUp is a value that is left as it is until the next apply, or until
// its device is plugged in again.
type GaveUp struct {
	Key string `json:"key"`
	// Heals is how often it was set, Since is when that ended.
	Heals int       `json:"heals"`
	Since time.Time `json:"since"`
	// Live is what it has, Want what the profile asks for.
	Live Value `json:"live"`
	Want Value `json:"want"`
}

// ReadWatchState returns what nodeprov-watch tells; nil where it does not run.
func ReadWatchState(h *host.Host) (*WatchState, error) {
	b, err := h.ReadFile(WatchFile)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("watch: %w", err)
	}
	var s WatchState
	if err := json.Unmarshal(b, &s); err != nil {
		return nil, fmt.Errorf("watch: %s: %w (restart nodeprov-watch.service)", WatchFile, err)
	}
	return &s, nil
}

// NotInForce is why no profile is in force, in words.
type NotInForce string

func (n NotInForce) Error() string { return string(n) }

// NothingApplied: the boot has not come to nodeprov-apply.service yet, or it is not
// installed.
const NothingApplied NotInForce = "nothing was applied since the machine booted"

// ErrOvertaken is the error of a run that was decided upon before another run
// changed what is in force. Nothing was done; decide again.
var ErrOvertaken = errors.New("another run has changed what is in force")

// InForce returns the report of the apply whose settings are in force in this
// boot, so that a device that is plugged in gets the same. Else the error is a
// NotInForce. Without this a device's event would undo a rollback.
func (e *Engine) InForce() (*Report, error) {
	r, err := e.LastReport()
	if err != nil {
		return nil, err
	}
	boot, err := e.boot()
	switch {
	case err != nil:
		return nil, err
	case r == nil || r.Boot != boot || r.Operation == "apply" && (r.Phase != PhaseAll || r.Result == NoProfile):
		return nil, NothingApplied
	case r.Operation != "apply":
		return nil, NotInForce("the profile was rolled back")
	case r.Result == Complete || r.Result == Partial:
		return r, nil
	case r.Result == Running && e.locked():
		return r, nil // it takes the lock from us, and we look again after it
	}
	return nil, NotInForce(fmt.Sprintf("the last apply ended as %q", r.Result))
}

// StillInForce is an ApplyOptions.Guard: nothing has changed since InForce returned
// the report, nil for NothingApplied.
func (e *Engine) StillInForce(r *Report) func() error {
	return func() error {
		now, err := e.InForce()
		switch {
		case r == nil && errors.Is(err, NothingApplied):
			return nil
		case r == nil || err != nil:
			return ErrOvertaken
		case now.Boot != r.Boot || now.Operation != r.Operation || !now.Started.Equal(r.Started) || !now.Finished.Equal(r.Finished):
			return ErrOvertaken
		}
		return nil
	}
}

// Watcher keeps network devices as the profile in force has them, holds the
// PM-QoS request, and reports drift. It is what nodeprov-watch.service runs.
//
// It waits for events and costs nothing meanwhile. A device of which the kernel
// tells something is compared, which writes nothing and takes no lock; only what
// differs is set, by Engine.Apply with PhaseNIC, the same as `nodeprov nic` does.
// Other values that differ are reported and left alone: whoever changed them
// after the apply may have had a reason.
type Watcher struct {
	Engine *Engine
	// Links has the name of a device of which something may have changed, empty
	// for all of them. See host.LinkMonitor.
	Links <-chan string
	// Files has the base name of a file in Dir or in the state directory that may
	// have changed: the limit to hold, or the report of another apply.
	Files <-chan string
	// Wanted evaluates the profile that the report is of, with the facts of now, and
	// returns the settings of these devices, by device; nil are all. What it returns
	// for a device is complete. The Source and Vars are those it evaluated.
	Wanted func(ctx context.Context, r *Report, devices []string) (map[string][]Wanted, profile.Source, error)
	// Hold and Adjust make and change a PM-QoS request; see host.HoldLatency.
	Hold   func(us int) (*os.File, error)
	Adjust func(f *os.File, us int) error
	// Index is a device's number, another one for one that was plugged in again.
	Index func(device string) (int, error)
	// Dir is where WatchFile and LatencyFile are; empty means RunDir.
	Dir        string
	Supervisor *host.Supervisor
	Log        *slog.Logger

	// pending are the devices to be looked at, with their first and last event.
	pending map[string][2]time.Time
	// keys are those that were set again, of the apply that began at applied.
	keys    map[string]*healed
	applied time.Time
	drift   map[string]bool
	held    *os.File
	state   WatchState
	// wrote is the WatchFile's text, status the STATUS= that was sent; watched
	// the number of settings by device.
	wrote, status string
	watched       map[string]int
}

// healed is how often a key was set again.
type healed struct {
	device int // its Index
	at     []time.Time
	gaveUp *GaveUp
}

// Run works until ctx ends. It returns an error only where it cannot go on.
func (w *Watcher) Run(ctx context.Context) error {
	if w.Dir == "" {
		w.Dir = RunDir
	}
	w.pending, w.keys, w.watched = make(map[string][2]time.Time), make(map[string]*healed), make(map[string]int)
	w.state = WatchState{Format: 1, GaveUp: []GaveUp{}}
	// A request that the last process held goes on; without a gap, the CPUs do
	// not fall into a deep sleep in between.
	w.held = w.Supervisor.Take(heldLatency)
	w.latency()
	defer func() {
		// Not the request: the manager keeps it for the next process.
		_ = os.Remove(filepath.Join(w.Dir, filepath.Base(WatchFile)))
	}()
	if err := w.Supervisor.Send("READY=1"); err != nil {
		return err
	}
	// What changed while nobody watched.
	w.touch("")

	due := time.NewTimer(settle)
	defer due.Stop()
	full := time.NewTicker(fullRead)
	defer full.Stop()
	var alive <-chan time.Time
	if d := w.Supervisor.Watchdog(); d > 0 {
		t := time.NewTicker(d / 2)
		defer t.Stop()
		alive = t.C
	}
	for {
		select {
		case <-ctx.Done():
			return w.Supervisor.Send("STOPPING=1")
		case device, ok := <-w.Links:
			if !ok {
				return errors.New("watch: the kernel's events have ended")
			}
			w.touch(device)
		case name := <-w.Files:
			switch name {
			case filepath.Base(LatencyFile):
				w.latency()
			case reportFile:
				w.touch("")
			}
		case <-due.C:
			w.look(ctx, w.ripe())
		case <-full.C:
			w.look(ctx, []string{""})
			w.report(ctx)
		case <-alive:
			if err := w.Supervisor.Send("WATCHDOG=1"); err != nil {
				return err
			}
		}
		w.tell()
		if next, ok := w.next(); ok {
			due.Reset(time.Until(next))
		}
	}
}

// touch notes that something of the device may have changed.
func (w *Watcher) touch(device string) {
	now := time.Now()
	p, ok := w.pending[device]
	if !ok {
		p[0] = now
	}
	p[1] = now
	w.pending[device] = p
}

// deadline is when a device has settled.
func deadline(p [2]time.Time) time.Time {
	quiet, latest := p[1].Add(settle), p[0].Add(settleMax)
	if latest.Before(quiet) {
		return latest
	}
	return quiet
}

// next is when the first device will have settled.
func (w *Watcher) next() (at time.Time, ok bool) {
	for _, p := range w.pending {
		if d := deadline(p); !ok || d.Before(at) {
			at, ok = d, true
		}
	}
	return at, ok
}

// ripe takes the devices that have settled.
func (w *Watcher) ripe() []string {
	var devices []string
	for device, p := range w.pending {
		if !time.Now().Before(deadline(p)) {
			devices = append(devices, device)
			delete(w.pending, device)
		}
	}
	slices.Sort(devices)
	return devices
}

// look compares devices, and sets what differs.
func (w *Watcher) look(ctx context.Context, devices []string) {
	if len(devices) == 0 {
		return
	}
	if devices[0] == "" {
		devices = nil
		clear(w.pending)
	} else if devices = slices.DeleteFunc(devices, w.gone); len(devices) == 0 {
		return
	}
	r, err := w.Engine.InForce()
	var not NotInForce
	if errors.As(err, &not) {
		w.state.Idle = string(not)
		clear(w.watched)
		w.forget()
		return
	}
	if err != nil {
		w.Log.Error("nothing is watched", "err", err)
		w.state.Idle = err.Error()
		return
	}
	if w.state.Idle = ""; !r.Started.Equal(w.applied) {
		// A new apply means it: no value is given up on yet.
		w.forget()
		w.applied = r.Started
	}
	sets, src, err := w.Wanted(ctx, r, devices)
	if err != nil {
		w.Log.Warn("the profile in force cannot be evaluated any more", "profile", r.Profile, "err", err)
		w.state.Idle = err.Error()
		return
	}
	if devices == nil {
		clear(w.watched)
		// Devices come and go for ever, as pods do.
		maps.DeleteFunc(w.keys, func(_ string, k *healed) bool {
			return k.gaveUp == nil && (len(k.at) == 0 || time.Since(k.at[len(k.at)-1]) > healWindow)
		})
	}
	for _, device := range devices {
		delete(w.watched, device)
	}
	changes, err := w.Engine.Compare(ctx, sets)
	if err != nil {
		if ctx.Err() == nil {
			w.Log.Error("devices cannot be compared with the profile", "err", err)
		}
		return
	}
	for _, device := range slices.Sorted(maps.Keys(sets)) {
		if ctx.Err() != nil {
			return
		}
		w.watched[device] = len(sets[device])
		err := w.heal(ctx, r, device, sets[device], changes[device], src)
		switch {
		case errors.Is(err, ErrOvertaken):
			w.touch(device)
		case errors.Is(err, fs.ErrNotExist): // it went meanwhile
		case err != nil && ctx.Err() == nil:
			w.Log.Warn("device not as the profile has it", "device", device, "err", err)
		}
	}
}

// gone tells a device that is not there any more: most of the events of a node are of
// pods that end, and are not worth an evaluation of the profile.
func (w *Watcher) gone(device string) bool {
	_, err := w.Index(device)
	gone := errors.Is(err, fs.ErrNotExist)
	if gone {
		delete(w.watched, device)
	}
	return gone
}

// forget begins anew to count.
func (w *Watcher) forget() {
	clear(w.keys)
	w.drift = nil
}

// heal sets what differs of one device.
func (w *Watcher) heal(ctx context.Context, r *Report, device string, ws []Wanted, changes []Change, src profile.Source) error {
	differs := 0
	index := -1
	leave := make(map[string]bool)
	for _, c := range changes {
		var bad *wantError
		if errors.As(c.Err, &bad) && c.Action != Tolerated {
			return fmt.Errorf("%s: %w", c.Key, bad)
		}
		k := w.keys[c.Key]
		if !c.due() {
			if k != nil && k.gaveUp != nil && time.Since(k.gaveUp.Since) > healWindow {
				w.Log.Info("the value is as the profile has it again", "key", c.Key)
				delete(w.keys, c.Key)
			}
			continue
		}
		if index < 0 {
			var err error
			if index, err = w.Index(device); err != nil {
				return err
			}
		}
		if k == nil || k.device != index {
			k = &healed{device: index}
			w.keys[c.Key] = k
		}
		k.at = slices.DeleteFunc(k.at, func(t time.Time) bool { return time.Since(t) > healWindow })
		switch {
		case k.gaveUp != nil:
			k.gaveUp.Live, k.gaveUp.Want = c.Live, c.Want
		case len(k.at) >= healLimit:
			k.gaveUp = &GaveUp{Key: c.Key, Heals: len(k.at), Since: w.Engine.now(), Live: c.Live, Want: c.Want}
			w.Log.Warn("drift: the value is left as it is: something else keeps setting it (find it and stop it, or take the setting out of the profile; then apply again)",
				"key", c.Key, "live", c.Live.String(), "want", c.Want.String(), "heals", len(k.at))
		default:
			differs++
			continue
		}
		leave[c.Key] = true
	}
	if differs == 0 {
		return nil
	}
	ws = slices.Clone(ws)
	for i := range ws {
		if leave[ws[i].Key()] {
			// Still asked for, or it would be put back to what it was before nodeprov.
			ws[i].Want = func(live Value) (Value, error) { return live, nil }
		}
	}
	report, diags, err := w.Engine.Apply(ctx, ws, ApplyOptions{
		Phase: PhaseNIC(device), Source: src, FailOpen: true, Degraded: r.Degraded,
		Guard: w.Engine.StillInForce(r),
	})
	if diags.HasErrors() {
		err = errors.Join(diags, err)
	}
	if report == nil {
		return err
	}
	for _, os := range [][]Outcome{report.Applied, report.Failed} {
		for _, o := range os {
			if k := w.keys[o.Key]; k != nil {
				// A failure counts too, or its own events would repeat it for ever.
				k.at = append(k.at, time.Now())
			}
			if o.Error == "" {
				w.Log.Info("set again", "key", o.Key, "was", o.Before.String(), "now", o.Live.String())
			} else {
				w.Log.Warn("not set again", "key", o.Key, "live", o.Live.String(), "want", o.Want.String(), "err", o.Error)
			}
		}
	}
	return err
}

// report tells of applied values that differ, once each.
func (w *Watcher) report(ctx context.Context) {
	if w.state.Idle != "" {
		return
	}
	// Units are asked for over a connection that is of no use until the next time.
	defer w.Engine.Host.Close()
	s, err := w.Engine.Status(ctx)
	if err != nil {
		if ctx.Err() == nil {
			w.Log.Warn("drift cannot be told", "err", err)
		}
		return
	}
	now := make(map[string]bool)
	for _, d := range s.Drift {
		now[d.Key] = true
		if k := w.keys[d.Key]; w.drift[d.Key] || k != nil && k.gaveUp != nil {
			continue
		}
		if d.Error != "" {
			w.Log.Warn("drift: the value cannot be told", "key", d.Key, "err", d.Error)
			continue
		}
		w.Log.Warn("drift: something else has set the value (nodeprov apply sets it again)", "key", d.Key, "live", d.Live.String(), "applied", d.Applied.String())
	}
	for key := range w.drift {
		if !now[key] {
			w.Log.Info("no drift any more", "key", key)
		}
	}
	w.drift = now
}

// latency makes the PM-QoS request be what LatencyFile says.
func (w *Watcher) latency() {
	text, err := os.ReadFile(filepath.Join(w.Dir, filepath.Base(LatencyFile)))
	if errors.Is(err, fs.ErrNotExist) {
		if w.held != nil {
			if err := errors.Join(w.held.Close(), w.Supervisor.Forget(heldLatency)); err != nil {
				w.Log.Error("wake-up latency: let go", "err", err)
			}
			w.held = nil
		}
		w.state.Latency = ""
		return
	}
	us, cerr := strconv.Atoi(strings.TrimSpace(string(text)))
	if err == nil {
		err = cerr
	}
	if err == nil && w.held != nil {
		err = w.Adjust(w.held, us)
	} else if err == nil {
		if w.held, err = w.Hold(us); err == nil {
			err = w.Supervisor.Store(heldLatency, w.held)
		}
	}
	if err != nil {
		w.state.Latency = ""
		w.Log.Error("wake-up latency: the limit is not as the profile has it", "err", err)
		return
	}
	w.state.Latency = strconv.Itoa(us)
}

// tell writes WatchFile and the status, if they are not as they were.
func (w *Watcher) tell() {
	w.state.GaveUp = w.state.GaveUp[:0]
	for _, key := range slices.Sorted(maps.Keys(w.keys)) {
		if g := w.keys[key].gaveUp; g != nil {
			w.state.GaveUp = append(w.state.GaveUp, *g)
		}
	}
	b, err := json.MarshalIndent(w.state, "", "  ")
	if text := string(b) + "\n"; err == nil && text != w.wrote {
		path := filepath.Join(w.Dir, filepath.Base(WatchFile))
		if err = renameio.WriteFile(path, []byte(text), 0o644); err == nil {
			w.wrote = text
		}
	}
	if err != nil {
		w.Log.Error("state of the watch", "err", err)
	}

	if text := w.statusText(); text != w.status {
		if err := w.Supervisor.Send("STATUS=" + text); err != nil {
			w.Log.Error("status", "err", err)
		}
		w.status = text
	}
}

// statusText is the status on one line, for systemctl status.
func (w *Watcher) statusText() string {
	var parts []string
	if w.state.Idle != "" {
		parts = append(parts, "Idle: "+strings.ReplaceAll(w.state.Idle, "\n", " "))
	} else {
		n := 0
		for _, settings := range w.watched {
			n += settings
		}
		parts = append(parts, fmt.Sprintf("Watching %s of %s", count(n, "setting"), count(len(w.watched), "device")))
	}
	if n := len(w.state.GaveUp); n > 0 {
		parts = append(parts, fmt.Sprintf("gave up on %s", count(n, "setting")))
	}
	if n := len(w.drift); n > 0 {
		parts = append(parts, fmt.Sprintf("%s drifted", count(n, "setting")))
	}
	if w.state.Latency != "" {
		parts = append(parts, fmt.Sprintf("wake-up latency held at %s us", w.state.Latency))
	}
	return strings.Join(parts, "; ")
}

// count is a number of things in words.
func count(n int, thing string) string {
	if n == 1 {
		return "1 " + thing
	}
	return fmt.Sprintf("%d %ss", n, thing)
}
