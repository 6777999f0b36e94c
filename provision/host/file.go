package host

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/google/renameio/v2"
)

// MaxFileSize is the size in bytes of the largest file that File reads. What is
// replaced is kept in the journal, which is no place for disk images.
const MaxFileSize = 4 << 20

// ErrNotRegular is the reason for refusing to read, replace or remove what is a
// directory, a symbolic link, a device or a socket.
var ErrNotRegular = errors.New("not a regular file")

// File is a regular file, with all of it that is written and restored: not its
// times, its extended attributes, or its further hard links.
type File struct {
	// Mode holds the permission bits and fs.ModeSetuid, ModeSetgid, ModeSticky.
	Mode fs.FileMode
	// UID and GID own the file.
	UID, GID int
	Content  []byte
}

// fileBits are the bits of a mode that belong to File.Mode.
const fileBits = fs.ModePerm | fs.ModeSetuid | fs.ModeSetgid | fs.ModeSticky

// ReadFile returns the content of whatever can be read at the absolute path p:
// files of /proc and /sys too.
func (h *Host) ReadFile(p string) ([]byte, error) {
	f, err := h.open(p, os.O_RDONLY)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return io.ReadAll(f)
}

// File returns the regular file at the absolute path p. The error is
// fs.ErrNotExist for a file or a directory on the way that is not there, and
// ErrNotRegular for anything but a file. A symbolic link at p is not followed.
func (h *Host) File(p string) (File, error) {
	dir, base, err := h.openDir(p, false)
	if err != nil {
		return File{}, err
	}
	defer dir.Close()
	// Asked before the open: opening a FIFO or a device may block or act.
	if err := checkRegular(dir, base, p); err != nil {
		return File{}, err
	}
	f, err := dir.Open(base)
	if err != nil {
		return File{}, named(err, p)
	}
	defer f.Close()
	fi, err := f.Stat()
	if err != nil {
		return File{}, named(err, p)
	}
	st, ok := fi.Sys().(*syscall.Stat_t)
	if !ok {
		return File{}, fmt.Errorf("%s: the system tells no owner", p)
	}
	content, err := io.ReadAll(io.LimitReader(f, MaxFileSize+1))
	if err != nil {
		return File{}, named(err, p)
	}
	if len(content) > MaxFileSize {
		return File{}, fmt.Errorf("%s: larger than %d bytes (it would have to be kept in the journal; move it away)", p, MaxFileSize)
	}
	return File{Mode: fi.Mode() & fileBits, UID: int(st.Uid), GID: int(st.Gid), Content: content}, nil
}

// ModTime returns when the content of the regular file at the absolute path p
// was written last. Errors are those of File.
func (h *Host) ModTime(p string) (time.Time, error) {
	dir, base, err := h.openDir(p, false)
	if err != nil {
		return time.Time{}, err
	}
	defer dir.Close()
	if err := checkRegular(dir, base, p); err != nil {
		return time.Time{}, err
	}
	fi, err := dir.Lstat(base)
	if err != nil {
		return time.Time{}, named(err, p)
	}
	return fi.ModTime(), nil
}

// WriteFile makes the file at the absolute path p be f. A reader, and a crash at
// any moment, sees the old file or the new one, whole. Directories on the way
// are made with mode 0755. What is at p must be a regular file or nothing.
func (h *Host) WriteFile(p string, f File) error {
	dir, base, err := h.openDir(p, true)
	if err != nil {
		return err
	}
	defer dir.Close()
	if err := checkRegular(dir, base, p); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if err := removeLeftovers(dir, base); err != nil {
		return named(err, p)
	}
	tmp, err := renameio.NewPendingFile(base, renameio.WithRoot(dir), renameio.WithPermissions(0o600))
	if err != nil {
		return named(err, p)
	}
	defer func() { _ = tmp.Cleanup() }() // what is left of it, the next write removes
	if _, err := tmp.Write(f.Content); err != nil {
		return named(err, p)
	}
	if err := tmp.Chown(f.UID, f.GID); err != nil {
		return named(err, p)
	}
	// After the chown, which clears the setuid and setgid bits.
	if err := tmp.Chmod(f.Mode & fileBits); err != nil {
		return named(err, p)
	}
	if err := tmp.CloseAtomicallyReplace(); err != nil {
		return named(err, p)
	}
	return named(syncDir(dir), p)
}

// WriteFileAtomic is WriteFile of a file that belongs to this process' user.
func (h *Host) WriteFileAtomic(p string, data []byte, mode fs.FileMode) error {
	return h.WriteFile(p, File{Mode: mode, UID: os.Geteuid(), GID: os.Getegid(), Content: data})
}

