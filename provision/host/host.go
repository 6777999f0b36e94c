// Package host is the only door from nodeprov to the machine: files below /proc,
// /sys and /etc, network links, systemd. Everything else is pure and can be
// tested without a machine.
package host

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
)

// ErrOffline is returned by whatever needs the running kernel where the host is
// only a tree of files (Options.Root).
var ErrOffline = errors.New("no running machine behind --root")

// Options are where a Host looks.
type Options struct {
	// Root is put before every path. Empty means the running machine; with a
	// Root, links and systemd answer ErrOffline.
	Root string
}

// Host is one machine. Its methods may be called from one goroutine at a time.
type Host struct {
	root string
	// systemd is the connection that Systemd has opened, or nil.
	systemd *Systemd
	// modules are depmod's lists that were read, by path.
	modules map[string]moduleList
}

// New returns the Host at o.Root, which must exist.
func New(o Options) (*Host, error) {
	if o.Root != "" {
		fi, err := os.Stat(o.Root)
		if err != nil {
			return nil, err
		}
		if !fi.IsDir() {
			return nil, &os.PathError{Op: "root", Path: o.Root, Err: errors.New("not a directory")}
		}
	}
	return &Host{root: strings.TrimSuffix(o.Root, "/")}, nil
}

// Live tells whether a running machine is behind the host.
func (h *Host) Live() bool { return h.root == "" }

// Path returns where the absolute path p of the machine is found from here.
func (h *Host) Path(p string) string {
	if h.root == "" {
		return p
	}
	return filepath.Join(h.root, p)
}
