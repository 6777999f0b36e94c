package bpf

import (
	"errors"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"unsafe"

	"github.com/cilium/ebpf/link"
	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"github.com/nodeprov/nodeprov/internal/testbed"
)

// node is a datapath with a pod: a network namespace of its own, whose
// processes are in the cgroup that the hooks see, joined with a namespace in
// which the backends serve.
type node struct {
	*Datapath
	o        Options
	pod      testbed.Place
	backends testbed.Place
}

func newNode(t *testing.T) *node {
	n := &node{o: options(t)}
	cg := filepath.Join(n.o.Cgroup, "pod")
	if err := os.Mkdir(cg, 0o755); err != nil {
		t.Fatal(err)
	}
	n.pod = testbed.Place{NetNS: testbed.NewNetNS(t), Cgroup: cg}
	n.backends = testbed.Place{NetNS: testbed.NewNetNS(t)}
	testbed.Veth(n.pod.NetNS, "eth0", n.backends.NetNS, "eth0")
	n.pod.NetNS.Addr("eth0", "10.1.0.100/24", "fd01::100/64")
	n.backends.NetNS.Addr("eth0", "10.1.0.1/24", "10.1.0.2/24", "fd01::1/64", "fd01::2/64")
	n.backends.Serve(t, "10.1.0.1:80", "one", "10.1.0.2:80", "two", "[fd01::1]:80", "one6", "[fd01::2]:80", "two6")
	n.Datapath = open(t, n.o)
	if err := n.Attach(); err != nil {
		t.Fatal(err)
	}
	return n
}

func (n *node) apply(t *testing.T, ss ...string) {
	t.Helper()
	if err := n.Apply(set(ss...)); err != nil {
		t.Fatal(err)
	}
}

func TestSockets(t *testing.T) {
	n := newNode(t)
	n.apply(t,
		"a 10.96.0.1:80/TCP 10.96.0.1:80/UDP -> 10.1.0.1:80",
		"a2 10.96.0.2:80/UDP -> 10.1.0.2:80",
		"a6 [fd96::1]:80/TCP [fd96::1]:80/UDP -> [fd01::1]:80",
		"none 10.96.0.9:80/TCP 10.96.0.9:80/UDP ->",
		"none6 [fd96::9]:80/TCP [fd96::9]:80/UDP ->",
	)
	for _, c := range []struct{ name, args, want string }{
		{"tcp", "tcp --peer 10.96.0.1:80", "one from 10.96.0.1:80"},
		{"tcp6", "tcp --peer [fd96::1]:80", "one6 from [fd96::1]:80"},
		{"tcp mapped", "tcp --peer --mapped 10.96.0.1:80", "one from [::ffff:10.96.0.1]:80"},
		{"mptcp", "tcp --peer --mptcp 10.96.0.1:80", "one from 10.96.0.1:80"},
		{"udp", "udp --peer 10.96.0.1:80", "one from 10.96.0.1:80"},
		{"udp6", "udp --peer [fd96::1]:80", "one6 from [fd96::1]:80"},
		{"udp mapped", "udp --peer --mapped 10.96.0.1:80", "one from [::ffff:10.96.0.1]:80"},
		{"unconnected udp", "udp --peer --unconnected 10.96.0.1:80", "one from 10.96.0.1:80"},
		{"unconnected udp6", "udp --peer --unconnected [fd96::1]:80", "one6 from [fd96::1]:80"},
		{"unconnected udp mapped", "udp --peer --unconnected --mapped 10.96.0.1:80", "one from [::ffff:10.96.0.1]:80"},
		{"one socket, many services", "udp --peer --unconnected 10.96.0.1:80 10.96.0.2:80 10.96.0.1:80 10.1.0.2:80 10.96.0.2:80",
			"one from 10.96.0.1:80\ntwo from 10.96.0.2:80\none from 10.96.0.1:80\ntwo from 10.1.0.2:80\ntwo from 10.96.0.2:80"},
		{"straight to a backend", "tcp --peer 10.1.0.1:80", "one from 10.1.0.1:80"},
		{"straight to a backend, after the service", "udp --peer --unconnected 10.96.0.1:80 10.1.0.1:80", "one from 10.96.0.1:80\none from 10.1.0.1:80"},
		{"connected anew, straight", "udp --peer 10.96.0.1:80 10.1.0.1:80", "one from 10.96.0.1:80\none from 10.1.0.1:80"},
		{"no backend", "tcp 10.96.0.9:80", "connect: ECONNREFUSED"},
		{"no backend6", "tcp [fd96::9]:80", "connect: ECONNREFUSED"},
		{"no backend udp", "udp 10.96.0.9:80", "connect: ECONNREFUSED"},
		{"no backend udp6 sendto", "udp --unconnected [fd96::9]:80", "sendto: ECONNREFUSED"},
		{"no backend udp sendto mapped", "udp --unconnected --mapped 10.96.0.9:80", "sendto: ECONNREFUSED"},
		{"another port is not ours", "tcp 10.96.0.1:81", "connect: ENETUNREACH"},
		{"another protocol is not ours", "tcp 10.96.0.2:80", "connect: ENETUNREACH"},
	} {
		t.Run(c.name, func(t *testing.T) {
			if diff := cmp.Diff(n.pod.Probe(t, strings.Fields(c.args)...), c.want); diff != "" {
				t.Error(diff)
			}
		})
	}
	cs, err := n.Counters()
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(cs, map[string]uint64{"refused": 5, "missing_backend": 0, "no_storage": 0}); diff != "" {
		t.Error(diff)
	}
	t.Run("outside of the cgroup", func(t *testing.T) {
		out := testbed.Place{NetNS: n.pod.NetNS}
		if got := out.Probe(t, "tcp", "10.96.0.1:80"); got != "connect: ENETUNREACH" {
			t.Errorf("got %q", got)
		}
	})
}

