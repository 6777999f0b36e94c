package lbd

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"k8s.io/apimachinery/pkg/types"

	"github.com/nodeprov/nodeprov/bpf"
	"github.com/nodeprov/nodeprov/lbd/config"
)

// fakeDatapath is a table of services in memory.
type fakeDatapath struct {
	mu      sync.Mutex
	table   map[bpf.Key]bpf.Service
	refuse  map[string]error // by Key.Service
	max     int              // services; 0: no limit
	fatal   error
	batches []string
	times   []time.Time
	block   chan struct{} // Apply waits for it
	hookErr string
}

func newFake() *fakeDatapath {
	return &fakeDatapath{table: map[bpf.Key]bpf.Service{}, refuse: map[string]error{}}
}

func (f *fakeDatapath) Services() ([]bpf.Service, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.SortedFunc(maps.Values(f.table), func(a, b bpf.Service) int { return compareKey(a.Key, b.Key) }), nil
}

func (f *fakeDatapath) Apply(b bpf.Batch) error {
	if f.block != nil {
		<-f.block
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.times = append(f.times, time.Now())
	if f.fatal != nil {
		return f.fatal
	}
	var errs []error
	var log []string
	for _, k := range b.Delete {
		log = append(log, "-"+k.String())
		if err := f.refuse["-"+k.Service]; err != nil {
			errs = append(errs, &bpf.ServiceError{Key: k, Err: err})
			continue
		}
		delete(f.table, k)
	}
	for _, s := range b.Set {
		log = append(log, fmt.Sprintf("%s=%d", s.Key, len(s.Backends)))
		err := f.refuse[s.Service]
		if _, ok := f.table[s.Key]; !ok && f.max > 0 && len(f.table) >= f.max {
			err = errors.New("map frontends_v1 is full")
		}
		if err != nil {
			errs = append(errs, &bpf.ServiceError{Key: s.Key, Err: err})
			continue
		}
		s.Key = s.Short()
		f.table[s.Key] = s
	}
	f.batches = append(f.batches, strings.Join(log, " "))
	return errors.Join(errs...)
}

func (f *fakeDatapath) Hooks() ([]bpf.Hook, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.hookErr != "" {
		return []bpf.Hook{{Name: "connect4", Detail: f.hookErr}}, nil
	}
	return []bpf.Hook{{Name: "connect4", Attached: true, Detail: "cgroup 1"}}, nil
}

func (f *fakeDatapath) Counters() (map[string]uint64, error) {
	return map[string]uint64{"refused": 0}, nil
}

func (f *fakeDatapath) Usage() ([]bpf.MapUsage, error) {
	return []bpf.MapUsage{{Name: "services_v1", Entries: len(f.table), Max: 100}}, nil
}

// log returns the batches since the last call.
func (f *fakeDatapath) log() []string {
	f.mu.Lock()
	defer f.mu.Unlock()
	b := f.batches
	f.batches, f.times = nil, nil
	return b
}

func (f *fakeDatapath) text() string {
	s, _ := f.Services()
	return text(s)
}

type fakeSource struct{}

func (fakeSource) String() string                          { return "https://api" }
func (fakeSource) Run(ctx context.Context, _ *Store) error { <-ctx.Done(); return nil }

// life is a daemon's loop in a bubble of synctest.
type life struct {
	*instance
	t     *testing.T
	dp    *fakeDatapath
	mu    sync.Mutex
	said  []string
	stop  context.CancelFunc
	ended chan error
}

func start(t *testing.T, dp *fakeDatapath, watchdog time.Duration) *life {
	t.Helper()
	l := &life{t: t, dp: dp, ended: make(chan error, 1)}
	conf := config.Default()
	conf.NodeName = "n1"
	d, err := newDaemon(dp, fakeSource{}, Options{Config: conf, Version: "v1", Watchdog: watchdog, Notify: func(s string) error {
		l.mu.Lock()
		defer l.mu.Unlock()
		l.said = append(l.said, s)
		return nil
	}})
	if err != nil {
		t.Fatal(err)
	}
	l.instance = d
	ctx, stop := context.WithCancel(t.Context())
	l.stop = stop
	go func() { l.ended <- d.loop(ctx) }()
	return l
}

// kill ends the loop and returns its error.
func (l *life) kill() error {
	l.stop()
	return <-l.ended
}

func (l *life) notes() []string {
	l.mu.Lock()
	defer l.mu.Unlock()
	s := l.said
	l.said = nil
	return s
}

func (l *life) wantLog(what string, want ...string) {
	l.t.Helper()
	if d := cmp.Diff(want, l.dp.log()); d != "" {
		l.t.Errorf("%s: %s", what, d)
	}
}

// settled lets the loop do what it has to do.
func settled() {
	time.Sleep(2 * coalesceMost)
	synctest.Wait()
}

func (l *life) put(yaml string) {
	l.t.Helper()
	services, slices := objects(l.t, yaml)
	for _, s := range services {
		l.store.SetService(s)
	}
	for _, s := range slices {
		l.store.SetSlice(s)
	}
}

// service returns a service with n endpoints in each of some slices.
func service(name string, ip int, slices ...int) string {
	y := fmt.Sprintf("---\napiVersion: v1\nkind: Service\nmetadata: {name: %s}\nspec: {clusterIP: 10.43.0.%d, ports: [{port: 80}]}\n", name, ip)
	for i, n := range slices {
		y += endpoints(name, i, n)
	}
	return y
}

func endpoints(service string, i, n int) string {
	var es []string
	for k := range n {
		es = append(es, fmt.Sprintf("{addresses: [10.42.%d.%d]}", i, k+1))
	}
	return fmt.Sprintf("---\napiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\nmetadata: {name: %s-%d, labels: {kubernetes.io/service-name: %s}}\naddressType: IPv4\nports: [{port: 80}]\nendpoints: [%s]\n", service, i, service, strings.Join(es, ", "))
}

func named(name string) types.NamespacedName {
	return types.NamespacedName{Namespace: "default", Name: name}
}

func TestChangesAreCoalescedButNeverWaitLong(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := start(t, newFake(), 0)
		defer l.kill()
		l.store.SetSynced()
		settled()
		l.wantLog("nothing to do")

		begin := time.Now()
		l.put(service("a", 1, 2, 3))
		settled()
		if got := l.dp.times[0].Sub(begin); got != coalesceQuiet {
			t.Errorf("one change took %v", got)
		}
		l.wantLog("one service with its slices", "default/a=5")

		begin = time.Now()
		for i := range 100 { // a change every half millisecond
			l.put(endpoints("a", 0, i%7+1))
			time.Sleep(coalesceQuiet / 2)
		}
		settled()
		if got := l.dp.times[0].Sub(begin); got > coalesceMost {
			t.Errorf("the first change of a storm waited for %v", got)
		}
		if n := len(l.dp.log()); n < 4 || n > 7 {
			t.Errorf("%d batches in 50 ms", n)
		}
		l.put(service("a", 1, 2, 3))
		settled()
		l.wantLog("the same again")
		l.store.DeleteSlice(named("a-0"))
		l.store.DeleteSlice(named("a-1"))
		settled()
		l.wantLog("slices deleted", "default/a=0")
		l.store.DeleteService(named("a"))
		settled()
		l.wantLog("service deleted", "-default/a")
		if got := len(l.owned) + len(l.applied) + len(l.problems) + len(l.refused); got != 0 {
			t.Error("the daemon remembers", l.owned, l.applied, l.problems, l.refused)
		}
	})
}

