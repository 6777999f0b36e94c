package bpf

import (
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/nodeprov/nodeprov/internal/testbed"
)

func TestMain(m *testing.M) { testbed.Main(m) }

var cmpAddrs = cmpopts.EquateComparable(netip.AddrPort{})

// open opens a datapath in a bpffs and a cgroup of the test's own.
func open(t *testing.T, o Options) *Datapath {
	t.Helper()
	d, err := Open(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { d.Close() })
	return d
}

func options(t *testing.T) Options {
	return Options{BPFFS: testbed.BPFFS(t), Cgroup: testbed.Cgroup(t)}
}

// service reads "NAME FRONTEND/PROTO… -> BACKEND…".
func service(text string) Service {
	left, right, _ := strings.Cut(text, "->")
	f := strings.Fields(left)
	s := Service{Key: Key{Service: f[0]}}
	for _, fe := range f[1:] {
		addr, proto, _ := strings.Cut(fe, "/")
		p := TCP
		if proto == "UDP" {
			p = UDP
		}
		ap := netip.MustParseAddrPort(addr)
		s.IPv6 = ap.Addr().Is6()
		s.Frontends = append(s.Frontends, Frontend{Addr: ap, Protocol: p})
	}
	for _, b := range strings.Fields(right) {
		s.Backends = append(s.Backends, Backend{Addr: netip.MustParseAddrPort(b)})
	}
	return s
}

// text renders the whole table, one service a line.
func text(t *testing.T, d *Datapath) string {
	t.Helper()
	ss, err := d.Services()
	if err != nil {
		t.Fatal(err)
	}
	var b strings.Builder
	for _, s := range ss {
		fmt.Fprintf(&b, "%d %s", s.ID, s.Service)
		for _, f := range s.Frontends {
			fmt.Fprintf(&b, " %s", f)
		}
		fmt.Fprint(&b, " ->")
		for _, be := range s.Backends {
			fmt.Fprintf(&b, " %s", be.Addr)
		}
		fmt.Fprintln(&b)
	}
	return b.String()
}

func set(ss ...string) (b Batch) {
	for _, s := range ss {
		b.Set = append(b.Set, service(s))
	}
	return b
}

func TestApply(t *testing.T) {
	d := open(t, options(t))
	for _, step := range []struct {
		name  string
		batch Batch
		want  string
	}{
		{"two services", set("a 10.0.0.1:80/TCP -> 10.1.0.1:8080 10.1.0.2:8080", "b [fd00::1]:53/UDP -> [fd01::1]:53"),
			"1 a 10.0.0.1:80/TCP -> 10.1.0.1:8080 10.1.0.2:8080\n2 b [fd00::1]:53/UDP -> [fd01::1]:53\n"},
		{"the same again", set("a 10.0.0.1:80/TCP -> 10.1.0.2:8080 10.1.0.1:8080"),
			"1 a 10.0.0.1:80/TCP -> 10.1.0.1:8080 10.1.0.2:8080\n2 b [fd00::1]:53/UDP -> [fd01::1]:53\n"},
		{"a backend goes, one comes", set("a 10.0.0.1:80/TCP -> 10.1.0.3:8080 10.1.0.2:8080"),
			"1 a 10.0.0.1:80/TCP -> 10.1.0.2:8080 10.1.0.3:8080\n2 b [fd00::1]:53/UDP -> [fd01::1]:53\n"},
		{"no backend", set("a 10.0.0.1:80/TCP ->"),
			"1 a 10.0.0.1:80/TCP ->\n2 b [fd00::1]:53/UDP -> [fd01::1]:53\n"},
		{"another frontend, both protocols", set("a 10.0.0.1:80/TCP 10.0.0.1:80/UDP 10.0.0.9:80/TCP -> 10.1.0.1:1"),
			"1 a 10.0.0.1:80/TCP 10.0.0.1:80/UDP 10.0.0.9:80/TCP -> 10.1.0.1:1\n2 b [fd00::1]:53/UDP -> [fd01::1]:53\n"},
		{"a frontend moves in one batch", set("a 10.0.0.1:80/TCP -> 10.1.0.1:1", "c 10.0.0.9:80/TCP -> 10.1.0.7:7"),
			"1 a 10.0.0.1:80/TCP -> 10.1.0.1:1\n2 b [fd00::1]:53/UDP -> [fd01::1]:53\n3 c 10.0.0.9:80/TCP -> 10.1.0.7:7\n"},
		{"deleted and unknown", Batch{Delete: []Key{{Service: "a"}, {Service: "b", IPv6: true}, {Service: "none"}}},
			"3 c 10.0.0.9:80/TCP -> 10.1.0.7:7\n"},
	} {
		t.Run(step.name, func(t *testing.T) {
			if err := d.Apply(step.batch); err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(text(t, d), step.want); diff != "" {
				t.Error(diff)
			}
		})
	}
	// Everything that was replaced or removed is collected.
	d.reaping.Wait()
	v, err := d.view()
	if err != nil {
		t.Fatal(err)
	}
	if len(v.backends) != 1 || len(v.frontends) != 1 || len(v.names) != 1 {
		t.Errorf("left behind: %+v", v)
	}
}

