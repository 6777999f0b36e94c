package host_test

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/nodeprov/nodeprov/provision/host"
)

func TestSplitSysfs(t *testing.T) {
	for _, tc := range []struct{ path, parts, err string }{
		{path: "/sys/kernel/mm/ksm/run", parts: "kernel mm ksm run"},
		{path: "/sys/block/*/queue", parts: "block * queue"},
		{path: "", err: `"" is not below /sys`},
		{path: "/sys", err: `"/sys" is not below /sys`},
		{path: "/sys/", err: `"/sys/" is spelled "/sys"`},
		{path: "/sysx/a", err: `"/sysx/a" is not below /sys`},
		{path: "sys/a", err: `"sys/a" is not below /sys`},
		{path: "/proc/sys/kernel/panic", err: `"/proc/sys/kernel/panic" is not below /sys`},
		{path: "/sys/../etc/passwd", err: `"/sys/../etc/passwd" is not below /sys`},
		{path: "/sys/a/../b", err: `"/sys/a/../b" is spelled "/sys/b"`},
		{path: "/sys//a", err: `"/sys//a" is spelled "/sys/a"`},
		{path: "/sys/a/", err: `"/sys/a/" is spelled "/sys/a"`},
		{path: "/sys/a\n", err: `"/sys/a\n" has a control character, which no such path has`},
		{path: "/sys/\xff", err: `"/sys/\xff" has a control character, which no such path has`},
	} {
		parts, err := host.SplitSysfs(tc.path)
		if strings.Join(parts, " ") != tc.parts || text(err) != tc.err {
			t.Errorf("%q: %q, %v", tc.path, parts, err)
		}
	}
}

func TestSysfsChoice(t *testing.T) {
	for text, want := range map[string]string{
		"always [madvise] never\n":             "madvise: always madvise never",
		"[none] mq-deadline":                   "none: none mq-deadline",
		"always defer defer+madvise [madvise]": "madvise: always defer defer+madvise madvise",
		"[x]":                                  "x: x",
		"madvise":                              ": ",
		"":                                     ": ",
		"[a] [b]":                              ": ",
		"a[0] [b]":                             ": ",
		"[] a":                                 ": ",
		"[a":                                   ": ",
	} {
		selected, words := host.SysfsChoice(text)
		if got := selected + ": " + strings.Join(words, " "); got != want {
			t.Errorf("%q: %q", text, got)
		}
	}
}

func TestSysfsTree(t *testing.T) {
	h, root := tree(t, map[string]string{"sys/kernel/mm/ksm/run": "1\n", "etc/secret": "x"})
	if err := os.Symlink("../../../../etc/secret", filepath.Join(root, "sys/kernel/mm/link")); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("/etc/hostname", filepath.Join(root, "sys/kernel/mm/out")); err != nil {
		t.Fatal(err)
	}
	if err := h.WriteSysfs("/sys/kernel/mm/ksm/run", "0"); err != nil {
		t.Fatal(err)
	}
	if got, err := h.ReadSysfs("/sys/kernel/mm/ksm/run"); err != nil || got != "0" {
		t.Errorf("%q, %v", got, err)
	}
	for _, tc := range []struct {
		path, want string
		is         error
	}{
		{"/sys/kernel/mm/ksm/no", "/sys/kernel/mm/ksm/no: file does not exist", fs.ErrNotExist},
		{"/sys/kernel/mm/ksm", "/sys/kernel/mm/ksm: it is a directory (name one of the files in it)", nil},
		{"/sys/../etc/secret", `"/sys/../etc/secret" is not below /sys`, nil},
		{"/sys/kernel/mm/out", "/sys/kernel/mm/out: path escapes from parent", nil},
	} {
		for op, err := range map[string]error{"read": second(h.ReadSysfs(tc.path)), "write": h.WriteSysfs(tc.path, "1")} {
			if text(err) != tc.want || tc.is != nil && !errors.Is(err, tc.is) {
				t.Errorf("%s %s: %v, want %s", op, tc.path, err, tc.want)
			}
		}
	}
	if err := h.WriteSysfs("/sys/kernel/mm/ksm/run", "1\n2"); err == nil {
		t.Error("a newline was written")
	}
	if d := cmp.Diff([]string{"ksm", "link", "out"}, h.SysfsNames([]string{"kernel", "mm"})); d != "" {
		t.Error(d)
	}
	empty, _ := tree(t, nil)
	if _, err := empty.ReadSysfs("/sys/kernel/mm/ksm/run"); !errors.Is(err, host.ErrOffline) {
		t.Errorf("an image without /sys: %v", err)
	}
}

// On the real kernel, in a network namespace: sysfs shows the devices of the
// namespace that it was mounted from, so this only reads.
func TestSysfsKernel(t *testing.T) {
	h := live(t)
	got, err := h.ReadSysfs("/sys/kernel/mm/transparent_hugepage/enabled")
	if err != nil {
		t.Fatal(err)
	}
	if _, words := host.SysfsChoice(got); fmt.Sprint(words) != "[always madvise never]" {
		t.Errorf("%q", got)
	}
	_, err = h.ReadSysfs("/sys/kernel/mm/transparent_hugepage")
	if want := "/sys/kernel/mm/transparent_hugepage: it is a directory (name one of the files in it)"; text(err) != want {
		t.Error(err)
	}
	_, err = h.ReadSysfs("/sys/devices/system/cpu/probe-no-such-file")
	if !errors.Is(err, fs.ErrNotExist) {
		t.Error(err)
	}
}
