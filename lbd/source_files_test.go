package lbd

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"
	"golang.org/x/sys/unix"
)

func TestParseManifestMistakes(t *testing.T) {
	const slice = "apiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\naddressType: IPv4\n"
	for _, tc := range []struct{ name, file, text, want string }{
		{"syntax", "a.yaml", "apiVersion: v1\nkind: [\n", "a.yaml:2: did not find expected node content"},
		{"syntax in the middle", "a.yaml", "apiVersion: v1\nkind: Service\nmetadata: {name: a, namespace: [}\n", "a.yaml:3: did not find expected node content"},
		{"key", "a.yaml", "a: b\nc:\n  d: e\n   f: g\n", "a.yaml:4: mapping values are not allowed in this context"},
		{"dedent", "a.yaml", "a:\n  b: c\n d: e\n", "a.yaml:3: did not find expected key"},
		{"syntax in the second document", "a.yaml", web("{}") + "---\n\tx: y\n", "a.yaml:6: found character that cannot start any token"},
		{"empty", "a.yaml", "# nothing\n---\n", "a.yaml:1: no object (remove the file to end what it served)"},
		{"scalar", "a.yaml", "hello", "a.yaml:1: not an object (apiVersion, kind, …)"},
		{"other kind", "a.yaml", web("{}") + "---\napiVersion: v1\nkind: Pod\n", `a.yaml:6: apiVersion "v1", kind "Pod": not taken here (v1 Service, v1 List and discovery.k8s.io/v1 EndpointSlice are)`},
		{"no kind", "a.yaml", "a: b\n", `a.yaml:1: apiVersion "", kind "": not taken here (v1 Service, v1 List and discovery.k8s.io/v1 EndpointSlice are)`},
		{"unknown field", "a.yaml", "apiVersion: v1\nkind: Service\nmetadata: {name: web}\nspec:\n  ports:\n  - port: 1\n  - prot: 80\n", `a.yaml:7: Service: unknown field "spec.ports[1].prot"`},
		{"case matters", "a.yaml", "apiVersion: v1\nkind: Service\nmetadata: {name: web}\nSpec: {}\n", `a.yaml:4: Service: unknown field "Spec"`},
		{"type", "a.yaml", "apiVersion: v1\nkind: Service\nmetadata: {name: web}\nspec:\n  ports:\n  - name: x\n    port: http\n", "a.yaml:7: Service: spec.ports.port: a string stands where a int32 is wanted"},
		{"twice in a mapping", "a.yaml", "apiVersion: v1\nkind: Service\nkind: Service\n", `a.yaml:3: mapping key "kind" already defined at line 2`},
		{"no name", "a.yaml", "apiVersion: v1\nkind: Service\n", "a.yaml:1: Service: it has no metadata.name"},
		{"bad name", "a.yaml", strings.Replace(web("{}"), "name: web", "name: a/b:c", 1), "a.yaml:3: Service \"a/b:c\": a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must start and end with an alphanumeric character (e.g. 'my-name',  or '123-abc', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?')"},
		{"no service", "a.yaml", slice + "metadata: {name: x}\n", "a.yaml:4: EndpointSlice default/x: it belongs to no service (label it kubernetes.io/service-name)"},
		{"twice", "a.yaml", web("{}") + "---\n" + web("{}"), "a.yaml:6: Service default/web: it is in this file twice"},
		{"list", "a.json", "{\"apiVersion\": \"v1\", \"kind\": \"List\", \"items\": [\n\t{\"apiVersion\": \"v1\", \"kind\": \"Secret\"},\n\t{\"apiVersion\": \"v1\", \"kind\": \"Service\"}\n]}", "a.json:2: apiVersion \"v1\", kind \"Secret\": not taken here (v1 Service, v1 List and discovery.k8s.io/v1 EndpointSlice are)\na.json:3: Service: it has no metadata.name"},
		{"list of itself", "a.yaml", "apiVersion: v1\nkind: List\nitems: &x\n- *x\n", "a.yaml:4: List: an item is an alias (write it out)"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			got, err := parseManifest(tc.file, []byte(tc.text))
			if err == nil {
				t.Fatalf("no error: %v", got)
			}
			if d := cmp.Diff(tc.want, err.Error()); d != "" {
				t.Error(d)
			}
		})
	}
}

func TestParseManifest(t *testing.T) {
	services, slices := objects(t, "---\n"+web("{}")+"---\n# nothing\n---\napiVersion: v1\nkind: List\nitems:\n- apiVersion: v1\n  kind: Service\n  metadata: {name: other, namespace: x}\n  status: {loadBalancer: {}}\n"+slice("a", "IPv4", "[]", "[]")+"...\n")
	got := fmt.Sprintln(len(services), services[0].Namespace, services[0].Name, services[1].Namespace, services[1].Name, len(slices), slices[0].Namespace, slices[0].Name)
	if d := cmp.Diff("2 default web x other 1 default a\n", got); d != "" {
		t.Error(d)
	}
	if os, err := parseManifest("a.yaml", []byte("apiVersion: v1\nkind: List\nitems: []\n")); len(os) != 0 || err != nil {
		t.Error(os, err)
	}
}