func TestApplyRefuses(t *testing.T) {
	d := open(t, options(t))
	if err := d.Apply(set("a 10.0.0.1:80/TCP -> 10.1.0.1:80")); err != nil {
		t.Fatal(err)
	}
	before := text(t, d)
	many := service("many 10.0.0.7:80/TCP ->")
	many.Backends = make([]Backend, MaxBackends+1)
	mapped := service("m 10.0.0.8:80/TCP ->")
	mapped.Frontends[0].Addr = netip.MustParseAddrPort("[::ffff:10.0.0.8]:80")
	for name, c := range map[string]struct {
		s    Service
		want string
	}{
		"another's frontend": {service("b 10.0.0.1:80/TCP -> 10.1.0.2:80"), "frontend 10.0.0.1:80/TCP belongs to service a"},
		"no frontend":        {Service{Key: Key{Service: "b"}}, "it has no frontend"},
		"port 0":             {service("b 10.0.0.2:0/TCP ->"), "not an address and port"},
		"family of backend":  {service("b 10.0.0.2:1/TCP -> [fd00::1]:1"), "backend [fd00::1]:1"},
		"too many backends":  {many, "it has 65536 backends, more than 65535"},
		"mapped address":     {mapped, "not an address and port of the service's family"},
	} {
		t.Run(name, func(t *testing.T) {
			err := d.Apply(Batch{Set: []Service{c.s}})
			se, ok := errors.AsType[*ServiceError](err)
			if !ok || se.Key != c.s.Key || !strings.Contains(err.Error(), c.want) {
				t.Errorf("got %v, want %q", err, c.want)
			}
			if diff := cmp.Diff(text(t, d), before); diff != "" {
				t.Error(diff)
			}
		})
	}
}

