package lbd

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"

	"github.com/nodeprov/nodeprov/bpf"
	"github.com/nodeprov/nodeprov/internal/testbed"
	"github.com/nodeprov/nodeprov/lbd/config"
)

func TestMain(m *testing.M) { testbed.Main(m) }

// node is a daemon's surroundings: a bpffs, a cgroup with a network namespace, in
// which "one" and "two" serve on 10.42.0.1 and .2, fd42::1 and ::2, port 8080.
type node struct {
	t    *testing.T
	conf config.Config
	testbed.Place
}

func newNode(t *testing.T) *node {
	t.Helper()
	dir := t.TempDir()
	n := &node{t: t, conf: config.Default(), Place: testbed.Place{NetNS: testbed.NewNetNS(t), Cgroup: testbed.Cgroup(t)}}
	n.conf.BPFFS = testbed.BPFFS(t)
	n.conf.Cgroup = n.Cgroup
	n.conf.RunDir = filepath.Join(dir, "run")
	n.conf.NodeName = "n1"
	n.NetNS.Addr("lo", "10.42.0.1/24", "10.42.0.2/24", "fd42::1/64", "fd42::2/64")
	n.Serve(t, "10.42.0.1:8080", "one", "10.42.0.2:8080", "two", "[fd42::1]:8080", "one", "[fd42::2]:8080", "two")
	return n
}

// daemon runs a daemon and returns when it is ready; the function that it returns
// ends it as a signal does.
func (n *node) daemon() (stop func()) {
	n.t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	ready, ended := make(chan struct{}), make(chan error, 1)
	var once sync.Once
	go func() {
		ended <- Run(ctx, Options{Config: n.conf, Version: "test", Notify: func(s string) error {
			if s == "READY=1" {
				once.Do(func() { close(ready) })
			}
			return nil
		}})
	}()
	select {
	case <-ready:
	case err := <-ended:
		cancel()
		n.t.Fatalf("run: %v", err)
	}
	stop = sync.OnceFunc(func() {
		cancel()
		if err := <-ended; err != nil {
			n.t.Errorf("run: %v", err)
		}
	})
	n.t.Cleanup(stop)
	return stop
}

func (n *node) line() string {
	st, err := Query(n.t.Context(), n.conf.RunDir)
	if err != nil {
		return err.Error()
	}
	return st.Line()
}

// pins is what is pinned, whoever runs.
func (n *node) pins() string {
	n.t.Helper()
	dp, err := bpf.OpenReadOnly(n.conf.BPFFS)
	if err != nil {
		n.t.Fatal(err)
	}
	defer dp.Close()
	s, err := dp.Services()
	if err != nil {
		n.t.Fatal(err)
	}
	return text(s)
}

// until looks again and again whether got is as wanted.
func (n *node) until(what, want string, got func() string) {
	n.t.Helper()
	deadline := time.Now().Add(30 * time.Second)
	for {
		g := got()
		if g == want {
			return
		}
		if time.Now().After(deadline) {
			n.t.Fatalf("%s: %s", what, cmp.Diff(want, g))
		}
		time.Sleep(5 * time.Millisecond)
	}
}

// web8080 is a service with endpoints on both families, on the node's servers.
func web8080(ends ...int) string {
	y := `apiVersion: v1
kind: Service
metadata: {name: web}
spec:
  clusterIP: 10.43.0.9
  clusterIPs: [10.43.0.9, "fd43::9"]
  ports: [{name: t, port: 80}, {name: u, port: 80, protocol: UDP}]
`
	for _, e := range ends {
		for _, f := range []struct{ family, net string }{{"IPv4", "10.42.0."}, {"IPv6", "fd42::"}} {
			y += fmt.Sprintf("---\napiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\nmetadata: {name: web-%d-%s, labels: {kubernetes.io/service-name: web}}\naddressType: %s\nports: [{name: t, port: 8080}, {name: u, port: 8080, protocol: UDP}]\nendpoints: [{addresses: [\"%s%d\"]}]\n",
				e, strings.ToLower(f.family), f.family, f.net, e)
		}
	}
	return y
}

