package lbd

import (
	"context"
	"errors"
	"io"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"

	"github.com/nodeprov/nodeprov/internal/testbed"
)

// wire passes connections on to an address, and can be cut.
type wire struct {
	t  *testing.T
	to string

	mu    sync.Mutex
	addr  string
	l     net.Listener
	conns map[net.Conn]bool
}

func newWire(t *testing.T, to string) *wire {
	w := &wire{t: t, to: to, addr: "127.0.0.1:0", conns: map[net.Conn]bool{}}
	w.join()
	t.Cleanup(w.cut)
	return w
}

func (w *wire) join() {
	w.t.Helper()
	l, err := net.Listen("tcp", w.addr)
	if err != nil {
		w.t.Fatal(err)
	}
	w.mu.Lock()
	w.l, w.addr = l, l.Addr().String()
	w.mu.Unlock()
	go func() {
		for {
			a, err := l.Accept()
			if err != nil {
				return
			}
			b, err := net.Dial("tcp", w.to)
			if err != nil {
				a.Close()
				continue
			}
			w.mu.Lock()
			w.conns[a], w.conns[b] = true, true
			cut := w.l != l
			w.mu.Unlock()
			if cut {
				a.Close()
				b.Close()
				return
			}
			go func() { io.Copy(a, b); a.Close() }()
			go func() { io.Copy(b, a); b.Close() }()
		}
	}()
}

func (w *wire) cut() {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.l == nil {
		return
	}
	w.l.Close()
	w.l = nil
	for c := range w.conns {
		c.Close()
	}
	clear(w.conns)
}

// cluster is a client of the API with all rights.
type cluster struct {
	t              *testing.T
	core, discover *rest.RESTClient
}

func newCluster(t *testing.T, kubeconfig string) cluster {
	t.Helper()
	conf, err := clientcmd.BuildConfigFromFlags("", kubeconfig)
	if err != nil {
		t.Fatal(err)
	}
	core, err1 := client(conf, corev1.SchemeGroupVersion, "/api")
	discover, err2 := client(conf, discoveryv1.SchemeGroupVersion, "/apis")
	if err := errors.Join(err1, err2); err != nil {
		t.Fatal(err)
	}
	return cluster{t, core, discover}
}

func (c cluster) create(yaml string) {
	c.t.Helper()
	services, slices := objects(c.t, yaml)
	for _, s := range services {
		both := corev1.IPFamilyPolicyRequireDualStack
		s.Spec.IPFamilyPolicy = &both
		c.do(c.core.Post().Namespace("default").Resource("services").Body(s))
	}
	for _, s := range slices {
		// The API wants conditions to be said.
		c.do(c.discover.Post().Namespace("default").Resource("endpointslices").Body(runtime.Object(s)))
	}
}

func (c cluster) deleteService(name string) {
	c.t.Helper()
	c.do(c.core.Delete().Namespace("default").Resource("services").Name(name))
}

func (c cluster) deleteSlices(names ...string) {
	c.t.Helper()
	for _, n := range names {
		c.do(c.discover.Delete().Namespace("default").Resource("endpointslices").Name(n))
	}
}

func (c cluster) do(r *rest.Request) {
	c.t.Helper()
	if err := r.Do(context.Background()).Error(); err != nil {
		c.t.Fatal(err)
	}
}

