package host

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/coreos/go-systemd/v22/unit"
)

// UnitDir is where the administrator's unit files, drop-ins and links are.
const UnitDir = "/etc/systemd/system"

// unitPath are the directories of unit files that an image can have, the strongest
// first (systemd.unit(5)).
func unitPath() []string {
	return []string{UnitDir, "/usr/local/lib/systemd/system", "/usr/lib/systemd/system", "/lib/systemd/system"}
}

// UnitFiles is what can be done to units where no systemd runs: their files and
// links in a tree, as `systemctl --root` treats them.
type UnitFiles struct {
	h *Host
}

// UnitFiles returns the unit files of the host.
func (h *Host) UnitFiles() *UnitFiles { return &UnitFiles{h} }

// UnitInstall is the [Install] section of a unit file.
type UnitInstall struct {
	// Found tells whether there is one that enabling can do something with.
	Found                bool
	WantedBy, RequiredBy []string
	Alias, Also          []string
	DefaultInstance      string
}

// ParseUnitInstall reads the [Install] section of a unit file or drop-in. The error
// says that the text is none.
func ParseUnitInstall(text []byte) (UnitInstall, error) {
	for line := range bytes.Lines(text) {
		line = bytes.TrimSpace(line)
		if len(line) == 0 || line[0] == '#' || line[0] == ';' {
			continue
		}
		if line[0] != '[' {
			return UnitInstall{}, fmt.Errorf("%q stands before the first section, as [Unit] or [Service] are", line)
		}
		break
	}
	opts, err := unit.DeserializeOptions(bytes.NewReader(text))
	if err != nil {
		return UnitInstall{}, err
	}
	var in UnitInstall
	lists := map[string]*[]string{"WantedBy": &in.WantedBy, "RequiredBy": &in.RequiredBy, "Alias": &in.Alias, "Also": &in.Also}
	for _, o := range opts {
		if o.Section != "Install" {
			continue
		}
		if o.Name == "DefaultInstance" {
			in.DefaultInstance = o.Value
			continue
		}
		if to := lists[o.Name]; to != nil {
			if o.Value == "" { // an empty assignment starts the list anew
				*to = nil
			}
			*to = append(*to, strings.Fields(o.Value)...)
		}
	}
	in.Found = len(in.WantedBy)+len(in.RequiredBy)+len(in.Alias)+len(in.Also) > 0
	return in, nil
}

// Unit returns the state of the unit's file: LoadState and UnitFileState, with
// systemd's words. Nothing runs, so the rest is empty.
func (u *UnitFiles) Unit(_ context.Context, name string) (UnitState, error) {
	f, err := u.find(name)
	if errors.Is(err, fs.ErrNotExist) {
		return UnitState{LoadState: "not-found"}, nil
	}
	if err != nil {
		return UnitState{}, fmt.Errorf("unit file of %s: %w", name, err)
	}
	if f.masked {
		return UnitState{LoadState: "masked", UnitFileState: "masked"}, nil
	}
	st := UnitState{LoadState: "loaded", UnitFileState: "static"}
	links, err := u.links(name, f.install)
	if err != nil {
		return UnitState{}, fmt.Errorf("unit file of %s: %w", name, err)
	}
	if f.install.Found {
		st.UnitFileState = "disabled"
	}
	for _, l := range links {
		if _, err := u.readlink(l); err == nil {
			st.UnitFileState = "enabled"
			break
		}
	}
	return st, nil
}

// MainStart is the zero time: nothing runs.
func (u *UnitFiles) MainStart(context.Context, string) (time.Time, error) {
	return time.Time{}, nil
}