// A full map refuses what does not fit and harms nothing else.
func TestFullMaps(t *testing.T) {
	for _, full := range []string{sockMapFrontendsV1, sockMapBackendsV1, sockMapNamesV1, sockMapServicesV1} {
		t.Run(full, func(t *testing.T) {
			o := options(t)
			small(t, o, full, 3)
			d := open(t, o)
			a := "a 10.0.0.1:80/TCP -> 10.1.0.1:80"
			if err := d.Apply(set(a)); err != nil {
				t.Fatal(err)
			}
			before := text(t, d)
			big := set("b 10.0.0.2:80/TCP 10.0.0.2:81/TCP 10.0.0.2:82/TCP -> 10.2.0.1:1 10.2.0.2:2 10.2.0.3:3")
			if full == sockMapNamesV1 || full == sockMapServicesV1 {
				big = set("b 10.0.0.2:80/TCP ->", "c 10.0.0.3:80/TCP ->", "d 10.0.0.4:80/TCP ->")
			}
			for range 3 { // and again: what was refused left nothing behind
				err := d.Apply(big)
				if err == nil || !strings.Contains(err.Error(), "map "+full+" is full") {
					t.Fatalf("got %v", err)
				}
				d.reaping.Wait()
				var gone Batch
				for _, s := range big.Set {
					gone.Delete = append(gone.Delete, s.Key)
				}
				if err := d.Apply(gone); err != nil {
					t.Fatal(err)
				}
				d.reaping.Wait()
				if diff := cmp.Diff(text(t, d), before); diff != "" {
					t.Fatal(diff)
				}
			}
			// An update of the old service that does not fit leaves it whole.
			if full == sockMapBackendsV1 || full == sockMapFrontendsV1 {
				worse := set("a 10.0.0.1:80/TCP 10.0.0.1:81/TCP 10.0.0.1:82/TCP 10.0.0.1:83/TCP -> 10.1.0.1:80 10.1.0.2:80 10.1.0.3:80 10.1.0.4:80")
				for range 3 {
					if err := d.Apply(worse); err == nil {
						t.Fatal("it fitted")
					}
				}
				d.reaping.Wait()
				if diff := cmp.Diff(text(t, d), before); diff != "" {
					t.Fatal(diff)
				}
			}
		})
	}
}

// A service that is refused half-way has lost what others took meanwhile, and
// knows it: what they have must not be deleted for it later.
func TestRefusedAfterAFrontendMoved(t *testing.T) {
	o := options(t)
	small(t, o, sockMapFrontendsV1, 3)
	d := open(t, o)
	apply := func(ss ...string) error { return d.Apply(set(ss...)) }
	if err := apply("a 10.0.0.1:80/TCP -> 10.1.0.1:80", "x 10.0.0.2:80/TCP 10.0.0.3:80/TCP -> 10.1.0.2:80"); err != nil {
		t.Fatal(err)
	}
	// x gives .3 to a, and has no place for what it wants instead.
	moved := "a 10.0.0.1:80/TCP 10.0.0.3:80/TCP -> 10.1.0.1:80"
	if err := apply(moved, "x 10.0.0.2:80/TCP 10.0.0.4:80/TCP -> 10.1.0.2:80"); err == nil {
		t.Fatal("it fitted")
	}
	want := "1 a 10.0.0.1:80/TCP 10.0.0.3:80/TCP -> 10.1.0.1:80\n2 x 10.0.0.2:80/TCP -> 10.1.0.2:80\n"
	for range 2 {
		if diff := cmp.Diff(text(t, d), want); diff != "" {
			t.Fatal(diff)
		}
		if err := apply(moved, "x 10.0.0.2:80/TCP -> 10.1.0.2:80"); err != nil {
			t.Fatal(err)
		}
	}
	// Nor is it believed to have what there is no place for any more.
	if err := apply("a 10.0.0.1:80/TCP -> 10.1.0.1:80", "x 10.0.0.2:80/TCP 10.0.0.3:80/TCP -> 10.1.0.2:80"); err != nil {
		t.Fatal(err)
	}
	if err := apply("a 10.0.0.1:80/TCP 10.0.0.5:80/TCP -> 10.1.0.1:80", "x 10.0.0.2:80/TCP 10.0.0.4:80/TCP -> 10.1.0.2:80"); err == nil {
		t.Fatal("it fitted")
	}
	if err := apply("a 10.0.0.1:80/TCP -> 10.1.0.1:80", "x 10.0.0.2:80/TCP 10.0.0.3:80/TCP -> 10.1.0.2:80"); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(text(t, d), "1 a 10.0.0.1:80/TCP -> 10.1.0.1:80\n2 x 10.0.0.2:80/TCP 10.0.0.3:80/TCP -> 10.1.0.2:80\n"); diff != "" {
		t.Fatal(diff)
	}
}

