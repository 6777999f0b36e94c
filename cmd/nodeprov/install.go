package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strings"
	"syscall"

	"github.com/google/renameio/v2"
	"github.com/spf13/cobra"

	"github.com/nodeprov/nodeprov/internal/cli"
	"github.com/nodeprov/nodeprov/provision/host"
	"github.com/nodeprov/nodeprov/units"
)

func (a *app) installCommand() *cobra.Command {
	var prefix, lbd string
	var dryRun bool
	c := &cobra.Command{
		Use:   "install",
		Short: "Put the binaries and units in place, and enable them",
		Long: `Copies nodeprov and lbd, writes their systemd units and the udev rule, and enables
nodeprov's units, so that the profile is applied at every boot and when a network
device appears. lbd.service is enabled by a profile that has an lbd block.
nodeprov-watch.service is started, or restarted if there is a new version of it. With
--root, everything goes below that directory and the running system is not touched.
A second run changes nothing; "nodeprov uninstall" undoes it.`,
		Example: `  nodeprov install
  nodeprov install --dry-run
  nodeprov install --root /mnt/image --prefix /usr`,
		Args: cli.NoArgs,
	}
	c.Flags().StringVar(&prefix, "prefix", "/usr/local", "the binaries go to PREFIX/bin")
	c.Flags().StringVar(&lbd, "lbd", "", "lbd's binary (default the one beside this nodeprov)")
	c.Flags().BoolVar(&dryRun, "dry-run", false, "print what would be done, and do nothing")
	_ = c.MarkFlagDirname("prefix")
	c.RunE = func(c *cobra.Command, _ []string) error {
		return a.install(c.Context(), prefix, lbd, dryRun)
	}
	return c
}

func (a *app) install(ctx context.Context, prefix, lbd string, dryRun bool) error {
	if !path.IsAbs(prefix) {
		return cli.Usage(fmt.Errorf("--prefix %q: not an absolute path", prefix))
	}
	h, err := host.New(host.Options{Root: a.root})
	if err != nil {
		return fmt.Errorf("--root: %w", err)
	}
	// All that can be wrong is found before the first change.
	self, err := a.executable()
	if err != nil {
		return fmt.Errorf("install: this program's file: %w", err)
	}
	if lbd == "" {
		lbd = filepath.Join(filepath.Dir(self), "lbd")
	}
	bin := path.Join(prefix, "bin")
	var files []units.File
	for name, from := range map[string]string{"nodeprov": self, "lbd": lbd} {
		text, err := os.ReadFile(from)
		if err != nil {
			return fmt.Errorf("install %s: %w (build it, or name it with --%s)", name, err, "lbd")
		}
		files = append(files, units.File{Path: path.Join(bin, name), Mode: 0o755, Text: text})
	}
	if files[0].Path > files[1].Path {
		files[0], files[1] = files[1], files[0]
	}
	us, err := units.Files(units.Options{BinDir: bin})
	if err != nil {
		return cli.Usage(fmt.Errorf("install: %w", err))
	}
	files = append(files, us...)

	in := &installer{app: a, verb: "install", host: h, dryRun: dryRun}
	if err := in.mkdir("/etc/nodeprov"); err != nil {
		return err
	}
	for _, f := range files {
		if err := in.file(f); err != nil {
			return err
		}
	}
	for _, f := range us {
		// lbd's belongs to the profile.
		if !strings.HasPrefix(path.Base(f.Path), "nodeprov-") {
			continue
		}
		by, err := units.WantedBy(f)
		if err != nil {
			return err
		}
		for _, target := range by {
			if err := in.link(path.Join(units.Dir, target+".wants", path.Base(f.Path)), f.Path); err != nil {
				return err
			}
		}
	}
	return in.finish(ctx)
}

// installer puts files in place, each at once or not at all.
type installer struct {
	*app
	verb    string // "install" or "uninstall", for errors
	host    *host.Host
	dryRun  bool
	changes int
}

// say prints a step that changes something.
func (in *installer) say(verb, what string) {
	in.changes++
	fmt.Fprintf(in.stdout, "%-8s %s\n", verb, what)
}

// dir opens the directory of the machine; fs.ErrNotExist when it is not there.
// Below --root, links cannot lead out of it.
func (in *installer) dir(p string, create bool) (*os.Root, error) {
	if in.root == "" {
		if create {
			if err := os.MkdirAll(p, 0o755); err != nil {
				return nil, err
			}
		}
		return os.OpenRoot(p)
	}
	root, err := os.OpenRoot(in.root)
	if err != nil {
		return nil, err
	}
	defer root.Close()
	rel := strings.TrimPrefix(path.Clean(p), "/")
	if create {
		if err := root.MkdirAll(rel, 0o755); err != nil {
			return nil, err
		}
	}
	return root.OpenRoot(rel)
}

func (in *installer) mkdir(p string) error {
	d, err := in.dir(p, false)
	if errors.Is(err, fs.ErrNotExist) {
		in.say("create", p+"/")
		if in.dryRun {
			return nil
		}
		d, err = in.dir(p, true)
	}
	if err != nil {
		return in.fail(p, err)
	}
	return d.Close()
}

