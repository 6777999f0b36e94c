package host

import (
	"context"
	"errors"
	"os"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"
)

func TestRun(t *testing.T) {
	h := &Host{}
	for _, tt := range []struct {
		name, script, out, err string
	}{
		{"ends well", "echo out; echo err >&2", "out\nerr\n", ""},
		{"exit code", "echo no; exit 3", "no\n", "/bin/sh: exit status 3"},
		{"killed", "kill -9 $$", "", "/bin/sh: signal: killed"},
		{"not UTF-8", `printf 'a\377b'`, "a\uFFFDb", ""},
		{"leaves a child behind", "sleep 5 & echo left", "left\n", ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			out, err := h.Run(t.Context(), time.Minute, "/bin/sh", "-c", tt.script)
			got := ""
			if err != nil {
				got = err.Error()
			}
			if d := cmp.Diff([]string{tt.out, tt.err}, []string{out, got}); d != "" {
				t.Errorf("(-want +got):\n%s", d)
			}
		})
	}
}

// A program that hangs is killed with all that it started.
func TestRunTimeout(t *testing.T) {
	pids := t.TempDir() + "/pids"
	start := time.Now()
	out, err := (&Host{}).Run(t.Context(), 300*time.Millisecond, "/bin/sh", "-c",
		"trap '' TERM; sleep 60 & echo $$ $! >"+pids+"; echo waiting; wait")
	if err == nil || err.Error() != "/bin/sh: not done after 300ms, and killed" || out != "waiting\n" {
		t.Errorf("%q, %v", out, err)
	}
	if d := time.Since(start); d > 10*time.Second {
		t.Errorf("took %s", d)
	}
	b, err := os.ReadFile(pids)
	if err != nil {
		t.Fatal(err)
	}
	for _, text := range strings.Fields(string(b)) {
		pid, err := strconv.Atoi(text)
		if err != nil {
			t.Fatal(err)
		}
		// Killed it is; the kernel may still be at taking it down.
		fd, err := unix.PidfdOpen(pid, 0)
		if errors.Is(err, unix.ESRCH) {
			continue
		}
		if err != nil {
			t.Fatal(err)
		}
		n, err := unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, 10_000)
		for errors.Is(err, unix.EINTR) {
			n, err = unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, 10_000)
		}
		unix.Close(fd)
		if n != 1 || err != nil {
			t.Errorf("process %d lives: %v", pid, err)
		}
	}
}

func TestRunStops(t *testing.T) {
	ctx, cancel := context.WithCancelCause(t.Context())
	why := errors.New("asked to stop")
	time.AfterFunc(50*time.Millisecond, func() { cancel(why) })
	if _, err := (&Host{}).Run(ctx, time.Minute, "sleep", "60"); !errors.Is(err, why) {
		t.Error(err)
	}
}

func TestRunNotThere(t *testing.T) {
	_, err := (&Host{}).Run(t.Context(), time.Minute, "no-such-program-here")
	if want := "no-such-program-here: executable file not found in $PATH (is it installed, and in PATH?)"; err == nil || err.Error() != want {
		t.Error(err)
	}
	if _, err := (&Host{}).Run(t.Context(), time.Minute, "/etc/passwd"); !errors.Is(err, syscall.EACCES) {
		t.Error(err)
	}
	if _, err := (&Host{root: "/tmp"}).Run(t.Context(), time.Minute, "true"); !errors.Is(err, ErrOffline) {
		t.Error(err)
	}
}

func TestRunTail(t *testing.T) {
	out, err := (&Host{}).Run(t.Context(), time.Minute, "/bin/sh", "-c", "seq 1 5000")
	if err != nil || len(out) > MaxOutput || len(out) < MaxOutput-10 || !strings.HasSuffix(out, "\n5000\n") || strings.HasPrefix(out, "\n") {
		t.Errorf("%d bytes, %v: %.20q", len(out), err, out)
	}
}