func TestRestartOnlyAddsBeforeSync(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		dp := newFake()
		l := start(t, dp, 0)
		l.put(service("a", 1, 2, 3, 4) + service("gone", 2, 1) + service("emptied", 3, 1) + service("moved", 4, 1))
		l.store.SetSynced()
		settled()
		before := dp.text()
		dp.log()
		if err := l.kill(); err != nil {
			t.Fatal(err)
		}

		l = start(t, dp, 0)
		defer l.kill()
		settled()
		for _, yaml := range []string{
			service("a", 1), endpoints("a", 2, 4), endpoints("a", 0, 2), // one slice is still missing
			service("emptied", 3, 0),
			service("fresh", 6), // no slice yet
		} {
			l.put(yaml)
			settled()
			if d := cmp.Diff(before, dp.text()); d != "" {
				t.Errorf("something was lost before the sync: %s", d)
			}
		}
		l.store.DeleteService(named("a"))
		settled()
		l.wantLog("before the sync")
		l.put(service("a", 1))
		if got := l.Line(t); !strings.HasPrefix(got, "not synced since ") || !strings.HasSuffix(got, ": waiting for https://api; serving 4 services, 12 backends; hooks 1/1") {
			t.Error(got)
		}
		l.put(endpoints("a", 3, 1))
		l.put(service("new", 5, 1))
		settled()
		l.wantLog("additions are at once", "default/a=10 default/new=1")

		l.put(service("moved", 7, 1)) // another address: the old one serves until the sync
		settled()
		if s := dp.table[bpf.Key{Service: "default/moved"}]; len(s.Frontends) != 2 {
			t.Error(s)
		}
		dp.log()
		l.put(endpoints("a", 1, 1))
		l.store.SetSynced()
		settled()
		l.wantLog("at the sync", "-default/gone default/a=8 default/emptied=0 default/fresh=0 default/moved=1")
		if got := l.Line(t); got != "5 services, 10 backends, synced with https://api; hooks 1/1" {
			t.Error(got)
		}
	})
}