// socket is one in the pod that a test uses call by call.
type socket struct {
	t  *testing.T
	fd int
}

func (n *node) udp(t *testing.T) socket { return socket{t, n.pod.Socket(t, "udp")} }

func sockaddr(addr string) unix.Sockaddr {
	a := netip.MustParseAddrPort(addr)
	return &unix.SockaddrInet4{Addr: a.Addr().As4(), Port: int(a.Port())}
}

func (s socket) connect(addr string) error { return unix.Connect(s.fd, sockaddr(addr)) }

func (s socket) disconnect() {
	s.t.Helper()
	unspec := unix.RawSockaddrAny{}
	if _, _, errno := unix.Syscall(unix.SYS_CONNECT, uintptr(s.fd), uintptr(unsafe.Pointer(&unspec)), unix.SizeofSockaddrInet4); errno != 0 {
		s.t.Fatal(errno)
	}
}

func (s socket) peer() string {
	sa, err := unix.Getpeername(s.fd)
	return said(sa, err)
}

// ask sends to addr, or to the peer where it is empty, and returns the answer.
func (s socket) ask(addr string) string {
	s.t.Helper()
	var err error
	if addr == "" {
		_, err = unix.Write(s.fd, []byte("?"))
	} else {
		err = unix.Sendto(s.fd, []byte("?"), 0, sockaddr(addr))
	}
	if err != nil {
		s.t.Fatal(err)
	}
	buf := make([]byte, 100)
	for {
		n, from, err := unix.Recvfrom(s.fd, buf, 0)
		if err == unix.EINTR {
			continue
		}
		return strings.TrimSpace(string(buf[:max(n, 0)])) + " from " + said(from, err)
	}
}

func said(sa unix.Sockaddr, err error) string {
	if err != nil {
		return err.Error()
	}
	in := sa.(*unix.SockaddrInet4)
	return netip.AddrPortFrom(netip.AddrFrom4(in.Addr), uint16(in.Port)).String()
}

// An element of a hash map that is deleted is given to another key at once. Who had
// found it before must not take the other's service for its own.
func TestForeignFrontend(t *testing.T) {
	n := newNode(t)
	n.apply(t, "a 10.96.0.1:80/TCP -> 10.1.0.1:80")
	f := service("b 10.96.0.2:80/TCP ->").Frontends[0]
	if err := n.maps[sockMapFrontendsV1].Put(f.key(), service("a 10.96.0.1:80/TCP ->").Frontends[0].value(1)); err != nil {
		t.Fatal(err)
	}
	if got := n.pod.Probe(t, "tcp", "10.96.0.2:80"); got != "connect: ENETUNREACH" {
		t.Errorf("got %q", got)
	}
}

