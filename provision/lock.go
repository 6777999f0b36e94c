package provision

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// lock makes the state directory and takes the lock in it, waiting for as long
// as another process has it. The lock goes with the process, however that ends.
func (e *Engine) lock(ctx context.Context) (func(), error) {
	remedy := "run as root, or give another --state-dir"
	if err := os.MkdirAll(filepath.Dir(e.State), 0o755); err != nil {
		return nil, fmt.Errorf("state directory: %w (%s)", err, remedy)
	}
	if err := os.Mkdir(e.State, 0o700); err != nil && !errors.Is(err, os.ErrExist) {
		return nil, fmt.Errorf("state directory: %w (%s)", err, remedy)
	}
	path := e.file("lock")
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, fmt.Errorf("lock: %w (%s)", err, remedy)
	}
	unlock := func() { _ = f.Close() }
	err = flock(f, unix.LOCK_EX|unix.LOCK_NB)
	if err == nil {
		e.sweep()
		return unlock, nil
	}
	if !errors.Is(err, unix.EWOULDBLOCK) {
		unlock()
		return nil, fmt.Errorf("lock %s: %w", path, err)
	}
	if e.Waiting != nil {
		e.Waiting(path)
	}
	// flock(2) cannot be told to stop, so it waits aside; when it comes too
	// late, it gives the lock back at once.
	got := make(chan error)
	go func() {
		err := flock(f, unix.LOCK_EX)
		select {
		case got <- err:
		case <-ctx.Done():
			unlock()
		}
	}()
	select {
	case err := <-got:
		if err != nil {
			unlock()
			return nil, fmt.Errorf("lock %s: %w", path, err)
		}
		e.sweep()
		return unlock, nil
	case <-ctx.Done():
		return nil, fmt.Errorf("lock %s: %w (another nodeprov is at work; nothing was changed)", path, context.Cause(ctx))
	}
}

// sweep removes what a killed process left of files that it did not get to
// rename into place.
func (e *Engine) sweep() {
	for _, name := range []string{"journal", "report.json", appliedFile, lastGoodFile, tryFile, rebootFile} {
		left, _ := filepath.Glob(e.file("." + name + "[0-9]*")) // the pattern is fine
		for _, f := range left {
			_ = os.Remove(f)
		}
	}
}

// locked tells whether an apply or a rollback is at work.
func (e *Engine) locked() bool {
	f, err := os.Open(e.file("lock"))
	if err != nil {
		return false
	}
	defer f.Close()
	return errors.Is(flock(f, unix.LOCK_SH|unix.LOCK_NB), unix.EWOULDBLOCK)
}

func flock(f *os.File, how int) error {
	for {
		if err := unix.Flock(int(f.Fd()), how); !errors.Is(err, unix.EINTR) {
			return err
		}
	}
}