// Line is the status line as the loop has it.
func (l *life) Line(t *testing.T) string {
	t.Helper()
	st, err := l.ask(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return st.Line()
}

func TestAPIServiceIsNeverEmptied(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		dp := newFake()
		l := start(t, dp, 0)
		defer l.kill()
		l.put(service("kubernetes", 1, 2))
		l.store.SetSynced()
		settled()
		l.wantLog("served", "default/kubernetes=2")
		l.put(endpoints("kubernetes", 0, 0))
		settled()
		l.wantLog("emptied: kept")
		if got := l.Line(t); !strings.HasSuffix(got, "1 problem") {
			t.Error(got)
		}
		l.put(endpoints("kubernetes", 0, 1))
		settled()
		l.wantLog("shrunk", "default/kubernetes=1")
		l.store.DeleteSlice(named("kubernetes-0"))
		settled()
		l.wantLog("slice deleted: kept")
		l.store.DeleteService(named("kubernetes"))
		settled()
		l.wantLog("the service itself is gone", "-default/kubernetes")
	})
}

func TestRefusedServices(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		dp := newFake()
		l := start(t, dp, 0)
		defer l.kill()
		l.store.SetSynced()
		dp.refuse["default/bad"] = errors.New("no")
		l.put(service("bad", 1, 1) + service("good", 2, 1))
		settled()
		l.wantLog("the others are served", "default/bad=1 default/good=1")
		if d := cmp.Diff("default/good: 10.43.0.2:80/TCP -> 10.42.0.1:80\n", dp.text()); d != "" {
			t.Error(d)
		}
		st, _ := l.ask(t.Context())
		if d := cmp.Diff([]string{"refused: Service default/bad: no"}, st.Missing); d != "" || st.Healthy {
			t.Error(d)
		}

		l.put(service("good", 2, 2))
		settled()
		l.wantLog("another's change does not try it again", "default/good=2")
		time.Sleep(7100 * time.Millisecond) // 1 + 2 + 4 s
		synctest.Wait()
		l.wantLog("tried again, ever more rarely", "default/bad=1", "default/bad=1", "default/bad=1")
		l.put(service("bad", 1, 3))
		settled()
		l.wantLog("its change tries it at once", "default/bad=3")
		dp.mu.Lock()
		delete(dp.refuse, "default/bad")
		dp.mu.Unlock()
		time.Sleep(retryMost)
		synctest.Wait()
		l.wantLog("taken", "default/bad=3")
		if st, _ := l.ask(t.Context()); !st.Healthy {
			t.Error(st.Missing)
		}

		// A deletion that is refused is tried again too.
		dp.refuse["-default/bad"] = errors.New("busy")
		l.store.DeleteService(named("bad"))
		settled()
		l.wantLog("refused", "-default/bad")
		dp.mu.Lock()
		delete(dp.refuse, "-default/bad")
		dp.mu.Unlock()
		time.Sleep(2 * time.Second)
		synctest.Wait()
		l.wantLog("deleted", "-default/bad")
		if st, _ := l.ask(t.Context()); !st.Healthy || st.Services != 1 {
			t.Error(st)
		}
		// A refused service that is deleted is forgotten.
		dp.max = 1
		l.put(service("late", 3, 1))
		settled()
		l.store.DeleteService(named("late"))
		settled()
		l.wantLog("full", "default/late=1")
		if len(l.refused) != 0 {
			t.Error(l.refused)
		}
	})
}

func TestRoomIsUsedAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		dp := newFake()
		dp.max = 1
		l := start(t, dp, 0)
		defer l.kill()
		l.store.SetSynced()
		l.put(service("a", 1, 1) + service("b", 2, 1))
		settled()
		l.wantLog("full", "default/a=1 default/b=1")
		l.store.DeleteService(named("a"))
		settled()
		l.wantLog("room", "-default/a", "default/b=1")
		if d := cmp.Diff("default/b: 10.43.0.2:80/TCP -> 10.42.0.1:80\n", dp.text()); d != "" {
			t.Error(d)
		}
	})
}

// The maps have room a grace period after a deletion, not at once.
func TestRoomIsUsedSoon(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		dp := newFake()
		dp.refuse["default/b"] = errors.New("map backends_v1 is full")
		l := start(t, dp, 0)
		defer l.kill()
		l.store.SetSynced()
		l.put(service("a", 1, 1) + service("b", 2, 1))
		time.Sleep(10 * retryMost) // ever more rarely
		l.store.DeleteService(named("a"))
		settled()
		dp.mu.Lock()
		delete(dp.refuse, "default/b")
		dp.mu.Unlock()
		time.Sleep(retryFirst)
		synctest.Wait()
		if d := cmp.Diff("default/b: 10.43.0.2:80/TCP -> 10.42.0.1:80\n", dp.text()); d != "" {
			t.Error(d)
		}
	})
}

func TestFatalErrorEndsTheLoop(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		dp := newFake()
		dp.fatal = errors.Join(&bpf.ServiceError{Key: bpf.Key{Service: "x"}, Err: errors.New("y")}, errors.New("map is gone"))
		l := start(t, dp, 0)
		l.put(service("a", 1, 1))
		if err := <-l.ended; err == nil || err.Error() != "datapath: map is gone" {
			t.Error(err)
		}
		l.stop()
	})
}

func TestNotifications(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		dp := newFake()
		l := start(t, dp, 10*time.Second)
		synctest.Wait()
		now := time.Now().Local().Format(time.TimeOnly)
		check := func(what string, want ...string) {
			t.Helper()
			if d := cmp.Diff(want, l.notes()); d != "" {
				t.Errorf("%s: %s", what, d)
			}
		}
		check("start", "READY=1", "STATUS=not synced since "+now+": waiting for https://api; serving 0 services, 0 backends; hooks 1/1")
		l.store.SetFault("services", errors.New("connection\nrefused"))
		settled()
		check("fault", "STATUS=not synced since "+now+": connection; refused; serving 0 services, 0 backends; hooks 1/1")
		l.store.SetFault("services", nil)
		l.store.SetSynced()
		l.put(service("a", 1, 2) + service("b", 200, 1))
		settled()
		check("synced", "STATUS=2 services, 3 backends, synced with https://api; hooks 1/1")
		time.Sleep(6 * time.Second)
		synctest.Wait()
		check("watchdog", "WATCHDOG=1")
		dp.mu.Lock()
		dp.hookErr = "its cgroup is gone"
		dp.mu.Unlock()
		time.Sleep(5 * time.Second)
		synctest.Wait()
		check("a lost hook is seen", "WATCHDOG=1", "STATUS=2 services, 3 backends, synced with https://api; hooks 0/1")

		// A loop that hangs must not feed the watchdog.
		dp.block = make(chan struct{})
		l.put(service("c", 3, 1))
		time.Sleep(time.Minute)
		synctest.Wait()
		check("hanging")
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if _, err := l.ask(ctx); err == nil {
			t.Error("a loop that hangs answers")
		}
		close(dp.block)
		synctest.Wait()
		l.notes()
		if err := l.kill(); err != nil {
			t.Error(err)
		}
		check("end", "STOPPING=1")
	})
}

