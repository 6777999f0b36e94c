// Package lbd is the load balancer daemon: it takes Services and EndpointSlices
// from a Source and keeps the datapath's table of services as they say.
//
// The datapath outlives the daemon. Nothing is detached when it ends, and what an
// earlier life left in the pins serves from the first moment of the next.
package lbd

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net/netip"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/coreos/go-systemd/v22/daemon"
	"golang.org/x/sync/errgroup"
	"k8s.io/apimachinery/pkg/types"

	"github.com/nodeprov/nodeprov/bpf"
	"github.com/nodeprov/nodeprov/lbd/config"
)

const (
	// A change waits for others for as long as they keep coming, each within
	// coalesceQuiet, but never longer than coalesceMost: a Service and its slices
	// come together.
	coalesceQuiet = time.Millisecond
	coalesceMost  = 10 * time.Millisecond

	// A refused service is tried again after this long, then after twice as long.
	retryFirst = time.Second
	retryMost  = 5 * time.Minute
)

// Datapath is what the daemon needs of bpf.Datapath.
type Datapath interface {
	Services() ([]bpf.Service, error)
	Apply(bpf.Batch) error
	Hooks() ([]bpf.Hook, error)
	Usage() ([]bpf.MapUsage, error)
	Counters() (map[string]uint64, error)
}

// Options are what a daemon runs with.
type Options struct {
	Config config.Config
	// Version is told in the status and to the API.
	Version string
	// Log is where the few things go that are worth a line; nil drops them.
	Log *slog.Logger
	// Notify sends a state to the service manager as sd_notify(3) has it; nil
	// stands for no manager.
	Notify func(state string) error
	// Watchdog is the time within which the manager wants to hear from the
	// daemon; 0 means that it does not.
	Watchdog time.Duration
}

// SystemdNotify returns the Notify and Watchdog that the environment asks for.
func SystemdNotify() (func(state string) error, time.Duration, error) {
	interval, err := daemon.SdWatchdogEnabled(false)
	if err != nil {
		return nil, 0, fmt.Errorf("watchdog: %w", err)
	}
	return func(state string) error {
		_, err := daemon.SdNotify(false, state)
		return err
	}, interval, nil
}

// Run is the daemon. It returns nil when ctx is done, and an error where going on
// makes no sense: no permission, another daemon, a datapath that refuses to be
// written as a whole. Then a new life starts from the pins.
func Run(ctx context.Context, o Options) (err error) {
	o = o.complete()
	c := &o.Config
	if c.NodeName == "" {
		name, err := os.Hostname()
		if err != nil {
			return fmt.Errorf("node name: %w (set node_name)", err)
		}
		c.NodeName = strings.ToLower(name)
	}
	if c.Cgroup == "" {
		if c.Cgroup, err = bpf.FindCgroup(); err != nil {
			return err
		}
	}
	dp, err := bpf.Open(bpf.Options{BPFFS: c.BPFFS, Cgroup: c.Cgroup})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, dp.Close()) }()
	sock, err := listen(c.RunDir)
	if err != nil {
		return err
	}
	defer sock.Close()
	if err := dp.Attach(); err != nil {
		return err
	}
	d, err := newDaemon(dp, o.source(), o)
	if err != nil {
		return err
	}
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return d.source.Run(ctx, d.store) })
	g.Go(func() error { return sock.serve(ctx, d.ask) })
	g.Go(func() error { return d.loop(ctx) })
	return g.Wait()
}

func (o Options) complete() Options {
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	if o.Notify == nil {
		o.Notify = func(string) error { return nil }
	}
	return o
}

func (o Options) source() Source {
	if o.Config.Manifests != "" {
		return NewFiles(o.Config.Manifests, o.Log)
	}
	return NewAPI(cmp.Or(o.Config.Kubeconfig, config.K3sKubeconfig), "lbd/"+cmp.Or(o.Version, "unknown"), o.Log)
}

// instance is the state of one life. All of it belongs to the loop.
type instance struct {
	o        Options
	dp       Datapath
	source   Source
	store    *Store
	requests chan chan<- Status
	started  time.Time

	// applied is what the datapath holds.
	applied map[bpf.Key]bpf.Service
	// owned are the keys that a service of the store had when it was looked at.
	owned map[types.NamespacedName][]bpf.Key
	// synced tells that what the store does not hold has been deleted.
	synced   bool
	refused  map[bpf.Key]*refusal
	problems map[types.NamespacedName][]Problem

	hooks    []bpf.Hook
	hooksErr error
	line     string // the last STATUS
	inStep   bool   // the last state of the source
}

