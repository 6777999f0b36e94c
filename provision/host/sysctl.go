package host

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path"
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
	return h.DirNames(strings.Join(append([]string{SysctlRoot}, parts...), "/"))
}

// FirstNetNS tells whether the calling thread's network namespace is that of PID 1:
// the one that the files of sysctl.d are for. A tree of files will be a machine, so for it
// the answer is yes.
func (h *Host) FirstNetNS() (bool, error) {
	if !h.Live() {
		return true, nil
	}
	// These files have a number of their own in each namespace, and may be looked at
	// without the right to trace PID 1, which /proc/1/ns asks for. A thread's namespace may
	// differ from its process'.
	own, err := os.Stat("/proc/thread-self/net/dev")
	if err != nil {
		return false, fmt.Errorf("network namespace: %w (is /proc mounted?)", err)
	}
	first, err := os.Stat("/proc/1/net/dev")
	if err != nil {
		return false, fmt.Errorf("network namespace of PID 1: %w (is /proc mounted with hidepid?)", err)
	}
	return os.SameFile(own, first), nil
}

// SysctlConf is the file that `sysctl --system` reads after all others. systemd-sysctl
// does not read it, unless a link in sysctl.d leads to it.
const SysctlConf = "/etc/sysctl.conf"

// SysctlEntry is an assignment in a configuration file of sysctls.
type SysctlEntry struct {
	File string
	Line int
	// Parts are the key's; those of a Glob may be patterns.
	Parts []string
	Glob  bool
	Value string
}

// SysctlEntries reads sysctl.d(5) and SysctlConf, in the order in which
// `sysctl --system` does: by the file's name, whatever the directory; of several
// files with the same name the one in the first directory counts alone. Of
// assignments to one key the last wins, and any that is no Glob wins against those
// that are. What both programs skip is skipped.
func (h *Host) SysctlEntries() ([]SysctlEntry, error) {
	lines, err := h.dropIns(".conf", "/etc/sysctl.d", "/run/sysctl.d", "/usr/local/lib/sysctl.d", "/usr/lib/sysctl.d", "/lib/sysctl.d")
	if err != nil {
		return nil, fmt.Errorf("sysctl.d: %w", err)
	}
	// Debian has a link in sysctl.d that leads to it: once is enough.
	lines = slices.DeleteFunc(lines, func(l configLine) bool { return l.File == SysctlConf })
	last, err := h.configLines(SysctlConf)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	var entries []SysctlEntry
	for _, l := range append(lines, last...) {
		if l.Text[0] == ';' {
			continue
		}
		key, value, ok := strings.Cut(strings.TrimPrefix(l.Text, "-"), "=")
		if !ok {
			continue // "-key" leaves a key out of the patterns
		}
		key = strings.TrimSpace(key)
		parts, err := SplitSysctl(key)
		if err != nil {
			continue
		}
		entries = append(entries, SysctlEntry{l.File, l.Line, parts, strings.ContainsAny(key, "*?["), strings.TrimSpace(value)})
	}
	return entries, nil
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

// configLine is a line of a configuration file of the machine, without the blanks around
// it; it is neither empty nor a comment.
type configLine struct {
	File string
	Line int
	Text string
}

func (l configLine) String() string { return fmt.Sprintf("%s:%d: %s", l.File, l.Line, l.Text) }

// dropIns reads the files with the extension in these directories, as systemd and others do:
// sorted by name, and of several with the same name only the one in the
// first directory, which may be a link to /dev/null. A link's target names its lines.
func (h *Host) dropIns(ext string, dirs ...string) ([]configLine, error) {
	dirOf := map[string]string{}
	for _, dir := range dirs {
		for _, name := range h.DirNames(dir) {
			if _, masked := dirOf[name]; !masked && strings.HasSuffix(name, ext) {
				dirOf[name] = dir
			}
		}
	}
	var lines []configLine
	for _, name := range slices.Sorted(maps.Keys(dirOf)) {
		file := dirOf[name] + "/" + name
		if target := h.readlink(file); target != "" {
			file = target
		}
		more, err := h.configLines(file)
		if errors.Is(err, fs.ErrNotExist) {
			continue // removed meanwhile, or a link that leads nowhere
		}
		if err != nil {
			return nil, err
		}
		lines = append(lines, more...)
	}
	return lines, nil
}

// readlink returns the absolute path that the link at p names; empty where p is no link.
func (h *Host) readlink(p string) string {
	dir, base, err := h.openDir(p, false)
	if err != nil {
		return ""
	}
	defer dir.Close()
	target, err := dir.Readlink(base)
	if err != nil || path.IsAbs(target) {
		return target
	}
	return path.Join(path.Dir(p), target)
}

func (h *Host) configLines(file string) ([]configLine, error) {
	b, err := h.ReadFile(file)
	if err != nil {
		return nil, err
	}
	var lines []configLine
	n := 0
	for line := range strings.Lines(string(b)) {
		n++
		if text := strings.TrimSpace(line); text != "" && text[0] != '#' {
			lines = append(lines, configLine{file, n, text})
		}
	}
	return lines, nil
}
