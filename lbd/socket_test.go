package lbd

import (
	"context"
	"errors"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"
)

func TestSocket(t *testing.T) {
	defer goleak.VerifyNone(t, goleak.IgnoreCurrent())
	dir := filepath.Join(t.TempDir(), "run", "lbd")
	path := filepath.Join(dir, socketName)
	if _, err := Query(t.Context(), dir); !errors.Is(err, ErrNotRunning) {
		t.Errorf("no directory: %v", err)
	}
	s, err := listen(dir)
	if err != nil {
		t.Fatal(err)
	}
	for p, want := range map[string]string{dir: "drwx------", path: "Srw-------"} {
		fi, err := os.Stat(p)
		if err != nil {
			t.Fatal(err)
		}
		if got := fi.Mode().String(); got != want {
			t.Errorf("%s: %s, want %s", p, got, want)
		}
	}
	if _, err := listen(dir); err == nil || !strings.Contains(err.Error(), "another lbd listens there") {
		t.Errorf("beside another: %v", err)
	}

	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	answer := errors.New("busy")
	go func() {
		ended <- s.serve(ctx, func(context.Context) (Status, error) {
			if err := answer; err != nil {
				answer = nil
				return Status{}, err
			}
			return Status{Running: true, Node: "n1"}, nil
		})
	}()
	if _, err := Query(ctx, dir); err == nil || !strings.Contains(err.Error(), "503 Service Unavailable: busy") {
		t.Errorf("a loop that hangs: %v", err)
	}
	got, err := Query(ctx, dir)
	if d := cmp.Diff(Status{Running: true, Node: "n1"}, got); d != "" || err != nil {
		t.Error(d, err)
	}
	cancel()
	if err := errors.Join(<-ended, s.Close()); err != nil {
		t.Error(err)
	}
	if es, _ := os.ReadDir(dir); len(es) != 0 {
		t.Errorf("left: %v", es)
	}

	// A killed daemon leaves its socket.
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	l.SetUnlinkOnClose(false)
	l.Close()
	if _, err := Query(t.Context(), dir); !errors.Is(err, ErrNotRunning) {
		t.Errorf("stale socket: %v", err)
	}
	s, err = listen(dir)
	if err != nil {
		t.Fatalf("stale socket: %v", err)
	}
	if err := s.Close(); err != nil {
		t.Error(err)
	}

	if err := os.WriteFile(path, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := listen(dir); err == nil || !strings.Contains(err.Error(), "something else is there") {
		t.Errorf("a file: %v", err)
	}
}