// Between the source's sync and the loop's, deletions are still to come.
func TestSyncedMeansThatTheDatapathIs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d, err := newDaemon(newFake(), fakeSource{}, Options{})
		if err != nil {
			t.Fatal(err)
		}
		d.store.SetSynced()
		d.look()
		if st := d.status(); st.Source.Synced || st.Healthy {
			t.Error("before the update:", st.Missing)
		}
		if err := d.update(); err != nil {
			t.Fatal(err)
		}
		if st := d.status(); !st.Source.Synced || !st.Healthy {
			t.Error("after the update:", st.Missing)
		}
	})
}

func TestServiceOutsideOfCIDRsIsServedAndReported(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		dp := newFake()
		l := start(t, dp, 0)
		defer l.kill()
		l.put(strings.ReplaceAll(service("a", 1, 1), "10.43.", "10.96."))
		l.store.SetSynced()
		settled()
		st, _ := l.ask(t.Context())
		want := []Problem{{"Service default/a", "clusterIP 10.96.0.1 is outside of service_cidrs (it is served; set service_cidrs to the cluster's)"}}
		if d := cmp.Diff(want, st.Problems); d != "" || st.Services != 1 || !st.Healthy {
			t.Error(d, st)
		}
	})
}

// Long keys are shortened in the maps; a restart must find them again.
func TestLongNamesSurviveARestart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		dp := newFake()
		long := strings.Repeat("x", 63)
		yaml := strings.NewReplacer("{port: 80}", "{name: "+long+", port: 80}", "metadata: {", "metadata: {namespace: "+long+", ").Replace(service(long, 1, 2))
		for _, want := range [][]string{{(bpf.Key{Service: long + "/" + long + ":" + long}).Short().String() + "=2"}, nil} {
			l := start(t, dp, 0)
			l.put(yaml)
			l.store.SetSynced()
			settled()
			l.wantLog("life", want...)
			l.kill()
		}
	})
}

// Whatever the order and the moment of the sync: the end is what the objects say,
// and before the sync nothing of the last life is lost.
func FuzzDaemon(f *testing.F) {
	f.Add([]byte{1, 2, 3, 4, 5, 0, 200, 30})
	f.Add([]byte{255, 128, 64, 32, 16, 8, 4, 2, 1, 0})
	f.Fuzz(func(t *testing.T, ops []byte) {
		if len(ops) > 64 {
			return
		}
		synctest.Test(t, func(t *testing.T) {
			dp := newFake()
			l := start(t, dp, 0)
			reference := NewStore()
			for _, op := range ops {
				n, kind := int(op%4), op/4%5
				name := fmt.Sprintf("s%d", n)
				switch kind {
				case 0, 1:
					services, slices := objects(t, service(name, n+1, int(op/20)%4))
					for _, s := range []*Store{l.store, reference} {
						s.SetService(services[0])
						s.SetSlice(slices[0])
					}
				case 2:
					for _, s := range []*Store{l.store, reference} {
						s.DeleteService(named(name))
					}
				case 3:
					for _, s := range []*Store{l.store, reference} {
						s.DeleteSlice(named(name + "-0"))
					}
				case 4: // a restart, from an empty store that is filled again
					settled()
					before, _ := dp.Services()
					l.kill()
					l = start(t, dp, 0)
					for _, name := range reference.Names() {
						svc, slices := reference.Service(name)
						l.store.SetService(svc)
						settled()
						for _, s := range slices {
							l.store.SetSlice(s)
						}
					}
					for name, slices := range reference.slices {
						for _, s := range slices {
							_ = name
							l.store.SetSlice(s)
						}
					}
					settled()
					for _, s := range before {
						if len(dp.table[s.Key].Backends) < len(s.Backends) {
							t.Errorf("%s lost backends before the sync", s.Key)
						}
					}
					if op >= 128 {
						l.store.SetSynced()
					}
				}
				if op%3 == 0 {
					settled()
				}
			}
			l.store.SetSynced()
			settled()
			var want []bpf.Service
			for _, name := range reference.Names() {
				s, _ := Services(reference.Service(name))
				want = append(want, s...)
			}
			if d := cmp.Diff(text(want), dp.text()); d != "" {
				t.Error(d)
			}
			l.kill()
		})
	})
}
