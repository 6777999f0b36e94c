package host_test

import (
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"github.com/nodeprov/nodeprov/provision/host"
)

// manager is a service manager's socket.
func manager(t *testing.T) (*net.UnixConn, string) {
	t.Helper()
	addr := filepath.Join(t.TempDir(), "notify")
	c, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: addr, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	if err := c.SetReadDeadline(time.Now().Add(10 * time.Second)); err != nil {
		t.Fatal(err)
	}
	return c, addr
}

func TestSupervisor(t *testing.T) {
	c, addr := manager(t)
	s, err := host.NewSupervisor([]string{"NOTIFY_SOCKET=" + addr, "WATCHDOG_USEC=90000000", fmt.Sprintf("WATCHDOG_PID=%d", os.Getpid())})
	if err != nil {
		t.Fatal(err)
	}
	if got := s.Watchdog(); got != 90*time.Second {
		t.Errorf("watchdog %s", got)
	}
	f, err := os.CreateTemp(t.TempDir(), "")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for _, err := range []error{s.Send("READY=1", "STATUS=x"), s.Store("lat", f), s.Forget("lat")} {
		if err != nil {
			t.Fatal(err)
		}
	}
	var got []string
	for range 3 {
		b, oob := make([]byte, 100), make([]byte, 100)
		n, oobn, _, _, err := c.ReadMsgUnix(b, oob)
		if err != nil {
			t.Fatal(err)
		}
		got = append(got, string(b[:n]))
		msgs, err := unix.ParseSocketControlMessage(oob[:oobn])
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range msgs {
			fds, err := unix.ParseUnixRights(&m)
			if err != nil || len(fds) != 1 {
				t.Fatal(fds, err)
			}
			kept := os.NewFile(uintptr(fds[0]), "kept")
			a, _ := kept.Stat()
			b, _ := f.Stat()
			if !os.SameFile(a, b) {
				t.Error("another file is kept")
			}
			kept.Close()
			got = append(got, "a descriptor")
		}
	}
	if d := cmp.Diff([]string{"READY=1\nSTATUS=x", "FDSTORE=1\nFDNAME=lat", "a descriptor", "FDSTOREREMOVE=1\nFDNAME=lat"}, got); d != "" {
		t.Error(d)
	}
}

func TestSupervisorAbsent(t *testing.T) {
	s, err := host.NewSupervisor([]string{"WATCHDOG_USEC=1"})
	if s != nil || err != nil {
		t.Fatal(s, err)
	}
	if err := s.Send("READY=1"); err != nil || s.Watchdog() != 0 || s.Take("x") != nil || s.Store("x", os.Stdin) != nil || s.Forget("x") != nil {
		t.Error("a supervisor that is not there answers")
	}
	if _, err := host.NewSupervisor([]string{"NOTIFY_SOCKET=" + filepath.Join(t.TempDir(), "none")}); err == nil {
		t.Error("a socket that is not there")
	}
	// Both are for another process: an ancestor's.
	_, addr := manager(t)
	s, err = host.NewSupervisor([]string{"NOTIFY_SOCKET=" + addr, "WATCHDOG_USEC=90000000", "WATCHDOG_PID=1", "LISTEN_PID=1", "LISTEN_FDS=1", "LISTEN_FDNAMES=lat"})
	if err != nil || s.Watchdog() != 0 || s.Take("lat") != nil {
		t.Error(err, "what is another process' was taken")
	}
}

// What the manager kept is there again after a restart. The test's binary is
// started once more, with the descriptor as systemd hands it over.
func TestSupervisorTake(t *testing.T) {
	const again = "NODEPROV_TEST_TAKE"
	if os.Getenv(again) != "" {
		s, err := host.NewSupervisor(append(os.Environ(), fmt.Sprintf("LISTEN_PID=%d", os.Getpid()), "LISTEN_FDS=2", "LISTEN_FDNAMES=other:lat"))
		if err != nil {
			t.Fatal(err)
		}
		f := s.Take("lat")
		if f == nil || s.Take("lat") != nil || s.Take("other") == nil {
			t.Fatal("not kept")
		}
		if _, err := f.WriteString("taken"); err != nil {
			t.Fatal(err)
		}
		return
	}
	_, addr := manager(t)
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	f, err := os.CreateTemp(t.TempDir(), "")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	c := exec.CommandContext(t.Context(), exe, "-test.run=^TestSupervisorTake$")
	c.Env = append(os.Environ(), again+"=1", "NOTIFY_SOCKET="+addr)
	c.ExtraFiles = []*os.File{os.Stderr, f} // from descriptor 3 on
	if out, err := c.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	if b, err := os.ReadFile(f.Name()); string(b) != "taken" {
		t.Errorf("%q, %v", b, err)
	}
}
