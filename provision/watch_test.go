package provision

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/nodeprov/nodeprov/provision/host"
	"github.com/nodeprov/nodeprov/provision/profile"
)

// watch is a Watcher at work on a fake machine, in a bubble of time.
type watch struct {
	t     *testing.T
	m     *memory
	e     *Engine
	links chan string
	files chan string
	dir   string
	log   strings.Builder
	// asked is what the profile in force asks for, by device.
	asked map[string][]string
	// index is the devices' number, negative for none; looked counts evaluations.
	index, looked int
	// onLook is called in each evaluation.
	onLook func()
	stop   func()
	// held are the requests' files: what was written to each.
	held []*os.File
	run  *Watcher
}

// newWatch applies eth0's MTU and one other value, and begins to watch.
func newWatch(t *testing.T) *watch {
	m := newMemory("nic/eth0/mtu", "1500", "nic/eth0/rings", "256", "sysctl/a", "1")
	e := newEngine(t, m)
	e.Now = nil // the bubble's
	w := &watch{
		t: t, m: m, e: e, links: make(chan string), files: make(chan string), dir: t.TempDir(),
		asked: map[string][]string{"eth0": {"nic/eth0/mtu", "9000", "nic/eth0/rings", "4096"}},
	}
	w.apply()
	w.start()
	return w
}

func (w *watch) apply() {
	mustApply(w.t, w.e, wants(w.m, append([]string{"sysctl/a", "2"}, w.asked["eth0"]...)...))
}

func (w *watch) start() {
	log := slog.NewTextHandler(&w.log, &slog.HandlerOptions{ReplaceAttr: func(_ []string, a slog.Attr) slog.Attr {
		if a.Key == slog.TimeKey {
			return slog.Attr{}
		}
		return a
	}})
	run := &Watcher{
		Engine: w.e, Links: w.links, Files: w.files, Dir: w.dir, Log: slog.New(log),
		Index: func(string) (int, error) {
			if w.index < 0 {
				return 0, fmt.Errorf("link: %w", fs.ErrNotExist)
			}
			return w.index, nil
		},
		Wanted: func(_ context.Context, _ *Report, devices []string) (map[string][]Wanted, profile.Source, error) {
			w.looked++
			if w.onLook != nil {
				w.onLook()
			}
			if devices == nil {
				devices = []string{"eth0"}
			}
			sets := make(map[string][]Wanted)
			for _, d := range devices {
				if kv := w.asked[d]; kv != nil {
					sets[d] = wants(w.m, kv...)
				}
			}
			return sets, profile.Source{Name: "p.hcl"}, nil
		},
		Hold: func(us int) (*os.File, error) {
			f, err := os.CreateTemp(w.t.TempDir(), "latency")
			if err != nil {
				return nil, err
			}
			w.held = append(w.held, f)
			return f, adjust(f, us)
		},
		Adjust: adjust,
	}
	w.run = run
	ctx, cancel := context.WithCancel(w.t.Context())
	done := make(chan error, 1)
	go func() { done <- run.Run(ctx) }()
	w.stop = func() {
		cancel()
		if err := <-done; err != nil {
			w.t.Error(err)
		}
	}
	w.settled()
}

func adjust(f *os.File, us int) error {
	_, err := fmt.Fprintf(f, "%d ", us)
	return err
}

// settled waits until the devices' events have been dealt with.
func (w *watch) settled() { w.sleep(2 * settleMax) }

// sleep lets the watch be alone for a time.
func (w *watch) sleep(d time.Duration) {
	// It ignores this one. The detector of races needs it, to see that what the test did
	// comes before what the watch does then.
	w.files <- "other"
	time.Sleep(d)
	synctest.Wait()
}

// event tells of a device, and waits.
func (w *watch) event(device string) {
	w.links <- device
	w.settled()
}

// has compares a value of the machine.
func (w *watch) has(key, want string) {
	w.t.Helper()
	if got := w.m.peek(key); got != want {
		w.t.Errorf("%s is %q, want %q\n%s", key, got, want, &w.log)
	}
}

// state is the WatchFile's.
func (w *watch) state() string {
	w.t.Helper()
	b, err := os.ReadFile(filepath.Join(w.dir, "watch.json"))
	if err != nil {
		w.t.Fatal(err)
	}
	return string(b)
}

// logged returns and empties the log.
func (w *watch) logged() string {
	defer w.log.Reset()
	return w.log.String()
}

// Pods' devices come and go for ever: those that went cost no evaluation, and nothing is
// kept of them.
func TestWatchGone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWatch(t)
		defer w.stop()
		w.m.put("nic/eth0/mtu", "1500")
		w.event("eth0")
		w.has("nic/eth0/mtu", "9000")
		if len(w.run.keys) != 1 || len(w.run.watched) != 1 {
			t.Errorf("healed %v, watched %v", w.run.keys, w.run.watched)
		}
		w.index = -1
		looked := w.looked
		w.event("eth0")
		if w.looked != looked || len(w.run.watched) != 0 {
			t.Errorf("%d evaluations, watched %v", w.looked-looked, w.run.watched)
		}
		w.sleep(healWindow + fullRead)
		if len(w.run.keys) != 0 {
			t.Errorf("remembered: %v", w.run.keys)
		}
	})
}