// refusal is a service that the datapath did not take, or did not give up.
type refusal struct {
	name  types.NamespacedName
	want  bpf.Service // the zero Service where it is to be deleted
	err   error
	wait  time.Duration
	after time.Time // of the next try
}

func newDaemon(dp Datapath, source Source, o Options) (*instance, error) {
	d := &instance{
		o:        o.complete(),
		dp:       dp,
		source:   source,
		store:    NewStore(),
		requests: make(chan chan<- Status),
		started:  time.Now(),
		applied:  map[bpf.Key]bpf.Service{},
		owned:    map[types.NamespacedName][]bpf.Key{},
		refused:  map[bpf.Key]*refusal{},
		problems: map[types.NamespacedName][]Problem{},
	}
	services, err := dp.Services()
	if err != nil {
		return nil, fmt.Errorf("services in the pins: %w", err)
	}
	for _, s := range services {
		order(&s)
		d.applied[s.Key] = s
	}
	return d, nil
}

// loop does all the work, one thing at a time, until ctx is done. The watchdog is
// fed from here alone, so that a loop that hangs is noticed.
func (d *instance) loop(ctx context.Context) error {
	var feed <-chan time.Time
	if d.o.Watchdog > 0 {
		t := time.NewTicker(d.o.Watchdog / 2)
		defer t.Stop()
		feed = t.C
	}
	retry := time.NewTimer(0)
	retry.Stop()
	defer retry.Stop()

	d.look()
	d.notify("READY=1")
	d.tell()
	d.o.Log.Info("ready", "hooks", d.hookCount(), "services", len(d.applied), "source", d.source.String())
	for {
		var again bool
		select {
		case <-ctx.Done():
			d.notify("STOPPING=1")
			return nil
		case <-feed:
			d.notify("WATCHDOG=1")
			d.look()
		case reply := <-d.requests:
			d.look()
			st := d.status()
			var err error
			if st.Maps, err = d.dp.Usage(); err != nil {
				st.Problems = append(st.Problems, Problem{Object: "maps", Text: err.Error()})
			}
			if st.Counters, err = d.dp.Counters(); err != nil {
				st.Problems = append(st.Problems, Problem{Object: "counters", Text: err.Error()})
			}
			reply <- st
		case <-d.store.Changed():
			d.settle(ctx)
			again = true
		case <-retry.C:
			again = true
		}
		if again {
			if err := d.update(); err != nil {
				return err
			}
			if next, ok := d.nextRetry(); ok {
				retry.Reset(time.Until(next))
			} else {
				retry.Stop()
			}
		}
		d.tell()
	}
}

// settle returns when changes have stopped coming.
func (d *instance) settle(ctx context.Context) {
	most, quiet := time.NewTimer(coalesceMost), time.NewTimer(coalesceQuiet)
	defer most.Stop()
	defer quiet.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-most.C:
			return
		case <-quiet.C:
			return
		case <-d.store.Changed():
			quiet.Reset(coalesceQuiet)
		}
	}
}

// update brings the datapath to what the store holds. Before the store is synced,
// it only adds: what is missing may just not have been read yet.
func (d *instance) update() error {
	names, synced := d.store.Take()
	now := time.Now()
	full := synced && !d.synced
	if full {
		names = append(names, d.store.Names()...)
	}
	var b bpf.Batch
	owner := map[bpf.Key]types.NamespacedName{}
	gone := map[bpf.Key]bool{}
	for k, r := range d.refused {
		switch {
		case now.Before(r.after):
		case r.deletion():
			gone[k] = true
		default:
			names = append(names, r.name)
		}
	}
	slices.SortFunc(names, compareName)
	names = slices.Compact(names)

	for _, name := range names {
		wanted := d.wanted(name, synced)
		keys := make([]bpf.Key, len(wanted))
		for i, s := range wanted {
			keys[i] = s.Key
			owner[s.Key] = name
			if have, ok := d.applied[s.Key]; ok && equal(have, s) {
				delete(d.refused, s.Key)
				continue
			}
			if r := d.refused[s.Key]; r != nil && equal(r.want, s) && now.Before(r.after) {
				continue
			}
			b.Set = append(b.Set, s)
		}
		for _, k := range d.owned[name] {
			if slices.Contains(keys, k) {
				continue
			}
			delete(d.refused, k)
			if _, ok := d.applied[k]; ok && synced {
				gone[k] = true
			}
		}
		if len(keys) > 0 {
			d.owned[name] = keys
		} else if synced {
			delete(d.owned, name)
		}
	}
	if full {
		// All services have been looked at: what is none's is gone.
		for k := range d.applied {
			gone[k] = true
		}
		d.synced = true
	}
	for k := range gone {
		if _, ok := owner[k]; !ok {
			b.Delete = append(b.Delete, k)
		}
	}
	slices.SortFunc(b.Delete, compareKey)
	if full {
		d.o.Log.Info("first sync", "changed", len(b.Set), "gone", len(b.Delete))
	}
	if err := d.apply(b, owner, now); err != nil {
		return err
	}
	if len(b.Delete) > 0 && len(d.refused) > 0 {
		// There is room now, or in a moment: what was deleted is collected when no
		// program can see it any more.
		b = bpf.Batch{}
		for k, r := range d.refused {
			if !r.deletion() {
				r.wait = retryFirst / 2 // so that the next try, if it is refused again, is after retryFirst
				owner[k] = r.name
				b.Set = append(b.Set, r.want)
			}
		}
		slices.SortFunc(b.Set, func(a, b bpf.Service) int { return compareKey(a.Key, b.Key) })
		return d.apply(b, owner, now)
	}
	return nil
}