func TestDaemonServesAPI(t *testing.T) {
	api := testbed.NewAPIServer(t)
	c := newCluster(t, api.Kubeconfig)

	// The daemon's way to the API goes through a wire, with lbd's own rights.
	kubeconfig, err := os.ReadFile(api.ProxyKubeconfig)
	if err != nil {
		t.Fatal(err)
	}
	conf, err := clientcmd.RESTConfigFromKubeConfig(kubeconfig)
	if err != nil {
		t.Fatal(err)
	}
	host, err := url.Parse(conf.Host)
	if err != nil {
		t.Fatal(err)
	}
	w := newWire(t, host.Host)

	n := newNode(t)
	n.conf.Kubeconfig = filepath.Join(t.TempDir(), "agent", "kubeproxy.kubeconfig")
	n.conf.ServiceCIDRs = append(n.conf.ServiceCIDRs, prefix("fd43::/112"))
	stop := n.daemon()
	if got := n.line(); !strings.Contains(got, ": waiting for "+n.conf.Kubeconfig+"; serving 0 services") {
		t.Error(got)
	}
	if err := os.Mkdir(filepath.Dir(n.conf.Kubeconfig), 0o700); err != nil {
		t.Fatal(err)
	}
	for _, text := range []string{"", "apiVersion: v1\nkind: Config\nclu", strings.ReplaceAll(string(kubeconfig), host.Host, w.addr)} {
		if err := os.WriteFile(n.conf.Kubeconfig, []byte(text), 0o600); err != nil { // K3s writes in place, too
			t.Fatal(err)
		}
	}
	web := func() string {
		return strings.Join([]string{n.Probe(t, "tcp", "10.43.0.9:80"), n.Probe(t, "tcp", "[fd43::9]:80"), n.Probe(t, "udp", "10.43.0.9:80"), n.Probe(t, "udp", "[fd43::9]:80")}, ", ")
	}
	served := func() string {
		var lines []string
		for l := range strings.Lines(n.pins()) {
			if strings.HasPrefix(l, "default/web") {
				_, backends, _ := strings.Cut(l, "->")
				lines = append(lines, strings.TrimSpace("->"+backends))
			}
		}
		return strings.Join(lines, "; ")
	}
	synced := func() string {
		st, err := Query(t.Context(), n.conf.RunDir)
		if err != nil {
			t.Fatal(err)
		}
		if st.Healthy {
			return "healthy"
		}
		return strings.Join(st.Missing, "\n")
	}
	n.until("synced", "healthy", synced)

	c.create(web8080())
	n.until("no slice", "->; ->; ->; ->", served)
	if d := cmp.Diff("connect: ECONNREFUSED, connect: ECONNREFUSED, connect: ECONNREFUSED, connect: ECONNREFUSED", web()); d != "" {
		t.Error(d)
	}
	_, slices, _ := strings.Cut(web8080(1), "---\n")
	c.create(slices)
	n.until("a slice for each family", "one, one, one, one", web)
	_, slices, _ = strings.Cut(web8080(2), "---\n")
	c.create(slices)
	const both = "-> 10.42.0.1:8080,10.42.0.2:8080; -> [fd42::1]:8080,[fd42::2]:8080; -> 10.42.0.1:8080,10.42.0.2:8080; -> [fd42::1]:8080,[fd42::2]:8080"
	n.until("two slices for each family", both, served)
	c.deleteSlices("web-1-ipv4", "web-1-ipv6")
	n.until("the first are gone", "two, two, two, two", web)

	// The watch is cut, and what is deleted then must go when it is back.
	w.cut()
	n.until("cut", "false", func() string { return map[bool]string{true: "true", false: "false"}[synced() == "healthy"] })
	if got := synced(); !strings.Contains(got, "connection refused") {
		t.Error(got)
	}
	c.deleteSlices("web-2-ipv4", "web-2-ipv6")
	if d := cmp.Diff("two, two, two, two", web()); d != "" {
		t.Errorf("while it is cut: %s", d)
	}
	w.join()
	n.until("joined", "->; ->; ->; ->", served)
	n.until("healthy again", "healthy", synced)

	// A restart without the API; then the service goes for ever.
	_, slices, _ = strings.Cut(web8080(1, 2), "---\n")
	c.create(slices)
	n.until("two slices again", both, served)
	w.cut()
	stop()
	c.deleteService("web")
	stop = n.daemon()
	n.until("no API", "true", func() string { return map[bool]string{true: "true"}[strings.Contains(synced(), "connection refused")] })
	if d := cmp.Diff(both, served()); d != "" {
		t.Errorf("before the sync: %s", d)
	}
	w.join()
	n.until("synced", "", served)
	if d := cmp.Diff("connect: ENETUNREACH", n.Probe(t, "tcp", "10.43.0.9:80")); d != "" {
		t.Error(d)
	}
	stop()
}