// small makes one of the pinned maps with few places, as if an older life had.
func small(t *testing.T, o Options, name string, entries uint32) {
	t.Helper()
	spec, err := loadSock()
	if err != nil {
		t.Fatal(err)
	}
	dir := filepath.Join(o.BPFFS, "lbd")
	if err := os.MkdirAll(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	spec.Maps[name].MaxEntries = entries
	m, err := ebpf.NewMapWithOptions(spec.Maps[name], ebpf.MapOptions{PinPath: dir})
	if err != nil {
		t.Fatal(err)
	}
	m.Close()
}

func TestReopen(t *testing.T) {
	o := options(t)
	d := open(t, o)
	if err := d.Apply(set("a 10.0.0.1:80/TCP -> 10.1.0.1:80 10.1.0.2:80", "b [fd00::1]:53/UDP ->", "c 10.0.0.3:1/TCP -> 10.1.0.3:1")); err != nil {
		t.Fatal(err)
	}
	if err := d.Apply(Batch{Delete: []Key{{Service: "a"}}}); err != nil {
		t.Fatal(err)
	}
	want := text(t, d)

	if _, err := Open(o); !errors.Is(err, ErrLocked) {
		t.Errorf("a second writer: got %v, want ErrLocked", err)
	}
	if _, err := Cleanup(o.BPFFS); !errors.Is(err, ErrLocked) {
		t.Errorf("clean-up beside a writer: got %v, want ErrLocked", err)
	}
	r, err := OpenReadOnly(o.BPFFS)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	if diff := cmp.Diff(text(t, r), want); diff != "" {
		t.Errorf("reader: %s", diff)
	}
	if err := d.Close(); err != nil {
		t.Fatal(err)
	}
	d = open(t, o)
	if diff := cmp.Diff(text(t, d), want); diff != "" {
		t.Error(diff)
	}
	// IDs stay, and the free one is given again.
	if err := d.Apply(set("c 10.0.0.3:1/TCP -> 10.1.0.4:1", "d 10.0.0.4:1/TCP ->")); err != nil {
		t.Fatal(err)
	}
	if got, want := text(t, d), "2 b [fd00::1]:53/UDP ->\n3 c 10.0.0.3:1/TCP -> 10.1.0.4:1\n1 d 10.0.0.4:1/TCP ->\n"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}

// A writer that is killed leaves any prefix of its writes behind.
func TestReopenAfterCrash(t *testing.T) {
	o := options(t)
	d := open(t, o)
	if err := d.Apply(set("a 10.0.0.1:80/TCP -> 10.1.0.1:80", "b 10.0.0.2:80/TCP -> 10.1.0.2:80")); err != nil {
		t.Fatal(err)
	}
	want := text(t, d)
	put := func(name string, k, v any) {
		t.Helper()
		if err := d.maps[name].Put(k, v); err != nil {
			t.Fatal(err)
		}
	}
	fe := func(s string) sockFrontendKey {
		return Frontend{Addr: netip.MustParseAddrPort(s), Protocol: TCP}.key()
	}
	be := Backend{Addr: netip.MustParseAddrPort("10.9.9.9:9")}.value()
	// Slots of a generation that was never switched to, and of an old one.
	put(sockMapBackendsV1, sockBackendKey{Service: 1, Generation: 2}, be)
	put(sockMapBackendsV1, sockBackendKey{Service: 1, Generation: 0}, be)
	// A new service without frontends yet.
	put(sockMapBackendsV1, sockBackendKey{Service: 9, Generation: 1}, be)
	put(sockMapServicesV1, uint32(9), sockService{Generation: 1, Count: 1})
	put(sockMapNamesV1, uint32(9), Key{Service: "new"}.value())
	// One that was killed before it had a name: its ID must not be given before its
	// slots are collected.
	put(sockMapBackendsV1, sockBackendKey{Service: 3, Generation: 1}, be)
	// A frontend of no service, and a service that lost a slot.
	put(sockMapFrontendsV1, fe("10.0.0.77:1"), sockFrontend{Service: 77})
	put(sockMapServicesV1, uint32(8), sockService{Generation: 1, Count: 3})
	put(sockMapNamesV1, uint32(8), Key{Service: "torn"}.value())
	put(sockMapFrontendsV1, fe("10.0.0.8:1"), sockFrontend{Service: 8})
	d.Close()

	d = open(t, o)
	if diff := cmp.Diff(text(t, d), want); diff != "" {
		t.Error(diff)
	}
	// Also the very slots that are about to be collected may be wanted again now.
	if err := d.Apply(set("a 10.0.0.1:80/TCP -> 10.1.0.3:80", "c 10.0.0.3:80/TCP -> 10.1.0.4:80")); err != nil {
		t.Fatal(err)
	}
	d.reaping.Wait()
	if got := text(t, d); !strings.Contains(got, " c 10.0.0.3:80/TCP -> 10.1.0.4:80\n") {
		t.Errorf("the new service has lost its slots: %s", got)
	}
	if err := d.Apply(Batch{Delete: []Key{{Service: "c"}}}); err != nil {
		t.Fatal(err)
	}
	d.reaping.Wait()
	if got, want := text(t, d), "1 a 10.0.0.1:80/TCP -> 10.1.0.3:80\n2 b 10.0.0.2:80/TCP -> 10.1.0.2:80\n"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
	us, err := d.Usage()
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(us, []MapUsage{{"frontends_v1", 2, 65536}, {"services_v1", 2, 65536}, {"backends_v1", 2, 262144}, {"names_v1", 2, 65536}}); diff != "" {
		t.Error(diff)
	}
}

func TestOpenErrors(t *testing.T) {
	t.Run("no bpffs", func(t *testing.T) {
		dir := t.TempDir()
		if _, err := Open(Options{BPFFS: dir}); err == nil || !strings.Contains(err.Error(), "mount -t bpf bpf "+dir) {
			t.Errorf("got %v", err)
		}
	})
	t.Run("no directory", func(t *testing.T) {
		if _, err := Open(Options{BPFFS: "/nonexistent"}); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("got %v", err)
		}
	})
	t.Run("nothing to read", func(t *testing.T) {
		if _, err := OpenReadOnly(testbed.BPFFS(t)); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("got %v", err)
		}
	})
	t.Run("foreign map at our pin", func(t *testing.T) {
		o := options(t)
		os.Mkdir(filepath.Join(o.BPFFS, "lbd"), 0o700)
		m, err := ebpf.NewMap(&ebpf.MapSpec{Type: ebpf.Hash, KeySize: 4, ValueSize: 4, MaxEntries: 1})
		if err != nil {
			t.Fatal(err)
		}
		defer m.Close()
		if err := m.Pin(filepath.Join(o.BPFFS, "lbd", "frontends_v1")); err != nil {
			t.Fatal(err)
		}
		if _, err := Open(o); !errors.Is(err, ebpf.ErrMapIncompatible) || !strings.Contains(err.Error(), "lbd cleanup") {
			t.Errorf("got %v", err)
		}
	})
	t.Run("no cgroup2", func(t *testing.T) {
		o := options(t)
		o.Cgroup = t.TempDir()
		if err := open(t, o).Attach(); err == nil || !strings.Contains(err.Error(), "not in a cgroup2 hierarchy") {
			t.Errorf("got %v", err)
		}
	})
}