// filesState runs a Files and returns a function that waits until what the store
// holds reads as wanted.
// A pipe would keep whoever opens it waiting, and the daemon from ending.
func TestManifestIsAPipe(t *testing.T) {
	path := filepath.Join(t.TempDir(), "a.yaml")
	if err := unix.Mkfifo(path, 0o600); err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() {
		_, err := readManifest(path)
		ended <- err
	}()
	select {
	case err := <-ended:
		if err == nil || !strings.Contains(err.Error(), "not a regular file") {
			t.Error(err)
		}
	case <-time.After(10 * time.Second):
		t.Fatal("it waits for a writer")
	}
}

func filesState(t *testing.T, dir string) (want func(what, want string)) {
	t.Helper()
	defer goleak.IgnoreCurrent()
	store := NewStore()
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- NewFiles(dir, slog.New(slog.DiscardHandler)).Run(ctx, store) }()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
	render := func() string {
		var b strings.Builder
		for _, n := range store.Names() {
			s, _ := Services(store.Service(n))
			b.WriteString(text(s))
		}
		_, synced := store.Take()
		fmt.Fprintf(&b, "synced %v\n", synced)
		for _, f := range store.State().Faults {
			fmt.Fprintf(&b, "%s: %s\n", f.Part, strings.ReplaceAll(f.Error, dir, "DIR"))
		}
		return b.String()
	}
	return func(what, want string) {
		t.Helper()
		deadline := time.After(5 * time.Second)
		for render() != want {
			select {
			case <-store.Changed():
			case <-deadline:
				t.Fatalf("%s: %s", what, cmp.Diff(want, render()))
			}
		}
	}
}