// Enable makes the links that start the unit at boot.
func (u *UnitFiles) Enable(_ context.Context, name string) error {
	seen := map[string]bool{}
	var enable func(name string) error
	enable = func(name string) error {
		if seen[name] {
			return nil
		}
		seen[name] = true
		f, err := u.find(name)
		if err != nil {
			return err
		}
		if f.masked {
			return errors.New("it is masked")
		}
		if !f.install.Found {
			return errors.New("its file has no [Install] section, so nothing would start it at boot (give it one, or ask for its state only)")
		}
		links, err := u.links(name, f.install)
		if err != nil {
			return err
		}
		for _, l := range links {
			if err := u.symlink(f.path, l); err != nil {
				return err
			}
		}
		for _, also := range f.install.Also {
			if err := enable(also); err != nil && !errors.Is(err, fs.ErrNotExist) {
				return fmt.Errorf("%s, which it names in Also=: %w", also, err)
			}
		}
		return nil
	}
	if err := enable(name); err != nil {
		return fmt.Errorf("enable %s: %w", name, err)
	}
	return nil
}

// Disable removes the links that Enable makes.
func (u *UnitFiles) Disable(_ context.Context, name string) error {
	seen := map[string]bool{}
	var disable func(name string) error
	disable = func(name string) error {
		if seen[name] {
			return nil
		}
		seen[name] = true
		f, err := u.find(name)
		if err != nil || f.masked {
			return err
		}
		links, err := u.links(name, f.install)
		if err != nil {
			return err
		}
		for _, l := range links {
			if err := u.unlink(l); err != nil {
				return err
			}
		}
		for _, also := range f.install.Also {
			if err := disable(also); err != nil && !errors.Is(err, fs.ErrNotExist) {
				return fmt.Errorf("%s, which it names in Also=: %w", also, err)
			}
		}
		return nil
	}
	if err := disable(name); err != nil {
		return fmt.Errorf("disable %s: %w", name, err)
	}
	return nil
}

// Mask makes the unit impossible to start.
func (u *UnitFiles) Mask(_ context.Context, name string) error {
	if err := u.symlink("/dev/null", path.Join(UnitDir, name)); err != nil {
		return fmt.Errorf("mask %s: %w (a unit file in %s is in the way of the mask: remove it)", name, err, UnitDir)
	}
	return nil
}

// Unmask undoes Mask.
func (u *UnitFiles) Unmask(_ context.Context, name string) error {
	p := path.Join(UnitDir, name)
	if to, err := u.readlink(p); err != nil || to != "/dev/null" {
		return nil //nolint:nilerr // what is no link is no mask
	}
	if err := u.unlink(p); err != nil {
		return fmt.Errorf("unmask %s: %w", name, err)
	}
	return nil
}

// Start does nothing: nothing runs in a tree of files.
func (u *UnitFiles) Start(context.Context, string) error { return nil }

// Restart does nothing either.
func (u *UnitFiles) Restart(context.Context, string) error { return nil }

// Stop does nothing either.
func (u *UnitFiles) Stop(context.Context, string) error { return nil }

// ResetFailed does nothing either.
func (u *UnitFiles) ResetFailed(context.Context, string) error { return nil }

// Reload does nothing either.
func (u *UnitFiles) Reload(context.Context) error { return nil }

// unitFile is a unit's file, that of its template for an instance.
type unitFile struct {
	path    string
	masked  bool
	install UnitInstall
}

// Installed tells whether the unit has a file.
func (u *UnitFiles) Installed(name string) (bool, error) {
	_, err := u.find(name)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	return err == nil, err
}

func (u *UnitFiles) find(name string) (unitFile, error) {
	names := []string{name}
	if prefix, _, ok := instance(name); ok {
		names = append(names, prefix+"@"+path.Ext(name))
	}
	for _, n := range names {
		for _, dir := range unitPath() {
			p := path.Join(dir, n)
			if to, err := u.readlink(p); err == nil && to == "/dev/null" {
				return unitFile{path: p, masked: true}, nil
			} else if err == nil && dir == UnitDir {
				// Another name of a unit, or a file that is linked from
				// elsewhere; systemctl link makes those.
				b, err := u.h.ReadFile(path.Join(dir, to))
				if path.IsAbs(to) {
					b, err = u.h.ReadFile(to)
				}
				if err != nil {
					return unitFile{}, err
				}
				in, err := ParseUnitInstall(b)
				return unitFile{path: p, install: in}, err
			}
			b, err := u.h.ReadFile(p)
			if errors.Is(err, fs.ErrNotExist) {
				continue
			}
			if err != nil {
				return unitFile{}, err
			}
			if len(b) == 0 { // an empty file masks as well
				return unitFile{path: p, masked: true}, nil
			}
			in, err := ParseUnitInstall(b)
			if err != nil {
				return unitFile{}, fmt.Errorf("%s: %w", p, err)
			}
			return unitFile{path: p, install: in}, nil
		}
	}
	return unitFile{}, fmt.Errorf("no unit file %s in %s: %w", name, strings.Join(unitPath(), ", "), fs.ErrNotExist)
}