// wanted returns what the datapath shall hold of a service, by the names that it
// uses.
func (d *instance) wanted(name types.NamespacedName, synced bool) []bpf.Service {
	services, problems := Services(d.store.Service(name))
	for i := range services {
		s := &services[i]
		s.Key = s.Short()
		for _, f := range s.Frontends {
			if !slices.ContainsFunc(d.o.Config.ServiceCIDRs, func(p netip.Prefix) bool { return p.Contains(f.Addr.Addr()) }) {
				p := Problem{Object: "Service " + name.String(), Text: fmt.Sprintf("clusterIP %s is outside of service_cidrs (it is served; set service_cidrs to the cluster's)", f.Addr.Addr())}
				if !slices.Contains(problems, p) {
					problems = append(problems, p)
				}
			}
		}
		have, ok := d.applied[s.Key]
		if ok && !synced {
			// Slices come one by one, and a service that an earlier life left in
			// the pins has all of them.
			s.Frontends = union(have.Frontends, s.Frontends, compareFrontend)
			s.Backends = union(have.Backends, s.Backends, compareBackend)
		}
		if ok && name == apiService && len(s.Backends) == 0 && len(have.Backends) > 0 {
			// Pods reach the API through it, also those that would mend it.
			s.Backends = have.Backends
			problems = append(problems, Problem{Object: "Service " + name.String(), Text: "no endpoint is left; the last ones are kept, since the API is never cut off"})
		}
	}
	if !synced {
		// No endpoint yet is not the same as none.
		services = slices.DeleteFunc(services, func(s bpf.Service) bool {
			_, ok := d.applied[s.Key]
			return !ok && len(s.Backends) == 0
		})
	}
	if len(problems) == 0 {
		delete(d.problems, name)
	} else {
		if !slices.Equal(problems, d.problems[name]) {
			for _, p := range problems {
				d.o.Log.Warn(p.Text, "object", p.Object)
			}
		}
		d.problems[name] = problems
	}
	return services
}

var apiService = types.NamespacedName{Namespace: "default", Name: "kubernetes"}

// apply writes a batch, and keeps account of what was taken.
func (d *instance) apply(b bpf.Batch, owner map[bpf.Key]types.NamespacedName, now time.Time) error {
	if len(b.Set) == 0 && len(b.Delete) == 0 {
		return nil
	}
	refused, fatal := refusals(d.dp.Apply(b))
	if fatal != nil {
		return fmt.Errorf("datapath: %w", fatal)
	}
	for _, k := range b.Delete {
		if err, ok := refused[k]; ok {
			d.refuse(k, refusal{err: err}, now)
			continue
		}
		delete(d.applied, k)
		delete(d.refused, k)
	}
	for _, s := range b.Set {
		if err, ok := refused[s.Key]; ok {
			d.refuse(s.Key, refusal{name: owner[s.Key], want: s, err: err}, now)
			continue
		}
		d.applied[s.Key] = s
		delete(d.refused, s.Key)
	}
	if d.o.Log.Enabled(context.Background(), slog.LevelDebug) {
		d.o.Log.Debug("applied", "set", len(b.Set), "deleted", len(b.Delete), "refused", len(refused), "took", time.Since(now))
	}
	return nil
}