func (in *installer) file(f units.File) error {
	dir, name := path.Split(f.Path)
	d, err := in.dir(dir, false)
	if errors.Is(err, fs.ErrNotExist) {
		in.say("install", f.Path)
		if in.dryRun {
			return nil
		}
		d, err = in.dir(dir, true)
	} else if err == nil {
		same, serr := sameFile(d, name, f)
		if serr != nil || same || in.dryRun {
			if serr == nil && !same {
				in.say("install", f.Path)
			}
			return errors.Join(in.fail(f.Path, serr), d.Close())
		}
		in.say("install", f.Path)
	}
	if err != nil {
		return in.fail(f.Path, err)
	}
	defer d.Close()
	p, err := renameio.NewPendingFile(name, renameio.WithRoot(d), renameio.WithStaticPermissions(f.Mode))
	if err != nil {
		return in.fail(f.Path, err)
	}
	defer func() { _ = p.Cleanup() }() // after the rename it does nothing
	if _, err := io.Copy(p, bytes.NewReader(f.Text)); err != nil {
		return in.fail(f.Path, err)
	}
	return in.fail(f.Path, p.CloseAtomicallyReplace())
}

// sameFile tells whether name is a regular file with f's text and mode.
func sameFile(d *os.Root, name string, f units.File) (bool, error) {
	fi, err := d.Lstat(name)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	if fi.IsDir() {
		return false, errors.New("is a directory (remove it)")
	}
	if !fi.Mode().IsRegular() || fi.Mode().Perm() != f.Mode || fi.Size() != int64(len(f.Text)) {
		return false, nil
	}
	text, err := d.ReadFile(name)
	return bytes.Equal(text, f.Text), err
}

// link makes p a symbolic link to a path of the machine.
func (in *installer) link(p, to string) error {
	dir, name := path.Split(p)
	d, err := in.dir(dir, false)
	if err == nil {
		have, rerr := d.Readlink(name)
		if rerr == nil && have == to {
			return d.Close()
		}
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return in.fail(p, err)
	}
	in.say("enable", p)
	if in.dryRun {
		if d != nil {
			return d.Close()
		}
		return nil
	}
	if d == nil {
		if d, err = in.dir(dir, true); err != nil {
			return in.fail(p, err)
		}
	}
	defer d.Close()
	// Made aside and renamed: a unit is never without its link meanwhile.
	tmp := "." + name + ".new"
	if err := d.Remove(tmp); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return in.fail(p, err)
	}
	if err := d.Symlink(to, tmp); err != nil {
		return in.fail(p, err)
	}
	return in.fail(p, d.Rename(tmp, name))
}

func (in *installer) fail(p string, err error) error {
	if err == nil {
		return nil
	}
	if in.root != "" {
		p += " below " + in.root
	}
	remedy := ""
	switch {
	case strings.Contains(err.Error(), "path escapes"): // os.Root's error has no name
		remedy = " (links must not lead out of --root)"
	case errors.Is(err, fs.ErrPermission):
		remedy = " (run as root)"
	case errors.Is(err, syscall.EROFS):
		remedy = " (mount it writable, or name another --prefix or --root)"
	case errors.Is(err, syscall.ENOSPC):
		remedy = " (make room and repeat it)"
	case strings.HasSuffix(err.Error(), "not a directory"): // ENOTDIR, or os.OpenRoot's own
		remedy = " (a file is where a directory must be: move it away)"
	}
	return fmt.Errorf("%s %s: %w%s", in.verb, p, err, remedy)
}

// count is the number of changes in words.
func (in *installer) count() string {
	if in.changes == 1 {
		return "1 change"
	}
	return fmt.Sprintf("%d changes", in.changes)
}

// finish makes systemd see the new units.
func (in *installer) finish(ctx context.Context) error {
	switch {
	case in.changes == 0:
		fmt.Fprintln(in.stdout, "Nothing to change.")
		return nil
	case in.dryRun:
		fmt.Fprintf(in.stdout, "%s would be made.\n", in.count())
		return nil
	case in.root != "":
		fmt.Fprintf(in.stdout, "%s made below %s.\n", in.count(), in.root)
		return nil
	}
	s, err := in.host.Systemd(ctx)
	if errors.Is(err, host.ErrNoSystemd) {
		fmt.Fprintf(in.stdout, "%s made. systemd does not run here, so it was not told.\n", in.count())
		return nil
	}
	if err == nil {
		err = startServices(ctx, s)
	}
	if err != nil {
		return fmt.Errorf("install: everything is in place, but systemd was not told: %w (run systemctl daemon-reload and start %s)", err, strings.Join(services, " and "))
	}
	fmt.Fprintf(in.stdout, "%s made. The profile %s is applied at the next boot, or now with \"nodeprov apply\".\n", in.count(), defaultProfile)
	return nil
}

// services are the units that run for as long as the machine does. They change
// nothing until a profile has been applied.
var services = []string{"nodeprov-watch.service", "nodeprov-verify.timer"}

// startServices makes systemd see what was installed. What runs already is
// restarted, as its program is an older one now.
func startServices(ctx context.Context, s *host.Systemd) error {
	if err := s.Reload(ctx); err != nil {
		return err
	}
	for _, name := range services {
		if err := s.Restart(ctx, name); err != nil {
			return err
		}
	}
	return nil
}