func TestAttach(t *testing.T) {
	o := options(t)
	d := open(t, o)
	attached := func(d *Datapath) int {
		t.Helper()
		hs, err := d.Hooks()
		if err != nil {
			t.Fatal(err)
		}
		return len(slices.DeleteFunc(hs, func(h Hook) bool { return !h.Attached }))
	}
	if n := attached(d); n != 0 {
		t.Errorf("%d hooks attached before Attach", n)
	}
	if err := d.Attach(); err != nil {
		t.Fatal(err)
	}
	id := func() link.ID {
		l, err := link.LoadPinnedLink(filepath.Join(o.BPFFS, "lbd/links/connect4"), nil)
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		info, err := l.Info()
		if err != nil {
			t.Fatal(err)
		}
		return info.ID
	}
	first := id()
	d.Close()
	d = open(t, o)
	if n := attached(d); n != len(hooks) {
		t.Errorf("%d hooks attached after Close", n)
	}
	if err := d.Attach(); err != nil {
		t.Fatal(err)
	}
	if id() != first {
		t.Error("the link was made anew, and calls were missed meanwhile")
	}
	d.Close()

	// A link whose cgroup is gone is no link.
	if err := os.Remove(o.Cgroup); err != nil {
		t.Fatal(err)
	}
	o.Cgroup = testbed.Cgroup(t)
	d = open(t, o)
	if err := d.Attach(); err != nil {
		t.Fatal(err)
	}
	if n := attached(d); n != len(hooks) || id() == first {
		t.Errorf("%d hooks attached to the new cgroup", n)
	}
	d.Close()

	foreign := filepath.Join(o.BPFFS, "lbd", "links", "somebody_elses")
	if err := os.Mkdir(foreign, 0o700); err != nil {
		t.Fatal(err)
	}
	removed, err := Cleanup(o.BPFFS)
	if err == nil || !strings.Contains(err.Error(), "something in it is not lbd's") {
		t.Errorf("got %v", err)
	}
	if want := len(hooks)*2 + len(pinnedMaps) + 1; len(removed) != want {
		t.Errorf("removed %d pins, want %d: %q", len(removed), want, removed)
	}
	os.Remove(foreign)
	if _, err := Cleanup(o.BPFFS); err != nil {
		t.Error(err)
	}
	if _, err := os.Stat(filepath.Join(o.BPFFS, "lbd")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("left: %v", err)
	}
	if removed, err := Cleanup(o.BPFFS); err != nil || len(removed) != 0 {
		t.Errorf("clean-up of nothing: %v, %v", removed, err)
	}
}

