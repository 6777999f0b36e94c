package lbd

import (
	"context"
	"path/filepath"
	"strings"

	"github.com/fsnotify/fsnotify"
)

// Source fills a Store with Services and EndpointSlices and keeps it so.
type Source interface {
	// String names the source for people: the API's URL, a directory. It may be
	// called at any time, from any goroutine.
	String() string
	// Run works until ctx is done, and then returns nil. Whatever is wrong with
	// the source itself goes to Store.SetFault and is tried again; an error is
	// what cannot be mended by waiting.
	Run(ctx context.Context, store *Store) error
}

// pathWatch tells when the file or directory at path may have changed, whether it
// is there yet or not.
type pathWatch struct {
	*fsnotify.Watcher
	path    string
	watched map[string]bool
}

func newPathWatch(path string) (*pathWatch, error) {
	w, err := fsnotify.NewWatcher()
	if err != nil {
		return nil, err
	}
	return &pathWatch{Watcher: w, path: filepath.Clean(path), watched: map[string]bool{}}, nil
}

// arm watches the deepest directory that exists at or above the path, and its
// parent, where the directory itself may be replaced. What is read after arm is
// either up to date or followed by an event.
func (w *pathWatch) arm() error {
	for {
		var err error
		dir := w.path
		for {
			if err = w.Add(dir); err == nil || dir == filepath.Dir(dir) {
				break
			}
			dir = filepath.Dir(dir)
		}
		if err != nil {
			return err
		}
		keep := map[string]bool{dir: true}
		if parent := filepath.Dir(dir); parent != dir && w.Add(parent) == nil {
			keep[parent] = true
		}
		for old := range w.watched {
			if !keep[old] {
				// It may be gone already, and its watch with it.
				_ = w.Remove(old)
			}
		}
		w.watched = keep
		if dir == w.path {
			return nil
		}
		// A deeper directory may have come before the watch was there.
		next := filepath.Join(dir, strings.SplitN(strings.TrimPrefix(strings.TrimPrefix(w.path, dir), "/"), "/", 2)[0])
		if next == w.path || !isDir(next) {
			return nil
		}
	}
}

// concerns tells whether an event is about the path, something in it, or a
// directory on the way to it.
func (w *pathWatch) concerns(e fsnotify.Event) bool {
	if e.Op == fsnotify.Chmod {
		return false
	}
	if e.Name == w.path || strings.HasPrefix(w.path, strings.TrimSuffix(e.Name, "/")+"/") {
		// A directory was replaced, perhaps: the watch on the old one tells
		// nothing of the new one.
		_ = w.Remove(e.Name)
		delete(w.watched, e.Name)
		return true
	}
	return strings.HasPrefix(e.Name, w.path+"/")
}
