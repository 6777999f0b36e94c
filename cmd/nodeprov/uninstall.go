package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"github.com/nodeprov/nodeprov/internal/cli"
	"github.com/nodeprov/nodeprov/provision"
	"github.com/nodeprov/nodeprov/provision/host"
	"github.com/nodeprov/nodeprov/units"
)

func (a *app) uninstallCommand() *cobra.Command {
	u := &uninstaller{installer: installer{app: a, verb: "uninstall"}}
	c := &cobra.Command{
		Use:   "uninstall",
		Short: "Take the binaries and units away",
		Long: `Stops and disables the units, and removes them, the udev rule and the binaries. The
profile and the state directory stay, and so do the values that were applied:
those of the running kernel until the next boot, files for good. With --restore,
everything is first put back to what it was before nodeprov, as by "nodeprov
rollback --to 0"; if that fails, nothing is removed. --purge removes the state
directory too, and with it the means to go back.`,
		Example: `  nodeprov uninstall --restore --purge   # as if it had never been here
  nodeprov uninstall --dry-run`,
		Args: cli.NoArgs,
	}
	c.Flags().StringVar(&u.prefix, "prefix", "/usr/local", "the binaries are in PREFIX/bin")
	c.Flags().BoolVar(&u.restore, "restore", false, "put the machine back to what it was before nodeprov, first of all")
	c.Flags().BoolVar(&u.purge, "purge", false, "remove the state directory, too")
	c.Flags().BoolVar(&u.dryRun, "dry-run", false, "print what would be done, and do nothing")
	_ = c.MarkFlagDirname("prefix")
	c.RunE = func(c *cobra.Command, _ []string) error { return u.run(c.Context()) }
	return c
}

// uninstaller undoes what an installer did.
type uninstaller struct {
	installer
	prefix         string
	restore, purge bool
}

func (u *uninstaller) run(ctx context.Context) error {
	if !path.IsAbs(u.prefix) {
		return cli.Usage(fmt.Errorf("--prefix %q: not an absolute path", u.prefix))
	}
	h, err := host.New(host.Options{Root: u.root})
	if err != nil {
		return fmt.Errorf("--root: %w", err)
	}
	u.host = h
	files, err := units.Files(units.Options{BinDir: path.Join(u.prefix, "bin")})
	if err != nil {
		return cli.Usage(fmt.Errorf("uninstall: %w", err))
	}
	outlastReader()
	if err := u.rollback(ctx); err != nil {
		return err
	}
	var s *host.Systemd
	if u.root == "" && !u.dryRun {
		s, err = h.Systemd(ctx)
		if err != nil && !errors.Is(err, host.ErrNoSystemd) {
			return fmt.Errorf("uninstall: %w; nothing was removed", err)
		}
	}
	if err := u.stop(ctx, s, files); err != nil {
		return err
	}
	if err := u.removeFiles(files); err != nil {
		return err
	}
	return u.finish(ctx, s)
}

// rollback puts everything back, if that is asked for.
func (u *uninstaller) rollback(ctx context.Context) error {
	try, err := (&provision.Engine{Host: u.host, State: u.state()}).Trying()
	if err != nil {
		return fmt.Errorf("uninstall: %w", err)
	}
	if try != nil && try.Reverted == "" {
		// Its timer runs this program.
		return errors.New("uninstall: an apply waits to be confirmed (run nodeprov confirm, or nodeprov rollback, and repeat it)")
	}
	if !u.restore {
		return nil
	}
	if _, err := os.Lstat(u.state()); errors.Is(err, fs.ErrNotExist) {
		return nil // nothing was ever applied
	}
	if u.dryRun {
		u.say("restore", "what was there before nodeprov")
		return nil
	}
	e, err := u.live("uninstall --restore")
	if err != nil {
		return err
	}
	to := 0
	r, err := e.Rollback(ctx, provision.RollbackOptions{To: &to, Progress: func(o provision.Outcome) {
		u.changes++
		_ = o.Write(u.stdout, u.text())
	}})
	if err != nil {
		if r != nil {
			_ = r.WriteSummary(u.stdout, u.text())
		}
		return fmt.Errorf("uninstall: %w; nothing was removed (without --restore it goes)", err)
	}
	return nil
}

// state is where the state directory is found.
func (u *uninstaller) state() string { return u.below(u.stateDir) }

