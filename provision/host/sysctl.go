package host

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"slices"
	"strings"
	"syscall"
	"unicode"
	"unicode/utf8"
)

// SysctlRoot is where the kernel's keys are files.
const SysctlRoot = "/proc/sys"

// ErrWriteOnly is the reason for which a kernel key has no value to read: such
// keys trigger something ("net.ipv4.route.flush"), so they cannot be restored.
var ErrWriteOnly = errors.New("write-only")

// SplitSysctl returns the parts of a kernel key, the path below /proc/sys. A key
// is spelled as for sysctl(8): dots separate, and a slash stands for a dot
// within a part ("net.ipv4.conf.eth0/100.rp_filter"); if a slash comes first, it
// is the other way round ("net/ipv4/conf/eth0.100/rp_filter").
func SplitSysctl(key string) ([]string, error) {
	switch {
	case key == "":
		return nil, errors.New("the key is empty")
	case strings.HasPrefix(key, "/"):
		return nil, fmt.Errorf("%q is a path (write the key: what follows %s/)", key, SysctlRoot)
	case !utf8.ValidString(key), strings.ContainsFunc(key, func(r rune) bool { return unicode.IsSpace(r) || unicode.IsControl(r) }):
		return nil, fmt.Errorf("%q has a blank or a control character, which no key has", key)
	}
	var parts []string
	if i := strings.IndexAny(key, "./"); i >= 0 && key[i] == '/' {
		parts = strings.Split(key, "/")
	} else {
		parts = strings.Split(key, ".")
		for i, p := range parts {
			parts[i] = strings.ReplaceAll(p, "/", ".")
		}
	}
	for _, p := range parts {
		switch p {
		case "":
			return nil, fmt.Errorf("%q has an empty part (two separators in a row, or one at an end)", key)
		case ".", "..":
			return nil, fmt.Errorf("%q leads out of %s", key, SysctlRoot)
		}
	}
	if strings.Contains(parts[0], ".") {
		// No directory of /proc/sys has one; JoinSysctl could not spell it.
		return nil, fmt.Errorf("%q: no key begins with %q", key, parts[0])
	}
	return parts, nil
}

// JoinSysctl is the one spelling of the key with these parts: dots separate.
func JoinSysctl(parts []string) string {
	var b strings.Builder
	for i, p := range parts {
		if i > 0 {
			b.WriteByte('.')
		}
		b.WriteString(strings.ReplaceAll(p, ".", "/"))
	}
	return b.String()
}

// ReadSysctl returns the text of a kernel key, without the newline that the
// kernel ends it with. The error is fs.ErrNotExist for a key that is not there,
// ErrWriteOnly for one that has no value, and ErrOffline where Root holds no
// /proc/sys.
func (h *Host) ReadSysctl(key string) (string, error) {
	f, err := h.openSysctl(key, os.O_RDONLY)
	if err != nil {
		return "", err
	}
	defer f.Close()
	b, err := io.ReadAll(f)
	switch {
	case errors.Is(err, syscall.EISDIR):
		return "", fmt.Errorf("sysctl %s: it is a directory (name one of the keys in it)", key)
	case errors.Is(err, syscall.EIO):
		// What net.ipv6.conf.*.stable_secret says until it is set.
		return "", fmt.Errorf("sysctl %s: it has no value now, so none could be restored: %w", key, cause(err))
	case errors.Is(err, fs.ErrPermission):
		return "", fmt.Errorf("sysctl %s: %w: it cannot be read, so it could not be restored", key, ErrWriteOnly)
	case err != nil:
		return "", fmt.Errorf("sysctl %s: %w", key, cause(err))
	}
	return strings.TrimSuffix(string(b), "\n"), nil
}

// WriteSysctl writes text to a kernel key, with a newline, in one call. What the
// kernel made of it must be read back: it may clamp.
func (h *Host) WriteSysctl(key, text string) error {
	if strings.ContainsAny(text, "\n\x00") {
		return fmt.Errorf("sysctl %s: %q has a newline or a NUL, where the kernel would stop reading", key, text)
	}
	f, err := h.openSysctl(key, os.O_WRONLY|os.O_TRUNC)
	if err != nil {
		return err
	}
	defer f.Close()
	_, err = f.Write([]byte(text + "\n"))
	switch {
	case errors.Is(err, syscall.EINVAL), errors.Is(err, syscall.ERANGE):
		return fmt.Errorf("sysctl %s: the kernel refuses %q: %w (out of its range, or not of its type)", key, text, cause(err))
	case errors.Is(err, syscall.ENOENT):
		// What net.ipv4.tcp_congestion_control and net.core.default_qdisc say.
		return fmt.Errorf("sysctl %s: the kernel refuses %q: %w (it knows no such name: is it misspelt, or of a module that is not there?)", key, text, cause(err))
	case err != nil:
		return fmt.Errorf("sysctl %s: the kernel refuses %q: %w", key, text, cause(err))
	}
	if err := f.Close(); err != nil {
		return fmt.Errorf("sysctl %s: %w", key, cause(err))
	}
	return nil
}

// SysctlNames returns the sorted names in the directory of /proc/sys with these
// parts; it is empty for one that is not there.
func (h *Host) SysctlNames(parts []string) []string {
	d, err := h.open(strings.Join(append([]string{SysctlRoot}, parts...), "/"), os.O_RDONLY)
	if err != nil {
		return nil
	}
	defer d.Close()
	names, err := d.Readdirnames(-1)
	if err != nil {
		return nil
	}
	slices.Sort(names)
	return names
}

func (h *Host) openSysctl(key string, flag int) (*os.File, error) {
	parts, err := SplitSysctl(key)
	if err != nil {
		return nil, fmt.Errorf("sysctl: %w", err)
	}
	f, err := h.open(SysctlRoot+"/"+strings.Join(parts, "/"), flag)
	if err == nil {
		return f, nil
	}
	err = cause(err)
	switch {
	case errors.Is(err, fs.ErrNotExist), errors.Is(err, syscall.ENOTDIR):
		if !h.Live() && len(h.SysctlNames(nil)) == 0 {
			return nil, fmt.Errorf("sysctl %s: %w", key, ErrOffline)
		}
		return nil, fmt.Errorf("sysctl %s: %w", key, fs.ErrNotExist)
	case errors.Is(err, syscall.EISDIR):
		return nil, fmt.Errorf("sysctl %s: it is a directory (name one of the keys in it)", key)
	case errors.Is(err, syscall.EROFS):
		return nil, fmt.Errorf("sysctl %s: %w (%s is mounted read-only, as in most containers; run on the machine itself)", key, err, SysctlRoot)
	case errors.Is(err, fs.ErrPermission) && flag == os.O_RDONLY && os.Geteuid() == 0:
		// Key files are checked against their mode bits, root or not.
		return nil, fmt.Errorf("sysctl %s: %w: it cannot be read, so it could not be restored", key, ErrWriteOnly)
	case errors.Is(err, fs.ErrPermission) && os.Geteuid() != 0:
		return nil, fmt.Errorf("sysctl %s: %w (run as root)", key, err)
	case errors.Is(err, fs.ErrPermission):
		return nil, fmt.Errorf("sysctl %s: %w (the kernel allows no writing: a read-only key, or one of the first network namespace's)", key, err)
	}
	return nil, fmt.Errorf("sysctl %s: %w", key, err)
}

// cause strips a path that the message has in a better form already.
func cause(err error) error {
	var pe *fs.PathError
	if errors.As(err, &pe) {
		return pe.Err
	}
	return err
}
