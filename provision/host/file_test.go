package host_test

import (
	"bytes"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"sync/atomic"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/nodeprov/nodeprov/provision/host"
)

func TestFile(t *testing.T) {
	h, root := tree(t, nil)
	if _, err := h.File("/etc/a/b.conf"); !errors.Is(err, fs.ErrNotExist) {
		t.Fatalf("no directory: %v", err)
	}
	for name, f := range map[string]host.File{
		"text":    {Mode: 0o644, Content: []byte("a\n")},
		"binary":  {Mode: 0o600, UID: 7, GID: 8, Content: []byte{0, 0xff, '\r', '\n'}},
		"special": {Mode: 0o755 | fs.ModeSetuid | fs.ModeSetgid | fs.ModeSticky, UID: 3, GID: 4, Content: []byte("#!")},
		"empty":   {Mode: 0, Content: []byte{}},
	} {
		if err := h.WriteFile("/etc/a/b.conf", f); err != nil {
			t.Fatal(err)
		}
		got, err := h.File("/etc/a/b.conf")
		if err != nil {
			t.Fatal(err)
		}
		if d := cmp.Diff(f, got); d != "" {
			t.Errorf("%s: %s", name, d)
		}
	}
	if fi, err := os.Stat(filepath.Join(root, "etc/a")); err != nil || fi.Mode().Perm() != 0o755 {
		t.Errorf("directory made: %v, %v", fi.Mode(), err)
	}
	if d := cmp.Diff([]string{"b.conf"}, names(t, root, "etc/a")); d != "" {
		t.Error(d)
	}
	fi, err := os.Stat(filepath.Join(root, "etc/a/b.conf"))
	if err != nil {
		t.Fatal(err)
	}
	if at, err := h.ModTime("/etc/a/b.conf"); err != nil || !at.Equal(fi.ModTime()) {
		t.Errorf("%v, %v", at, err)
	}
	if _, err := h.ModTime("/etc/a"); !errors.Is(err, host.ErrNotRegular) {
		t.Errorf("a directory's time: %v", err)
	}
	for range 2 { // what is not there is removed as well
		if err := h.Remove("/etc/a/b.conf"); err != nil {
			t.Fatal(err)
		}
	}
	if err := h.Remove("/no/such/dir/x"); err != nil {
		t.Fatal(err)
	}
	if _, err := h.File("/etc/a/b.conf"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("removed: %v", err)
	}
}

func TestFileRefused(t *testing.T) {
	h, root := tree(t, map[string]string{"etc/file": "x"})
	abs := func(p string) string { return filepath.Join(root, p) }
	outside := filepath.Join(t.TempDir(), "outside")
	for _, err := range []error{
		os.Mkdir(abs("etc/dir"), 0o755),
		os.Symlink("file", abs("etc/link")),
		syscall.Mkfifo(abs("etc/fifo"), 0o600),
		os.Mkdir(outside, 0o755),
		os.Symlink(outside, abs("etc/out")),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	big := make([]byte, host.MaxFileSize+1)
	if err := os.WriteFile(abs("etc/big"), big, 0o644); err != nil {
		t.Fatal(err)
	}
	for _, tc := range []struct {
		path, want string
		is         error
	}{
		{"/etc/dir", "/etc/dir is a directory: not a regular file (move it away, then apply again)", host.ErrNotRegular},
		{"/etc/link", "/etc/link is a symbolic link to file: not a regular file (move it away, then apply again)", host.ErrNotRegular},
		{"/etc/fifo", "/etc/fifo is a FIFO: not a regular file (move it away, then apply again)", host.ErrNotRegular},
		// A link out of the image would have us write the builder's own files.
		{"/etc/out/x", "openat /etc/out: path escapes from parent", nil},
		{"etc/x", `path etc/x: must be absolute, without "." and ".." and doubled or trailing slashes`, nil},
		{"/etc/../x", `path /etc/../x: must be absolute, without "." and ".." and doubled or trailing slashes`, nil},
		{"/etc/x/", `path /etc/x/: must be absolute, without "." and ".." and doubled or trailing slashes`, nil},
	} {
		for op, err := range map[string]error{
			"read":   second(h.File(tc.path)),
			"write":  h.WriteFileAtomic(tc.path, []byte("y"), 0o644),
			"remove": h.Remove(tc.path),
		} {
			got := text(err)
			if op == "write" && tc.path == "/etc/out/x" {
				if err == nil {
					t.Error("written out of the root")
				}
				continue
			}
			if got != tc.want || tc.is != nil && !errors.Is(err, tc.is) {
				t.Errorf("%s %s: got %q, want %q", op, tc.path, got, tc.want)
			}
		}
	}
	if _, err := h.File("/etc/big"); err == nil {
		t.Error("a huge file was read")
	}
	if err := h.WriteFileAtomic("/etc/file/x", nil, 0o644); err == nil {
		t.Error("a file was taken for a directory")
	}
	if d := cmp.Diff([]string{"big", "dir", "fifo", "file", "link", "out"}, names(t, root, "etc")); d != "" {
		t.Error(d)
	}
	if d := cmp.Diff([]string(nil), names(t, outside, ".")); d != "" {
		t.Error(d)
	}
}

// A killed writer leaves its temporary file; the next one clears it away, and
// nothing that only looks like it.
func TestFileLeftovers(t *testing.T) {
	h, root := tree(t, map[string]string{
		"etc/.a.conf1234567890123456789": "half", "etc/.a.conf.swp": "", "etc/.a.conf12": "", "etc/.b.conf1234567890123456789": "",
	})
	if err := h.WriteFileAtomic("/etc/a.conf", []byte("whole"), 0o644); err != nil {
		t.Fatal(err)
	}
	want := []string{".a.conf.swp", ".a.conf12", ".b.conf1234567890123456789", "a.conf"}
	if d := cmp.Diff(want, names(t, root, "etc")); d != "" {
		t.Error(d)
	}
}

func TestFileIsNeverHalf(t *testing.T) {
	h, _ := tree(t, nil)
	texts := [][]byte{bytes.Repeat([]byte("a"), 1<<16), bytes.Repeat([]byte("b"), 1<<15)}
	write := func(i int) error { return h.WriteFileAtomic("/f", texts[i%2], 0o644) }
	if err := write(0); err != nil {
		t.Fatal(err)
	}
	var stop atomic.Bool
	done := make(chan error, 1)
	go func() {
		defer stop.Store(true)
		for i := range 50 {
			if err := write(i); err != nil {
				done <- err
				return
			}
		}
		done <- nil
	}()
	for !stop.Load() {
		b, err := h.ReadFile("/f")
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(b, texts[0]) && !bytes.Equal(b, texts[1]) {
			t.Fatalf("half a file: %d bytes", len(b))
		}
	}
	if err := <-done; err != nil {
		t.Fatal(err)
	}
}

func names(t *testing.T, root, dir string) []string {
	t.Helper()
	es, err := os.ReadDir(filepath.Join(root, dir))
	if err != nil {
		t.Fatal(err)
	}
	var ns []string
	for _, e := range es {
		ns = append(ns, e.Name())
	}
	return ns
}