// replace writes a file as it should be done.
func replace(t *testing.T, dir, name, text string) {
	t.Helper()
	tmp := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(tmp, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(tmp, filepath.Join(dir, name)); err != nil {
		t.Fatal(err)
	}
}

func TestFiles(t *testing.T) {
	defer goleak.VerifyNone(t, goleak.IgnoreCurrent())
	dir := filepath.Join(t.TempDir(), "a", "b")
	t.Run("life", func(t *testing.T) {
		want := filesState(t, dir)
		want("no directory", "synced false\ndirectory: DIR: no such directory (make it, or name another with --manifests)\n")
		if err := os.MkdirAll(dir, 0o755); err != nil {
			t.Fatal(err)
		}
		want("empty directory", "synced true\n")

		replace(t, dir, "web.yaml", service("web", 1, 1))
		want("a file", "default/web: 10.43.0.1:80/TCP -> 10.42.0.1:80\nsynced true\n")
		replace(t, dir, "web.yaml", service("web", 1, 2))
		want("replaced", "default/web: 10.43.0.1:80/TCP -> 10.42.0.1:80,10.42.0.2:80\nsynced true\n")
		if err := os.WriteFile(filepath.Join(dir, "web.yaml"), []byte(service("web", 1)), 0o644); err != nil {
			t.Fatal(err)
		}
		want("written in place", "default/web: 10.43.0.1:80/TCP -> \nsynced true\n")

		replace(t, dir, "web.yaml", service("web", 2, 1)+"---\nkind: Nonsense\n")
		replace(t, dir, "other.yml", service("other", 3))
		replace(t, dir, "README.md", "ignored")
		replace(t, dir, ".hidden.yaml", "kind: ignored")
		want("one file breaks, the rest goes on", "default/other: 10.43.0.3:80/TCP -> \ndefault/web: 10.43.0.1:80/TCP -> \nsynced true\n"+
			"web.yaml: DIR/web.yaml:14: apiVersion \"\", kind \"Nonsense\": not taken here (v1 Service, v1 List and discovery.k8s.io/v1 EndpointSlice are)\n")
		replace(t, dir, "web.yaml", service("web", 2))
		want("mended", "default/other: 10.43.0.3:80/TCP -> \ndefault/web: 10.43.0.2:80/TCP -> \nsynced true\n")
		if err := os.Truncate(filepath.Join(dir, "web.yaml"), 0); err != nil {
			t.Fatal(err)
		}
		want("truncated", "default/other: 10.43.0.3:80/TCP -> \ndefault/web: 10.43.0.2:80/TCP -> \nsynced true\nweb.yaml: DIR/web.yaml:1: no object (remove the file to end what it served)\n")

		replace(t, dir, "a.json", `{"apiVersion": "v1", "kind": "Service", "metadata": {"name": "other"}, "spec": {"clusterIP": "10.43.0.4", "ports": [{"port": 1}]}}`)
		want("the same object twice: the first file has it", "default/other: 10.43.0.4:1/TCP -> \ndefault/web: 10.43.0.2:80/TCP -> \nsynced true\n"+
			"other.yml: other.yml:2: Service default/other is in a.json already (remove one of them)\nweb.yaml: DIR/web.yaml:1: no object (remove the file to end what it served)\n")
		for _, f := range []string{"web.yaml", "a.json"} {
			if err := os.Remove(filepath.Join(dir, f)); err != nil {
				t.Fatal(err)
			}
		}
		want("removed", "default/other: 10.43.0.3:80/TCP -> \nsynced true\n")

		// The whole directory, and its parent, are replaced.
		next := filepath.Join(t.TempDir(), "next")
		if err := os.Mkdir(next, 0o755); err != nil {
			t.Fatal(err)
		}
		replace(t, next, "web.yaml", service("web", 9))
		if err := os.Rename(dir, dir+".old"); err != nil {
			t.Fatal(err)
		}
		want("directory gone: kept", "default/other: 10.43.0.3:80/TCP -> \nsynced true\ndirectory: DIR: no such directory (make it, or name another with --manifests)\n")
		if err := os.Rename(next, dir); err != nil {
			t.Fatal(err)
		}
		want("another directory", "default/web: 10.43.0.9:80/TCP -> \nsynced true\n")
		replace(t, dir, "web.yaml", service("web", 10))
		want("which is watched", "default/web: 10.43.0.10:80/TCP -> \nsynced true\n")
	})
}

// A restart beside a broken file must not end what the file served: nobody knows
// what it stands for.
func TestFilesBrokenFromTheStartAreNotSynced(t *testing.T) {
	dir := t.TempDir()
	replace(t, dir, "bad.yaml", "kind: [")
	replace(t, dir, "good.yaml", service("good", 1))
	want := filesState(t, dir)
	want("broken", "default/good: 10.43.0.1:80/TCP -> \nsynced false\nbad.yaml: DIR/bad.yaml:1: did not find expected node content\n")
	if err := os.Remove(filepath.Join(dir, "bad.yaml")); err != nil {
		t.Fatal(err)
	}
	want("mended", "default/good: 10.43.0.1:80/TCP -> \nsynced true\n")
}

func TestFilesThroughASymlinkThatIsSwitched(t *testing.T) {
	root := t.TempDir()
	for i, d := range []string{"v1", "v2"} {
		if err := os.Mkdir(filepath.Join(root, d), 0o755); err != nil {
			t.Fatal(err)
		}
		replace(t, filepath.Join(root, d), "web.yaml", service("web", i+1))
	}
	link := filepath.Join(root, "current")
	if err := os.Symlink("v1", link); err != nil {
		t.Fatal(err)
	}
	want := filesState(t, link)
	want("first", "default/web: 10.43.0.1:80/TCP -> \nsynced true\n")
	if err := os.Symlink("v2", link+".new"); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(link+".new", link); err != nil {
		t.Fatal(err)
	}
	want("switched", "default/web: 10.43.0.2:80/TCP -> \nsynced true\n")
	replace(t, filepath.Join(root, "v2"), "web.yaml", service("web", 3))
	want("and watched", "default/web: 10.43.0.3:80/TCP -> \nsynced true\n")
}

func FuzzManifests(f *testing.F) {
	f.Add(service("web", 1, 2))
	f.Add("apiVersion: v1\nkind: List\nitems: &x\n- *x\n")
	f.Add("apiVersion: v1\nkind: Service\nmetadata: {name: a}\nspec: {clusterIP: ::1, ports: [{port: 1e3}, {port: 0x50, name: 2020-01-01}]}\n")
	f.Add("&a\n? *a\n: *a\n")
	f.Add(`{"apiVersion":"v1","kind":"Service","metadata":{"name":"a"},"spec":{"ports":[null]}}`)
	f.Fuzz(func(t *testing.T, yaml string) {
		os, err := parseManifest("f.yaml", []byte(yaml))
		if err != nil {
			if !strings.HasPrefix(err.Error(), "f.yaml:") {
				t.Errorf("no place: %v", err)
			}
			return
		}
		store := NewStore()
		for _, o := range os {
			if o.service != nil {
				store.SetService(o.service)
			} else {
				store.SetSlice(o.slice)
			}
		}
		for _, n := range store.Names() {
			services, _ := Services(store.Service(n))
			for _, s := range services {
				if len(s.Frontends) == 0 || !strings.HasPrefix(s.Service, n.String()) {
					t.Errorf("%+v", s)
				}
			}
		}
	})
}