// A connection that is refused leaves a UDP socket connected as it was.
func TestRefusedReconnect(t *testing.T) {
	n := newNode(t)
	n.apply(t, "a 10.96.0.1:80/UDP -> 10.1.0.1:80", "none 10.96.0.9:80/UDP ->")
	s := n.udp(t)
	if err := s.connect("10.96.0.1:80"); err != nil {
		t.Fatal(err)
	}
	if err := s.connect("10.96.0.9:80"); !errors.Is(err, unix.ECONNREFUSED) {
		t.Fatalf("got %v, want ECONNREFUSED", err)
	}
	if got := s.peer(); got != "10.96.0.1:80" {
		t.Errorf("peer %s", got)
	}
	if got := s.ask(""); got != "one from 10.96.0.1:80" {
		t.Errorf("got %s", got)
	}
}

// What a socket was once connected to does not colour what it hears unconnected.
func TestDisconnected(t *testing.T) {
	n := newNode(t)
	n.apply(t, "a 10.96.0.1:80/UDP -> 10.1.0.1:80", "b 10.96.0.2:80/UDP -> 10.1.0.1:80")
	s := n.udp(t)
	if err := s.connect("10.96.0.1:80"); err != nil {
		t.Fatal(err)
	}
	s.disconnect()
	for _, addr := range []string{"10.1.0.1:80", "10.96.0.2:80", "10.1.0.1:80", "10.96.0.1:80"} {
		if got := s.ask(addr); got != "one from "+addr {
			t.Errorf("asked %s, got %s", addr, got)
		}
	}
}

// A connected socket hears its peer alone, so what it sends to its own service by
// name goes to that backend too.
func TestConnectedSendto(t *testing.T) {
	n := newNode(t)
	n.apply(t, "a 10.96.0.1:80/UDP -> 10.1.0.1:80 10.1.0.2:80")
	for range 8 { // of which half would be lucky
		s := n.udp(t)
		if err := s.connect("10.96.0.1:80"); err != nil {
			t.Fatal(err)
		}
		want := s.ask("")
		if got := s.ask("10.96.0.1:80"); got != want {
			t.Fatalf("got %s, want %s", got, want)
		}
	}
}

func TestReconnectedMPTCP(t *testing.T) {
	n := newNode(t)
	n.apply(t, "a 10.96.0.1:80/TCP -> 10.1.0.1:80")
	s := socket{t, n.pod.Socket(t, "--mptcp", "tcp")}
	for _, addr := range []string{"10.96.0.1:80", "10.1.0.1:80"} {
		if err := s.connect(addr); err != nil {
			t.Fatal(err)
		}
		if got := s.peer(); got != addr {
			t.Errorf("connected to %s, peer %s", addr, got)
		}
		s.disconnect()
	}
}

// A flow that had to leave its backend stays with the next one.
func TestUnconnectedStaysAfterAMove(t *testing.T) {
	n := newNode(t)
	n.apply(t, "x1 10.96.1.1:80/UDP -> 10.1.0.3:80", "x2 10.96.1.2:80/UDP -> 10.1.0.4:80", "x3 10.96.1.3:80/UDP -> 10.1.0.5:80",
		"a 10.96.0.1:80/UDP -> 10.1.0.6:80")
	n.backends.NetNS.Addr("eth0", "10.1.0.3/24", "10.1.0.4/24", "10.1.0.5/24", "10.1.0.6/24")
	n.backends.Serve(t, "10.1.0.3:80", "three", "10.1.0.4:80", "four", "10.1.0.5:80", "five", "10.1.0.6:80", "six")
	s := n.udp(t)
	for _, addr := range []string{"10.96.1.1:80", "10.96.1.2:80", "10.96.1.3:80", "10.96.0.1:80"} {
		s.ask(addr)
	}
	n.apply(t, "a 10.96.0.1:80/UDP -> 10.1.0.1:80 10.1.0.2:80")
	want := s.ask("10.96.0.1:80")
	for range 20 {
		if got := s.ask("10.96.0.1:80"); got != want {
			t.Fatalf("got %s, want %s", got, want)
		}
	}
}

