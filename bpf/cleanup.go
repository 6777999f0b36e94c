package bpf

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"

	"github.com/cilium/ebpf/link"
)

// ours matches the pins that any version of lbd makes.
var ours = regexp.MustCompile(`^((frontends|services|backends|names|counters|peer|peers)_v[0-9]+|(new_)?(connect|sendmsg|recvmsg|getpeername)[46])$`)

// Cleanup detaches the programs and removes the pins, the links first, and
// returns what it removed. Files that are not ours stay, and so do the
// directories that hold them. It returns ErrLocked while a daemon runs; where
// there is nothing, it removes nothing.
func Cleanup(bpffs string) (removed []string, err error) {
	dir := filepath.Join(bpffs, "lbd")
	if _, err := os.Stat(dir); errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	l, err := lock(dir)
	if err != nil {
		return nil, err
	}
	defer l.Close()

	var errs []error
	for _, sub := range []string{"links", "programs", ""} {
		d := filepath.Join(dir, sub)
		entries, err := os.ReadDir(d)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			errs = append(errs, err)
			continue
		}
		for _, e := range entries {
			if e.IsDir() || !ours.MatchString(e.Name()) {
				continue
			}
			path := filepath.Join(d, e.Name())
			if sub == "links" {
				if err := detach(path); err != nil {
					errs = append(errs, err)
					continue
				}
			}
			if err := os.Remove(path); err != nil {
				errs = append(errs, err)
				continue
			}
			removed = append(removed, path)
		}
		if err := os.Remove(d); err == nil {
			removed = append(removed, d)
		} else if left, _ := os.ReadDir(d); sub != "" || len(left) > 0 {
			errs = append(errs, fmt.Errorf("%w (something in it is not lbd's)", err))
		}
	}
	return removed, errors.Join(errs...)
}

// detach takes a pinned link off its hook, also where some process still holds it.
func detach(path string) error {
	l, err := link.LoadPinnedLink(path, nil)
	if err != nil {
		return fmt.Errorf("pin %s: %w", path, err)
	}
	defer l.Close()
	if err := l.Detach(); err != nil && !errors.Is(err, link.ErrNotSupported) {
		return fmt.Errorf("detach %s: %w", path, err)
	}
	return nil
}