// Remove removes the regular file at the absolute path p; that it is not there
// is no error. Directories stay.
func (h *Host) Remove(p string) error {
	dir, base, err := h.openDir(p, false)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	defer dir.Close()
	if err := removeLeftovers(dir, base); err != nil {
		return named(err, p)
	}
	err = checkRegular(dir, base, p)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	if err := dir.Remove(base); err != nil {
		return named(err, p)
	}
	return named(syncDir(dir), p)
}

// open opens the absolute path p of the machine.
func (h *Host) open(p string, flag int) (*os.File, error) {
	if err := checkPath(p); err != nil {
		return nil, err
	}
	if h.Live() {
		return os.OpenFile(p, flag, 0)
	}
	// An image may hold absolute links, which would lead out of it and into the
	// builder's own files: os.Root refuses them.
	root, err := os.OpenRoot(h.root)
	if err != nil {
		return nil, err
	}
	defer root.Close()
	f, err := root.OpenFile(p[1:], flag, 0)
	return f, named(err, p)
}

// openDir opens the directory of the absolute path p and returns p's last part.
func (h *Host) openDir(p string, create bool) (*os.Root, string, error) {
	if err := checkPath(p); err != nil {
		return nil, "", err
	}
	name, base := filepath.Dir(p), filepath.Base(p)
	if h.Live() {
		if create {
			if err := os.MkdirAll(name, 0o755); err != nil {
				return nil, "", err
			}
		}
		dir, err := os.OpenRoot(name)
		return dir, base, err
	}
	root, err := os.OpenRoot(h.root)
	if err != nil {
		return nil, "", err
	}
	defer root.Close()
	rel := strings.TrimPrefix(name, "/")
	if rel == "" {
		rel = "."
	}
	if create {
		if err := root.MkdirAll(rel, 0o755); err != nil {
			return nil, "", named(err, name)
		}
	}
	dir, err := root.OpenRoot(rel)
	return dir, base, named(err, name)
}

// checkPath tells whether p is absolute and has one spelling only, so that two
// settings cannot mean the same file.
func checkPath(p string) error {
	if !filepath.IsAbs(p) || filepath.Clean(p) != p || p == "/" || strings.ContainsRune(p, 0) {
		return &fs.PathError{Op: "path", Path: p, Err: errors.New(`must be absolute, without "." and ".." and doubled or trailing slashes`)}
	}
	return nil
}

func checkRegular(dir *os.Root, base, p string) error {
	fi, err := dir.Lstat(base)
	if err != nil {
		return named(err, p)
	}
	var is string
	switch m := fi.Mode(); {
	case m.IsRegular():
		return nil
	case m.IsDir():
		is = "a directory"
	case m&fs.ModeSymlink != 0:
		is = "a symbolic link"
		if to, err := dir.Readlink(base); err == nil {
			is += " to " + to
		}
	case m&fs.ModeDevice != 0:
		is = "a device"
	case m&fs.ModeNamedPipe != 0:
		is = "a FIFO"
	default:
		is = "a socket"
	}
	return fmt.Errorf("%s is %s: %w (move it away, then apply again)", p, is, ErrNotRegular)
}

// removeLeftovers removes the temporary files that a killed WriteFile of the
// same path left: ".", the name, and the digits of a random 63-bit number. Only
// one writer is at work at a time, so none of them is in use.
func removeLeftovers(dir *os.Root, base string) error {
	d, err := dir.Open(".")
	if err != nil {
		return err
	}
	defer d.Close()
	names, err := d.Readdirnames(-1)
	if err != nil {
		return err
	}
	for _, name := range names {
		digits, ok := strings.CutPrefix(name, "."+base)
		if !ok || len(digits) < 15 || len(digits) > 19 || strings.Trim(digits, "0123456789") != "" {
			continue
		}
		if err := dir.Remove(name); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	return nil
}

// syncDir makes a rename or an unlink in dir survive a loss of power.
func syncDir(dir *os.Root) error {
	d, err := dir.Open(".")
	if err != nil {
		return err
	}
	defer d.Close()
	return d.Sync()
}

// named gives an error of a path relative to some directory the machine's path.
func named(err error, p string) error {
	if err == nil {
		return nil
	}
	var pe *fs.PathError
	if errors.As(err, &pe) {
		return &fs.PathError{Op: pe.Op, Path: p, Err: pe.Err}
	}
	var le *os.LinkError
	if errors.As(err, &le) {
		return &fs.PathError{Op: le.Op, Path: p, Err: le.Err}
	}
	return fmt.Errorf("%s: %w", p, err)
}
