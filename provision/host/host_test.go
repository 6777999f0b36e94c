package host_test

import (
	"os"
	"path/filepath"
	"runtime"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/nodeprov/nodeprov/provision/host"
)

// live is the running machine. Tests write to it inside of inNetNS only, and
// there only what belongs to the network namespace.
func live(t *testing.T) *host.Host {
	t.Helper()
	h, err := host.New(host.Options{})
	if err != nil {
		t.Fatal(err)
	}
	return h
}

// tree is a host in a directory with these files.
func tree(t *testing.T, files map[string]string) (*host.Host, string) {
	t.Helper()
	root := t.TempDir()
	for name, text := range files {
		p := filepath.Join(root, name)
		if err := os.MkdirAll(filepath.Dir(p), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(p, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	h, err := host.New(host.Options{Root: root})
	if err != nil {
		t.Fatal(err)
	}
	return h, root
}

// inNetNS runs f in a network namespace of its own, which goes with the thread:
// that is never unlocked, so the runtime ends it with the goroutine.
func inNetNS(t *testing.T, f func() error) {
	t.Helper()
	done := make(chan error, 1)
	go func() {
		runtime.LockOSThread()
		if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
			done <- os.NewSyscallError("unshare (root is needed)", err)
			return
		}
		done <- f()
	}()
	if err := <-done; err != nil {
		t.Error(err)
	}
}
