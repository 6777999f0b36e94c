package host

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"strings"
	"syscall"
	"unicode"
	"unicode/utf8"
)

// SysfsRoot is where the kernel shows its objects as directories.
const SysfsRoot = "/sys"

// SplitSysfs returns the parts of an absolute path below /sys. The error says why it is
// none, or not in its one spelling.
func SplitSysfs(p string) ([]string, error) {
	rest, below := strings.CutPrefix(p, SysfsRoot+"/")
	switch {
	case !utf8.ValidString(p), strings.ContainsFunc(p, unicode.IsControl):
		return nil, fmt.Errorf("%q has a control character, which no such path has", p)
	case path.Clean(p) != p && strings.HasPrefix(path.Clean(p)+"/", SysfsRoot+"/"):
		return nil, fmt.Errorf("%q is spelled %q", p, path.Clean(p))
	case !below, path.Clean(p) != p, rest == "":
		return nil, fmt.Errorf("%q is not below %s", p, SysfsRoot)
	}
	return strings.Split(rest, "/"), nil
}

// ReadSysfs returns the text of the file at the path p below /sys, without the newline
// that it ends with. The error is fs.ErrNotExist for a file that is not there,
// ErrWriteOnly for one that has no value, and ErrOffline where Root holds no /sys.
func (h *Host) ReadSysfs(p string) (string, error) {
	f, err := h.openSysfs(p, os.O_RDONLY)
	if err != nil {
		return "", err
	}
	defer f.Close()
	b, err := io.ReadAll(f)
	switch {
	case errors.Is(err, syscall.EISDIR):
		return "", fmt.Errorf("%s: it is a directory (name one of the files in it)", p)
	case err != nil:
		// Many attributes of devices answer so while the device is down.
		return "", fmt.Errorf("%s: it has no value now, so none could be restored: %w", p, cause(err))
	}
	return strings.TrimSuffix(string(b), "\n"), nil
}

// WriteSysfs writes text to the file at the path p below /sys, with a newline, in one
// call. What the kernel made of it must be read back: it may clamp.
func (h *Host) WriteSysfs(p, text string) error {
	if strings.ContainsAny(text, "\n\x00") {
		return fmt.Errorf("%s: %q has a newline or a NUL, where the kernel would stop reading", p, text)
	}
	f, err := h.openSysfs(p, os.O_WRONLY|os.O_TRUNC)
	if err != nil {
		return err
	}
	defer f.Close()
	_, err = f.Write([]byte(text + "\n"))
	if err == nil {
		err = f.Close()
	}
	switch {
	case err == nil:
		return nil
	case errors.Is(err, syscall.EINVAL), errors.Is(err, syscall.ERANGE):
		remedy := "out of its range, or not of its type"
		if b, err := h.ReadFile(p); err == nil {
			if _, words := SysfsChoice(string(b)); words != nil {
				remedy = "it takes " + strings.Join(words, ", ")
			}
		}
		return fmt.Errorf("%s: the kernel refuses %q: %w (%s)", p, text, cause(err), remedy)
	case errors.Is(err, syscall.EBUSY):
		return fmt.Errorf("%s: the kernel refuses %q: %w (something uses what it would change)", p, text, cause(err))
	}
	return fmt.Errorf("%s: the kernel refuses %q: %w", p, text, cause(err))
}

// SysfsChoice reads the form in which the kernel shows a choice, all words with the
// selected one in brackets: "always [madvise] never". The words are nil for a text of
// another form.
func SysfsChoice(text string) (selected string, words []string) {
	words = strings.Fields(text)
	found := false
	for i, w := range words {
		inner := strings.TrimSuffix(strings.TrimPrefix(w, "["), "]")
		if strings.ContainsAny(inner, "[]") || inner == "" {
			return "", nil
		}
		if inner == w {
			continue
		}
		if found || len(inner)+2 != len(w) {
			return "", nil
		}
		found, selected, words[i] = true, inner, inner
	}
	if !found {
		return "", nil
	}
	return selected, words
}

// SysfsNames returns the sorted names in the directory of /sys with these parts; it is
// empty for one that is not there.
func (h *Host) SysfsNames(parts []string) []string {
	return h.DirNames(strings.Join(append([]string{SysfsRoot}, parts...), "/"))
}

func (h *Host) openSysfs(p string, flag int) (*os.File, error) {
	if _, err := SplitSysfs(p); err != nil {
		return nil, err
	}
	f, err := h.open(p, flag)
	if err == nil {
		return f, nil
	}
	err = cause(err)
	switch {
	case errors.Is(err, fs.ErrNotExist), errors.Is(err, syscall.ENOTDIR):
		if !h.Live() && len(h.SysfsNames(nil)) == 0 {
			return nil, fmt.Errorf("%s: %w", p, ErrOffline)
		}
		return nil, fmt.Errorf("%s: %w", p, fs.ErrNotExist)
	case errors.Is(err, syscall.EISDIR):
		return nil, fmt.Errorf("%s: it is a directory (name one of the files in it)", p)
	case errors.Is(err, syscall.EROFS):
		return nil, fmt.Errorf("%s: %w (%s is mounted read-only, as in most containers; run on the machine itself)", p, err, SysfsRoot)
	case errors.Is(err, fs.ErrPermission) && os.Geteuid() != 0:
		return nil, fmt.Errorf("%s: %w (run as root)", p, err)
	case errors.Is(err, fs.ErrPermission) && flag == os.O_RDONLY:
		// The kernel checks these against their mode bits, root or not.
		return nil, fmt.Errorf("%s: %w: it cannot be read, so it could not be restored", p, ErrWriteOnly)
	case errors.Is(err, fs.ErrPermission):
		return nil, fmt.Errorf("%s: %w (it is read-only: the kernel, or what it runs on, allows no change)", p, err)
	}
	return nil, fmt.Errorf("%s: %w", p, err)
}