func TestWatchHeals(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWatch(t)
		defer w.stop()
		w.looked = 0

		// A reset: both values, by one evaluation for all of its events.
		w.m.put("nic/eth0/mtu", "1500")
		w.m.put("nic/eth0/rings", "256")
		begin := time.Now()
		for range 12 {
			w.links <- "eth0"
			time.Sleep(settle / 2)
		}
		for w.m.peek("nic/eth0/mtu") != "9000" {
			time.Sleep(time.Millisecond)
			synctest.Wait()
		}
		if took := time.Since(begin); took > time.Second {
			t.Errorf("healed after %s", took)
		}
		w.settled()
		w.has("nic/eth0/rings", "4096")
		// Twelve events within 300 ms: after 250 ms of them, and after the last.
		if w.looked > 2 {
			t.Errorf("%d evaluations", w.looked)
		}
		sameText(t, `
level=INFO msg="set again" key=nic/eth0/mtu was=1500 now=9000
level=INFO msg="set again" key=nic/eth0/rings was=256 now=4096`, w.logged())

		// What is right is not written, and an unknown device is none of ours.
		writes := w.m.writes
		w.event("eth0")
		w.event("veth7")
		if w.m.writes != writes || w.logged() != "" {
			t.Error("written without need")
		}
		// Events were lost: any device.
		w.m.put("nic/eth0/mtu", "1500")
		w.event("")
		w.has("nic/eth0/mtu", "9000")
	})
}

// A value that something else keeps setting is set five times, then reported.
func TestWatchGivesUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWatch(t)
		defer w.stop()
		fight := func() (rounds int) {
			for range 20 {
				w.m.put("nic/eth0/mtu", "1400")
				w.event("eth0")
				if w.m.peek("nic/eth0/mtu") != "9000" {
					return rounds
				}
				rounds++
			}
			return rounds
		}
		if got := fight(); got != healLimit {
			t.Errorf("set %d times", got)
		}
		if log := w.logged(); strings.Count(log, "level=WARN") != 1 || !strings.Contains(log, "drift: the value is left as it is") {
			t.Error(log)
		}
		sameText(t, `{
  "format": 1,
  "gave_up": [
    {
      "key": "nic/eth0/mtu",
      "heals": 5,
      "since": "2000-01-01T00:00:03.05Z",
      "live": {
        "text": "1400"
      },
      "want": {
        "text": "9000"
      }
    }
  ],
  "latency": ""
}`, w.state())

		// The device's other values are still kept; the one that is left alone is
		// still asked for: it is not put back to what it was before nodeprov.
		w.m.put("nic/eth0/rings", "256")
		w.event("eth0")
		w.has("nic/eth0/rings", "4096")
		w.has("nic/eth0/mtu", "1400")

		// Plugged in again, it is another device.
		w.index++
		if got := fight(); got != healLimit {
			t.Errorf("after plugging in: set %d times", got)
		}
		// A new apply means it.
		w.apply()
		if got := fight(); got != healLimit {
			t.Errorf("after an apply: set %d times", got)
		}
		// Slowly, it may go on for ever.
		w.apply()
		for range 3 * healLimit {
			w.sleep(healWindow / (healLimit - 1))
			w.m.put("nic/eth0/mtu", "1400")
			w.event("eth0")
			w.has("nic/eth0/mtu", "9000")
		}
		// The other side has given up: so the count begins anew.
		if got := fight(); got > healLimit {
			t.Errorf("set %d times", got)
		}
		w.m.put("nic/eth0/mtu", "9000")
		w.sleep(healWindow + 2*fullRead)
		synctest.Wait()
		if s := w.state(); !strings.Contains(s, `"gave_up": []`) {
			t.Error(s)
		}
	})
}

// What the machine refuses is not tried for ever either.
func TestWatchFailure(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWatch(t)
		defer w.stop()
		w.m.limit["nic/eth0/mtu"] = 2000
		w.m.put("nic/eth0/mtu", "1500")
		writes := w.m.writes
		for range 20 {
			w.event("eth0")
		}
		if got := w.m.writes - writes; got != healLimit {
			t.Errorf("%d writes", got)
		}
		if log := w.logged(); strings.Count(log, `msg="not set again" key=nic/eth0/mtu live=2000 want=9000`) != healLimit {
			t.Error(log)
		}
	})
}

// A rollback is not undone, also one that comes while a device is compared.
func TestWatchRolledBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWatch(t)
		defer w.stop()
		w.m.put("nic/eth0/mtu", "1400")
		w.onLook = func() {
			w.onLook = nil
			mustRollback(t, w.e, 0)
		}
		w.event("eth0")
		w.has("nic/eth0/mtu", "1500")
		if s := w.state(); !strings.Contains(s, `"idle": "the profile was rolled back"`) {
			t.Error(s)
		}
		w.event("eth0")
		w.has("nic/eth0/mtu", "1500")
		// Until it is applied again: the report tells, without any device's event.
		w.apply()
		w.files <- "report.json"
		w.settled()
		if s := w.state(); strings.Contains(s, "idle") {
			t.Error(s)
		}
		w.m.put("nic/eth0/mtu", "1400")
		w.event("eth0")
		w.has("nic/eth0/mtu", "9000")
	})
}

