package host

import (
	"context"
	"errors"
	"fmt"
	"os/exec"
	"strings"
	"sync"
	"syscall"
	"time"
)

// MaxOutput is how many bytes of a program's output Run keeps, the last ones: what
// went wrong stands at the end.
const MaxOutput = 4 << 10

// Run runs a program of the machine, without a shell, and returns the end of what it
// wrote to stdout and stderr, at most MaxOutput bytes. argv[0] is an absolute
// path, or found in PATH. The error tells why it did not end with 0: its exit code, the
// signal that killed it, that it could not be started, or that the timeout passed
// or ctx ended; then it is killed together with all that it started (its process
// group). With a Root it is ErrOffline.
func (h *Host) Run(ctx context.Context, timeout time.Duration, argv ...string) (string, error) {
	if !h.Live() {
		return "", fmt.Errorf("%s: %w", argv[0], ErrOffline)
	}
	ctx, cancel := context.WithTimeoutCause(ctx, timeout, fmt.Errorf("not done after %s, and killed", timeout))
	defer cancel()
	c := exec.CommandContext(ctx, argv[0], argv[1:]...)
	out := &tail{}
	c.Stdout, c.Stderr = out, out
	c.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	c.Cancel = func() error { return syscall.Kill(-c.Process.Pid, syscall.SIGKILL) }
	// A child that left the group may keep the pipe open for ever.
	c.WaitDelay = time.Second
	err := c.Run()
	if ctx.Err() != nil {
		err = context.Cause(ctx)
	}
	var exit *exec.ExitError
	var start *exec.Error
	switch {
	case err == nil, errors.Is(err, exec.ErrWaitDelay):
		// It ended with 0; what it has left running is not waited for.
		err = nil
	case errors.As(err, &exit):
		err = fmt.Errorf("%s: %w", argv[0], exit)
	case errors.As(err, &start):
		err = fmt.Errorf("%s: %w (is it installed, and in PATH?)", argv[0], start.Err)
	default:
		err = fmt.Errorf("%s: %w", argv[0], err)
	}
	return out.String(), err
}

// tail keeps the last MaxOutput bytes.
type tail struct {
	mu  sync.Mutex // Run may return while a grandchild still writes
	b   []byte
	cut bool
}

func (t *tail) Write(p []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.b = append(t.b, p...)
	if n := len(t.b) - MaxOutput; n > 0 {
		t.b, t.cut = append(t.b[:0], t.b[n:]...), true
	}
	return len(p), nil
}

// String is what was kept, from the beginning of a line where something is cut off.
func (t *tail) String() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	s := string(t.b)
	if _, rest, ok := strings.Cut(s, "\n"); t.cut && ok && rest != "" {
		s = rest
	}
	return strings.ToValidUTF8(s, "\uFFFD")
}