// refuse keeps r, to be tried again; the time doubles while nothing else changes.
func (d *instance) refuse(k bpf.Key, r refusal, now time.Time) {
	if old := d.refused[k]; old != nil && equal(old.want, r.want) {
		r.wait = min(2*old.wait, retryMost)
	} else {
		d.o.Log.Error("refused", "service", k.String(), "err", r.err)
		r.wait = retryFirst
	}
	r.after = now.Add(r.wait)
	d.refused[k] = &r
}

func (r *refusal) deletion() bool { return len(r.want.Frontends) == 0 }

// refusals takes the errors of single services out of what Apply returned; what
// is left concerns all of them.
func refusals(err error) (refused map[bpf.Key]error, fatal error) {
	refused = map[bpf.Key]error{}
	var walk func(error)
	walk = func(err error) {
		if err == nil {
			return
		}
		if e, ok := err.(*bpf.ServiceError); ok { //nolint:errorlint // each error of a tree is looked at in turn
			refused[e.Key.Short()] = e.Err
			return
		}
		if joined, ok := err.(interface{ Unwrap() []error }); ok {
			for _, err := range joined.Unwrap() {
				walk(err)
			}
			return
		}
		fatal = errors.Join(fatal, err)
	}
	walk(err)
	return refused, fatal
}

func (d *instance) nextRetry() (next time.Time, ok bool) {
	for _, r := range d.refused {
		if !ok || r.after.Before(next) {
			next, ok = r.after, true
		}
	}
	return next, ok
}

// look asks the kernel whether the programs are where they should be.
func (d *instance) look() { d.hooks, d.hooksErr = d.dp.Hooks() }

func (d *instance) hookCount() string {
	n := 0
	for _, h := range d.hooks {
		if h.Attached {
			n++
		}
	}
	return fmt.Sprintf("%d/%d", n, len(d.hooks))
}

// tell updates the manager's line about us, and logs when the source comes or
// goes.
func (d *instance) tell() {
	s := d.status()
	if s.Source.Synced != d.inStep {
		d.inStep = s.Source.Synced
		if !d.inStep {
			d.o.Log.Warn(s.Source.String())
		} else {
			d.o.Log.Info(s.Source.String(), "services", s.Services, "backends", s.Backends)
		}
	}
	if line := s.Line(); line != d.line {
		d.line = line
		d.notify("STATUS=" + strings.ReplaceAll(line, "\n", "; "))
	}
}

func (d *instance) notify(state string) {
	if err := d.o.Notify(state); err != nil {
		d.o.Log.Warn("notify", "state", state, "err", err)
	}
}

// ask returns the status as the loop has it.
func (d *instance) ask(ctx context.Context) (Status, error) {
	reply := make(chan Status, 1)
	select {
	case d.requests <- reply:
		return <-reply, nil
	case <-ctx.Done():
		return Status{}, fmt.Errorf("the daemon's loop does not answer: %w", ctx.Err())
	}
}

func (d *instance) status() Status {
	s := Status{
		Running: true,
		Version: d.o.Version,
		PID:     os.Getpid(),
		Node:    d.o.Config.NodeName,
		Started: d.started,
		Source:  &SourceStatus{Name: d.source.String(), SourceState: d.store.State()},
		Hooks:   d.hooks,
		BPFFS:   d.o.Config.BPFFS,
		Cgroup:  d.o.Config.Cgroup,
	}
	// A store that is synced is not served before this loop has seen it.
	s.Source.Synced = s.Source.Synced && d.synced
	s.count(slices.Collect(maps.Values(d.applied)))
	for _, k := range slices.SortedFunc(maps.Keys(d.refused), compareKey) {
		s.Refused = append(s.Refused, Problem{Object: "Service " + k.String(), Text: d.refused[k].err.Error()})
	}
	for _, n := range slices.SortedFunc(maps.Keys(d.problems), compareName) {
		s.Problems = append(s.Problems, d.problems[n]...)
	}
	if d.hooksErr != nil {
		s.Problems = append(s.Problems, Problem{Object: "hooks", Text: d.hooksErr.Error()})
	}
	s.judge()
	return s
}

func equal(a, b bpf.Service) bool {
	return a.Key == b.Key && slices.Equal(a.Frontends, b.Frontends) && slices.Equal(a.Backends, b.Backends)
}

func union[T comparable](a, b []T, compare func(T, T) int) []T {
	all := slices.Concat(a, b)
	slices.SortFunc(all, compare)
	return slices.Compact(all)
}

func compareKey(a, b bpf.Key) int {
	if c := cmp.Compare(a.Service, b.Service); c != 0 || a.IPv6 == b.IPv6 {
		return c
	}
	if b.IPv6 {
		return -1
	}
	return 1
}