// A UDP flow stays with its backend until that goes.
func TestUnconnectedStays(t *testing.T) {
	n := newNode(t)
	n.apply(t, "a 10.96.0.1:80/UDP -> 10.1.0.1:80 10.1.0.2:80")
	seen := map[string]bool{}
	for range 20 {
		args := append([]string{"udp", "--unconnected"}, strings.Fields(strings.Repeat(" 10.96.0.1:80", 20))...)
		lines := strings.Fields(n.pod.Probe(t, args...))
		for _, l := range lines {
			if l != lines[0] {
				t.Fatalf("a flow changed its backend: %v", lines)
			}
		}
		seen[lines[0]] = true
	}
	if len(seen) != 2 {
		t.Errorf("20 flows saw the backends %v only", seen)
	}
}

// The datapath serves without its daemon, and while that comes and goes.
func TestOutlivesTheDaemon(t *testing.T) {
	n := newNode(t)
	n.apply(t, "a 10.96.0.1:80/TCP -> 10.1.0.1:80 10.1.0.2:80")
	stop := n.pod.Load(t, "10.96.0.1:80")
	for range 20 {
		n.Close()
		n.Datapath = open(t, n.o)
		if err := n.Attach(); err != nil {
			t.Fatal(err)
		}
		n.apply(t, "a 10.96.0.1:80/TCP -> 10.1.0.1:80")
		n.apply(t, "a 10.96.0.1:80/TCP -> 10.1.0.1:80 10.1.0.2:80")
	}
	n.Close()
	got := stop()
	if !strings.HasSuffix(got, " failures=0") || got == "attempts=0 failures=0" {
		t.Errorf("got %s", got)
	}
	t.Log(got)
}

// Readers never see a half-written service: backends are replaced as fast as
// they can be while sockets connect on every CPU. Every connection is refused by
// nobody, and no slot is ever missed.
func TestStorm(t *testing.T) {
	n := newNode(t)
	n.apply(t, "a 10.96.0.1:80/TCP -> 10.1.0.1:80")
	var wg sync.WaitGroup
	stops := []func() string{n.pod.Load(t, "10.96.0.1:80"), n.pod.Load(t, "10.96.0.1:80")}
	wg.Go(func() {
		for i := range 2000 {
			// 1, 2 or both, and a neighbour that comes and goes.
			b := []string{"10.1.0.1:80", "10.1.0.1:80 10.1.0.2:80", "10.1.0.2:80"}[i%3]
			if err := n.Apply(set("a 10.96.0.1:80/TCP -> "+b, "b 10.96.0.2:80/TCP -> 10.1.0.9:1 10.1.0.8:1")); err != nil {
				t.Error(err)
				return
			}
			if err := n.Apply(Batch{Delete: []Key{{Service: "b"}}}); err != nil {
				t.Error(err)
				return
			}
		}
	})
	wg.Wait()
	for _, stop := range stops {
		got := stop()
		if !strings.HasSuffix(got, " failures=0") || got == "attempts=0 failures=0" {
			t.Errorf("got %s", got)
		}
		t.Log(got)
	}
	cs, err := n.Counters()
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(cs, map[string]uint64{"refused": 0, "missing_backend": 0, "no_storage": 0}); diff != "" {
		t.Error(diff)
	}
}

// A process that holds a link must not keep Cleanup from detaching it.
func TestCleanupDetaches(t *testing.T) {
	n := newNode(t)
	n.apply(t, "a 10.96.0.1:80/TCP -> 10.1.0.1:80")
	held, err := link.LoadPinnedLink(filepath.Join(n.o.BPFFS, "lbd/links/connect4"), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer held.Close()
	n.Close()
	if _, err := Cleanup(n.o.BPFFS); err != nil {
		t.Fatal(err)
	}
	if got := n.pod.Probe(t, "tcp", "10.96.0.1:80"); got != "connect: ENETUNREACH" {
		t.Errorf("got %q", got)
	}
}