// stop ends the units before their files go, so that systemd does it as they say.
func (u *uninstaller) stop(ctx context.Context, s *host.Systemd, files []units.File) error {
	if s == nil {
		return nil
	}
	for _, f := range files {
		name := path.Base(f.Path)
		if path.Dir(f.Path) != units.Dir || strings.Contains(name, "@") {
			continue // a device's is over as soon as it has begun
		}
		st, err := s.Unit(ctx, name)
		if err == nil && (st.ActiveState == "active" || st.ActiveState == "activating") {
			u.say("stop", name)
			err = s.Stop(ctx, name)
		}
		if err != nil {
			return fmt.Errorf("uninstall: %w; nothing was removed", err)
		}
	}
	return nil
}

// removeFiles removes what install made. Drop-ins and the profile are somebody
// else's.
func (u *uninstaller) removeFiles(files []units.File) error {
	for _, f := range files {
		by, err := units.WantedBy(f)
		if err != nil {
			return err
		}
		for _, target := range by {
			wants := path.Join(units.Dir, target+".wants")
			if err := u.remove("disable", path.Join(wants, path.Base(f.Path))); err != nil {
				return err
			}
			if err := u.rmdir(wants); err != nil {
				return err
			}
		}
	}
	bin := path.Join(u.prefix, "bin")
	for _, f := range append(files, units.File{Path: path.Join(bin, "lbd")}, units.File{Path: path.Join(bin, "nodeprov")}) {
		if err := u.remove("remove", f.Path); err != nil {
			return err
		}
	}
	if !u.purge {
		return u.rmdir("/etc/nodeprov")
	}
	for _, dir := range []string{u.stateDir, provision.RunDir} {
		if err := u.removeAll(dir); err != nil {
			return err
		}
	}
	return u.rmdir("/etc/nodeprov")
}

// remove removes a file or a link, if it is there.
func (u *uninstaller) remove(verb, p string) error {
	dir, name := path.Split(p)
	d, err := u.dir(dir, false)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return u.fail(p, err)
	}
	defer d.Close()
	fi, err := d.Lstat(name)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil
	case err == nil && fi.IsDir():
		err = errors.New("is a directory (remove it)")
	case err == nil:
		u.say(verb, p)
		if !u.dryRun {
			err = d.Remove(name)
		}
	}
	return u.fail(p, err)
}

// rmdir removes a directory if it is empty.
func (u *uninstaller) rmdir(p string) error {
	dir, name := path.Split(p)
	d, err := u.dir(p, false)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return u.fail(p, err)
	}
	es, err := fs.ReadDir(d.FS(), ".")
	if err = errors.Join(err, d.Close()); err != nil || len(es) > 0 || u.dryRun {
		return u.fail(p, err)
	}
	if d, err = u.dir(dir, false); err != nil {
		return u.fail(p, err)
	}
	defer d.Close()
	return u.fail(p, d.Remove(name))
}

// removeAll removes a directory with all that is in it.
func (u *uninstaller) removeAll(p string) error {
	dir, name := filepath.Split(filepath.Clean(p))
	d, err := u.dir(dir, false)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return u.fail(p, err)
	}
	defer d.Close()
	if _, err := d.Lstat(name); errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	u.say("remove", p+"/")
	if u.dryRun {
		return nil
	}
	return u.fail(p, d.RemoveAll(name))
}

// finish makes systemd forget the units.
func (u *uninstaller) finish(ctx context.Context, s *host.Systemd) error {
	where := ""
	switch {
	case u.changes == 0:
		fmt.Fprintln(u.stdout, "Nothing to remove.")
		return nil
	case u.dryRun:
		fmt.Fprintf(u.stdout, "%s would be made.\n", u.count())
		return nil
	case u.root != "":
		where = " below " + u.root
	case s != nil:
		if err := s.Reload(ctx); err != nil {
			return fmt.Errorf("uninstall: everything is removed, but systemd was not told: %w (run systemctl daemon-reload)", err)
		}
	}
	fmt.Fprintf(u.stdout, "%s made%s.\n", u.count(), where)
	if _, err := os.Lstat(u.state()); err == nil {
		fmt.Fprintf(u.stdout, "%s stays: it knows what was there before (--purge removes it).\n", u.stateDir)
	}
	if _, err := os.Lstat(lbdPins); err == nil && u.root == "" {
		fmt.Fprintf(u.stdout, "What lbd has pinned in %s serves on until the next boot, as it is now.\n", lbdPins)
	}
	return nil
}

// lbdPins are lbd's programs and maps.
const lbdPins = "/sys/fs/bpf/lbd"