func TestLongNames(t *testing.T) {
	d := open(t, options(t))
	a, b := service("a 10.0.0.1:80/TCP ->"), service("b 10.0.0.2:80/TCP ->")
	a.Service = strings.Repeat("n", 63) + "/" + strings.Repeat("s", 63) + ":" + strings.Repeat("p", 14) + "1"
	b.Service = a.Service[:len(a.Service)-1] + "2"
	for range 2 {
		if err := d.Apply(Batch{Set: []Service{a, b}}); err != nil {
			t.Fatal(err)
		}
	}
	ss, err := d.Services()
	if err != nil {
		t.Fatal(err)
	}
	if len(ss) != 2 || len(ss[0].Service) != 135 || ss[0].Service == ss[1].Service {
		t.Errorf("got %v", ss)
	}
	if err := d.Apply(Batch{Delete: []Key{a.Key, b.Key}}); err != nil {
		t.Fatal(err)
	}
	if got := text(t, d); got != "" {
		t.Errorf("left: %s", got)
	}
}

func TestArrange(t *testing.T) {
	for _, c := range []struct{ have, want, out string }{
		{"", "abc", "abc"},
		{"abc", "cba", "abc"},
		{"abc", "", ""},
		{"abc", "bc", "cb"},
		{"abc", "xbc", "xbc"},
		{"abcd", "d", "d"},
		{"abcd", "adxyz", "axydz"},
		{"abc", "aab", "ab"},
		{"", "aa", "a"},
	} {
		conv := func(s string) (bs []Backend) {
			for _, r := range s {
				bs = append(bs, Backend{Addr: netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, 0, 0, byte(r)}), 1)})
			}
			return bs
		}
		if diff := cmp.Diff(arrange(conv(c.have), conv(c.want)), conv(c.out), cmpAddrs, cmpopts.EquateEmpty()); diff != "" {
			t.Errorf("%q -> %q: %s", c.have, c.want, diff)
		}
	}
}

func TestMapBarrier(t *testing.T) {
	b, err := newMapBarrier()
	if err != nil {
		t.Fatal(err)
	}
	b.wait()
	if err := b.close(); err != nil {
		t.Error(err)
	}
}