// links are the paths of the links that enabling the unit makes.
func (u *UnitFiles) links(name string, in UnitInstall) ([]string, error) {
	if strings.HasSuffix(strings.TrimSuffix(name, path.Ext(name)), "@") {
		if in.DefaultInstance == "" && in.Found {
			return nil, errors.New("it is a template (name an instance, or give its file a DefaultInstance=)")
		}
		name = strings.TrimSuffix(name, path.Ext(name)) + in.DefaultInstance + path.Ext(name)
	}
	_, inst, _ := instance(name)
	var links []string
	for _, set := range []struct {
		names  []string
		suffix string
	}{{in.WantedBy, ".wants"}, {in.RequiredBy, ".requires"}} {
		for _, n := range set.names {
			links = append(links, path.Join(UnitDir, n+set.suffix, name))
		}
	}
	for _, n := range in.Alias {
		links = append(links, path.Join(UnitDir, n))
	}
	for i, l := range links {
		l = strings.NewReplacer("%i", inst, "%%", "%").Replace(l)
		if strings.Contains(l, "%") {
			return nil, fmt.Errorf("its [Install] section has a specifier other than %%i in %q (enable it on the machine itself)", l)
		}
		links[i] = l
	}
	slices.Sort(links)
	return slices.Compact(links), nil
}

// instance splits PREFIX@INSTANCE.TYPE.
func instance(name string) (prefix, inst string, ok bool) {
	prefix, inst, ok = strings.Cut(strings.TrimSuffix(name, path.Ext(name)), "@")
	return prefix, inst, ok && inst != ""
}

func (u *UnitFiles) readlink(p string) (string, error) {
	dir, base, err := u.h.openDir(p, false)
	if err != nil {
		return "", err
	}
	defer dir.Close()
	to, err := dir.Readlink(base)
	return to, named(err, p)
}

// symlink makes p a link to to, unless it is one; another thing in its place is
// refused.
func (u *UnitFiles) symlink(to, p string) error {
	if have, err := u.readlink(p); err == nil && have == to {
		return nil
	} else if err == nil {
		return fmt.Errorf("%s is a link to %s already", p, have)
	}
	dir, base, err := u.h.openDir(p, true)
	if err != nil {
		return err
	}
	defer dir.Close()
	if err := dir.Symlink(to, base); err != nil {
		return named(err, p)
	}
	return named(syncDir(dir), p)
}

// unlink removes the link p, and its directory if that is one of links only and
// empty then, as systemctl does.
func (u *UnitFiles) unlink(p string) error {
	if _, err := u.readlink(p); err != nil {
		return nil // there is none
	}
	dir, base, err := u.h.openDir(p, false)
	if err != nil {
		return err
	}
	defer dir.Close()
	if err := dir.Remove(base); err != nil {
		return named(err, p)
	}
	if err := syncDir(dir); err != nil {
		return named(err, p)
	}
	if d := path.Dir(p); strings.HasSuffix(d, ".wants") || strings.HasSuffix(d, ".requires") {
		up, name, err := u.h.openDir(d, false)
		if err != nil {
			return err
		}
		defer up.Close()
		if err := up.Remove(name); err != nil && !errors.Is(err, syscall.ENOTEMPTY) {
			return named(err, d)
		}
	}
	return nil
}
