package provision

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"regexp"
	"strconv"
	"strings"

	"github.com/hashicorp/hcl/v2"

	"github.com/nodeprov/nodeprov/provision/host"
)

// fileKind writes files. No construct of the language is its own yet; lbd's file
// is one.
func fileKind() Kind {
	return Kind{
		Name:     "file",
		Open:     func(name string) (Setting, error) { return openFile(name) },
		Scope:    Machine,
		Lifetime: Persistent,
		Effect:   "now",
	}
}

// file is a regular file. Its value is one line with mode and owner as numbers,
// "0644 0:0", and after it the content, byte for byte. Links, directories and
// devices in its place are refused. Directories that Write made on the way stay
// when the file goes.
type file struct {
	path string
}

// fileWanted asks for a file of root's. rng is the place in the profile.
func fileWanted(path string, mode fs.FileMode, content []byte, rng hcl.Range) Wanted {
	want := fileValue(host.File{Mode: mode, Content: content})
	return Wanted{
		Setting: file{path},
		Want:    func(Value) (Value, error) { return want, nil },
		Range:   rng,
		OnError: Fail,
	}
}

func openFile(name string) (file, error) {
	if !strings.HasPrefix(name, "/") {
		return file{}, fmt.Errorf("file: %q is no absolute path", name)
	}
	return file{name}, nil
}

func (s file) Key() string { return "file/" + s.path }

func (s file) Read(_ context.Context, h *host.Host) (Value, error) {
	f, err := h.File(s.path)
	if errors.Is(err, fs.ErrNotExist) {
		return Value{Absent: true}, nil
	}
	if err != nil {
		return Value{}, fmt.Errorf("file: %w", err)
	}
	return fileValue(f), nil
}

// Write replaces or removes the file. If it is the configuration of a unit that
// runs, that unit is restarted, without waiting: a unit reads its configuration
// when it starts. This belongs to the file because going back needs it as well,
// where the file is put back after the unit. If we are killed in between, the
// unit reads as "with an older configuration".
func (s file) Write(ctx context.Context, h *host.Host, v Value) error {
	if v.Absent {
		if err := h.Remove(s.path); err != nil {
			return fmt.Errorf("file: %w", err)
		}
	} else {
		f, err := parseFile(v)
		if err != nil {
			return fmt.Errorf("file %s: %w", s.path, err)
		}
		if err := h.WriteFile(s.path, f); err != nil {
			return fmt.Errorf("file: %w", err)
		}
	}
	name := unitOf(s.path)
	if name == "" {
		return nil
	}
	if err := restartRunning(ctx, h, name); err != nil {
		return fmt.Errorf("file %s: it is written, but %s may run with the older one: %w", s.path, name, err)
	}
	return nil
}

// special are the bits above the permissions, as chmod(1) numbers them.
func special() map[fs.FileMode]uint32 {
	return map[fs.FileMode]uint32{fs.ModeSetuid: 0o4000, fs.ModeSetgid: 0o2000, fs.ModeSticky: 0o1000}
}

func fileValue(f host.File) Value {
	mode := uint32(f.Mode.Perm())
	for bit, n := range special() {
		if f.Mode&bit != 0 {
			mode |= n
		}
	}
	return Value{Text: fmt.Sprintf("%04o %d:%d\n%s", mode, f.UID, f.GID, f.Content)}
}

func parseFile(v Value) (host.File, error) {
	head, content, _ := strings.Cut(v.Text, "\n")
	m := regexp.MustCompile(`^([0-7]{4}) (\d+):(\d+)$`).FindStringSubmatch(head)
	if m == nil {
		return host.File{}, fmt.Errorf("the value begins with %q, not with mode and owner as in \"0644 0:0\"", head)
	}
	mode, err := strconv.ParseUint(m[1], 8, 12)
	if err != nil {
		return host.File{}, err
	}
	uid, err := strconv.ParseUint(m[2], 10, 32)
	if err != nil {
		return host.File{}, fmt.Errorf("owner: %w", err)
	}
	gid, err := strconv.ParseUint(m[3], 10, 32)
	if err != nil {
		return host.File{}, fmt.Errorf("group: %w", err)
	}
	f := host.File{Mode: fs.FileMode(mode).Perm(), UID: int(uid), GID: int(gid), Content: []byte(content)}
	for bit, n := range special() {
		if uint32(mode)&n != 0 {
			f.Mode |= bit
		}
	}
	return f, nil
}