// Other values are reported once and left alone.
func TestWatchDrift(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWatch(t)
		defer w.stop()
		w.m.put("sysctl/a", "7")
		w.m.put("nic/eth0/rings", "256") // the kernel tells nobody
		w.sleep(2*fullRead + time.Second)
		w.has("sysctl/a", "7")
		w.has("nic/eth0/rings", "4096")
		w.m.put("sysctl/a", "2")
		w.sleep(fullRead)
		sameText(t, `
level=INFO msg="set again" key=nic/eth0/rings was=256 now=4096
level=WARN msg="drift: something else has set the value (nodeprov apply sets it again)" key=sysctl/a live=7 applied=2
level=INFO msg="no drift any more" key=sysctl/a`, w.logged())
	})
}

func TestWatchLatency(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWatch(t)
		file := filepath.Join(w.dir, "cpu-latency")
		set := func(text string) {
			t.Helper()
			err := os.WriteFile(file, []byte(text), 0o644)
			if text == "" {
				err = os.Remove(file)
			}
			if err != nil {
				t.Fatal(err)
			}
			w.files <- "cpu-latency"
			synctest.Wait()
		}
		holds := func(want string) {
			t.Helper()
			var got []string
			for _, f := range w.held {
				b, err := os.ReadFile(f.Name())
				if err != nil {
					t.Fatal(err)
				}
				if _, err := f.Stat(); errors.Is(err, os.ErrClosed) {
					b = append(b, "closed"...)
				}
				got = append(got, string(b))
			}
			if d := cmp.Diff(want, strings.Join(got, "|")); d != "" {
				t.Error(d)
			}
		}
		set("10\n")
		set("20\n")
		holds("10 20 ")
		if s := w.state(); !strings.Contains(s, `"latency": "20"`) {
			t.Error(s)
		}
		set("nonsense")
		if log := w.logged(); !strings.Contains(log, "level=ERROR") {
			t.Error(log)
		}
		set("")
		holds("10 20 closed")
		set("0\n")
		holds("10 20 closed|0 ")
		w.stop()
		// Still open: the manager has a copy, but none here.
		holds("10 20 closed|0 ")
		if _, err := os.Stat(filepath.Join(w.dir, "watch.json")); !errors.Is(err, os.ErrNotExist) {
			t.Error("the state outlives the watch")
		}
	})
}

func TestInForce(t *testing.T) {
	m := newMemory("sysctl/a", "1")
	e := newEngine(t, m)
	is := func(want string) {
		t.Helper()
		r, err := e.InForce()
		got := ""
		if err != nil {
			got = err.Error()
		} else if r == nil {
			got = "no report"
		}
		if got != want {
			t.Errorf("%q, want %q", got, want)
		}
	}
	is(string(NothingApplied))
	before := e.StillInForce(nil)
	mustApply(t, e, wants(m, "sysctl/a", "2"))
	is("")
	if err := before(); !errors.Is(err, ErrOvertaken) {
		t.Error(err)
	}
	r, err := e.InForce()
	if err != nil {
		t.Fatal(err)
	}
	still := e.StillInForce(r)
	if err := still(); err != nil {
		t.Error(err)
	}
	mustApply(t, e, wants(m, "sysctl/a", "2"))
	if err := still(); !errors.Is(err, ErrOvertaken) {
		t.Error(err)
	}
	mustRollback(t, e, 0)
	is("the profile was rolled back")
	mustApply(t, e, wants(m, "sysctl/a", "2"))
	e.Boot = "boot-2"
	is(string(NothingApplied))
	if err := e.Refused(NoProfile, PhaseAll, "p.hcl", ""); err != nil {
		t.Fatal(err)
	}
	is(string(NothingApplied))
	if err := e.Refused(Invalid, PhaseAll, "p.hcl", "why"); err != nil {
		t.Fatal(err)
	}
	is(`the last apply ended as "invalid"`)
}

func TestReadWatchState(t *testing.T) {
	h, root, _ := treeHost(t, map[string]string{"run/nodeprov/watch.json": `{"format": 1, "gave_up": [{"key": "nic/eth0/mtu", "heals": 5, "live": {"text": "1"}}], "latency": "3"}`})
	s, err := ReadWatchState(h)
	if err != nil {
		t.Fatal(err)
	}
	want := &WatchState{Format: 1, GaveUp: []GaveUp{{Key: "nic/eth0/mtu", Heals: 5, Live: Value{Text: "1"}}}, Latency: "3"}
	if d := cmp.Diff(want, s); d != "" {
		t.Error(d)
	}
	if err := os.WriteFile(filepath.Join(root, "run/nodeprov/watch.json"), []byte("{"), 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err := ReadWatchState(h); err == nil {
		t.Error("half a file was read")
	}
	h, err = host.New(host.Options{Root: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	if s, err := ReadWatchState(h); s != nil || err != nil {
		t.Error(s, err)
	}
}