func TestDaemonServesFiles(t *testing.T) {
	defer goleak.VerifyNone(t, goleak.IgnoreCurrent())
	t.Run("node", func(t *testing.T) {
		n := newNode(t)
		n.conf.Manifests = t.TempDir()
		n.conf.ServiceCIDRs = append(n.conf.ServiceCIDRs, prefix("fd43::/112"))
		replace(t, n.conf.Manifests, "web.yaml", web8080(1))
		stop := n.daemon()
		synced := "1 service, 4 backends, synced with " + n.conf.Manifests + "; hooks 8/8"
		n.until("synced", synced, n.line)
		for _, args := range []string{"tcp 10.43.0.9:80", "tcp [fd43::9]:80", "udp 10.43.0.9:80", "udp [fd43::9]:80", "tcp --mapped 10.43.0.9:80", "udp --unconnected 10.43.0.9:80"} {
			if d := cmp.Diff("one", n.Probe(t, strings.Fields(args)...)); d != "" {
				t.Errorf("%s: %s", args, d)
			}
		}
		// Outside of the cgroup nothing is served.
		if got := (testbed.Place{NetNS: n.NetNS}).Probe(t, "tcp", "10.43.0.9:80"); got != "connect: ENETUNREACH" {
			t.Error(got)
		}

		if err := Run(t.Context(), Options{Config: n.conf}); !errors.Is(err, bpf.ErrLocked) {
			t.Errorf("a second daemon: %v", err)
		}
		replace(t, n.conf.Manifests, "web.yaml", web8080(2))
		n.until("other endpoints", "two", func() string { return n.Probe(t, "tcp", "10.43.0.9:80") })
		replace(t, n.conf.Manifests, "web.yaml", web8080())
		n.until("none", "connect: ECONNREFUSED", func() string { return n.Probe(t, "tcp", "10.43.0.9:80") })
		replace(t, n.conf.Manifests, "web.yaml", web8080(1, 2))
		n.until("two", "1 service, 8 backends, synced with "+n.conf.Manifests+"; hooks 8/8", n.line)

		// Restarts under load: the pins serve all the time.
		load := n.Load(t, "10.43.0.9:80")
		held := n.pins()
		for range 5 {
			stop()
			if d := cmp.Diff(held, n.pins()); d != "" {
				t.Fatalf("after the end: %s", d)
			}
			stop = n.daemon()
			if d := cmp.Diff(held, n.pins()); d != "" {
				t.Fatalf("after the start: %s", d)
			}
			replace(t, n.conf.Manifests, "web.yaml", web8080(1))
			n.until("smaller", synced, n.line)
			replace(t, n.conf.Manifests, "web.yaml", web8080(1, 2))
			n.until("larger", "1 service, 8 backends, synced with "+n.conf.Manifests+"; hooks 8/8", n.line)
			held = n.pins()
		}
		if got := load(); !strings.HasSuffix(got, " failures=0") || strings.HasPrefix(got, "attempts=0") {
			t.Error(got)
		}

		// What goes while nobody looks is gone after the next sync, not before.
		stop()
		if err := os.Remove(filepath.Join(n.conf.Manifests, "web.yaml")); err != nil {
			t.Fatal(err)
		}
		replace(t, n.conf.Manifests, "broken.yaml", "kind: [")
		stop = n.daemon()
		n.until("not synced", held, n.pins)
		if got := n.line(); !strings.HasPrefix(got, "not synced since ") || !strings.HasSuffix(got, "serving 1 service, 8 backends; hooks 8/8") {
			t.Error(got)
		}
		if got := n.Probe(t, "tcp", "10.43.0.9:80"); got != "one" && got != "two" {
			t.Error(got)
		}
		if err := os.Remove(filepath.Join(n.conf.Manifests, "broken.yaml")); err != nil {
			t.Fatal(err)
		}
		n.until("synced", "", n.pins)
		if got := n.Probe(t, "tcp", "10.43.0.9:80"); got != "connect: ENETUNREACH" {
			t.Error(got)
		}
		stop()
		if _, err := bpf.Cleanup(n.conf.BPFFS); err != nil {
			t.Error(err)
		}
	})
}

func prefix(s string) netip.Prefix { return netip.MustParsePrefix(s) }
