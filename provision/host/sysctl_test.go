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

func TestSplitSysctl(t *testing.T) {
	for _, tc := range []struct{ key, path, joined, err string }{
		{key: "kernel.panic", path: "kernel/panic", joined: "kernel.panic"},
		{key: "kernel/panic", path: "kernel/panic", joined: "kernel.panic"},
		{key: "net.ipv4.conf.eth0/100.rp_filter", path: "net/ipv4/conf/eth0.100/rp_filter", joined: "net.ipv4.conf.eth0/100.rp_filter"},
		{key: "net/ipv4/conf/eth0.100/rp_filter", path: "net/ipv4/conf/eth0.100/rp_filter", joined: "net.ipv4.conf.eth0/100.rp_filter"},
		{key: "vm", path: "vm", joined: "vm"},
		{key: "", err: "the key is empty"},
		{key: "/proc/sys/kernel/panic", err: `"/proc/sys/kernel/panic" is a path (write the key: what follows /proc/sys/)`},
		{key: "kernel/../../../etc/passwd", err: `"kernel/../../../etc/passwd" leads out of /proc/sys`},
		{key: "kernel.//.panic", err: `"kernel.//.panic" leads out of /proc/sys`},
		{key: "../x", err: `"../x" has an empty part (two separators in a row, or one at an end)`},
		{key: "kernel..panic", err: `"kernel..panic" has an empty part (two separators in a row, or one at an end)`},
		{key: "kernel.panic.", err: `"kernel.panic." has an empty part (two separators in a row, or one at an end)`},
		{key: ".kernel", err: `".kernel" has an empty part (two separators in a row, or one at an end)`},
		{key: "a/./b", err: `"a/./b" leads out of /proc/sys`},
		{key: "kernel.panic\n", err: `"kernel.panic\n" has a blank or a control character, which no key has`},
		{key: "kernel panic", err: `"kernel panic" has a blank or a control character, which no key has`},
		{key: "kernel\x00.panic", err: `"kernel\x00.panic" has a blank or a control character, which no key has`},
		{key: "kernel.\xff", err: `"kernel.\xff" has a blank or a control character, which no key has`},
	} {
		t.Run(tc.key, func(t *testing.T) {
			parts, err := host.SplitSysctl(tc.key)
			if got := text(err); got != tc.err {
				t.Fatalf("error %q, want %q", got, tc.err)
			}
			if err != nil {
				return
			}
			got := []string{strings.Join(parts, "/"), host.JoinSysctl(parts)}
			if d := cmp.Diff([]string{tc.path, tc.joined}, got); d != "" {
				t.Error(d)
			}
		})
	}
}

func FuzzSplitSysctl(f *testing.F) {
	for _, s := range []string{"kernel.panic", "net/ipv4/conf/a.b/x", "a/b.c", "..", "a./.b", "/x", "a..b"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, key string) {
		parts, err := host.SplitSysctl(key)
		if err != nil {
			return
		}
		p := strings.Join(append([]string{host.SysctlRoot}, parts...), "/")
		if filepath.Clean(p) != p || !strings.HasPrefix(p, host.SysctlRoot+"/") {
			t.Fatalf("%q leads to %q", key, p)
		}
		again, err := host.SplitSysctl(host.JoinSysctl(parts))
		if err != nil {
			t.Fatalf("%q joined: %v", key, err)
		}
		if d := cmp.Diff(parts, again); d != "" {
			t.Fatal(d)
		}
	})
}

func TestSysctlTree(t *testing.T) {
	const before = "4096\t131072\t6291456\n"
	h, root := tree(t, map[string]string{"proc/sys/net/ipv4/tcp_rmem": before, "secret": "x"})
	if err := os.Symlink("/etc/hostname", filepath.Join(root, "proc/sys/net/link")); err != nil {
		t.Fatal(err)
	}
	got, err := h.ReadSysctl("net.ipv4.tcp_rmem")
	if err != nil || got != "4096\t131072\t6291456" {
		t.Fatalf("%q, %v", got, err)
	}
	if err := h.WriteSysctl("net/ipv4/tcp_rmem", "1 2 3"); err != nil {
		t.Fatal(err)
	}
	if err := h.WriteSysctl("net/ipv4/tcp_rmem", got); err != nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile(filepath.Join(root, "proc/sys/net/ipv4/tcp_rmem"))
	if err != nil || string(b) != before {
		t.Errorf("not restored byte for byte: %q, %v", b, err)
	}

	for _, tc := range []struct {
		key, want string
		is        error
	}{
		{"net.ipv4.tcp_wmem", "sysctl net.ipv4.tcp_wmem: file does not exist", fs.ErrNotExist},
		{"net.ipv4.tcp_rmem.x", "sysctl net.ipv4.tcp_rmem.x: file does not exist", fs.ErrNotExist},
		{"net.ipv4", "sysctl net.ipv4: it is a directory (name one of the keys in it)", nil},
		{"net/../../../secret", `sysctl: "net/../../../secret" leads out of /proc/sys`, nil},
		{"net.link", "sysctl net.link: path escapes from parent", nil},
	} {
		for op, err := range map[string]error{"read": second(h.ReadSysctl(tc.key)), "write": h.WriteSysctl(tc.key, "1")} {
			if text(err) != tc.want || tc.is != nil && !errors.Is(err, tc.is) {
				t.Errorf("%s %s: %v, want %s", op, tc.key, err, tc.want)
			}
		}
	}
	if err := h.WriteSysctl("net.ipv4.tcp_rmem", "1\n2"); err == nil {
		t.Error("a newline was written")
	}
	if d := cmp.Diff([]string{"tcp_rmem"}, h.SysctlNames([]string{"net", "ipv4"})); d != "" {
		t.Error(d)
	}

	empty, _ := tree(t, nil)
	if _, err := empty.ReadSysctl("kernel.panic"); !errors.Is(err, host.ErrOffline) {
		t.Errorf("an image without /proc/sys: %v", err)
	}
}

func TestSysctlKernel(t *testing.T) {
	h := live(t)
	inNetNS(t, func() error {
		var errs []error
		expect := func(op, key, want string, err error, is error) {
			if text(err) != want || is != nil && !errors.Is(err, is) {
				errs = append(errs, fmt.Errorf("%s %s:\n got %v\nwant %s", op, key, text(err), want))
			}
		}
		for _, text := range []string{"4242", "17"} {
			if err := h.WriteSysctl("net.core.somaxconn", text); err != nil {
				return err
			}
			if got, err := h.ReadSysctl("net.core.somaxconn"); err != nil || got != text {
				return fmt.Errorf("somaxconn: %q, %w", got, err)
			}
		}
		expect("write", "net.core.somaxconn", `sysctl net.core.somaxconn: the kernel refuses "many": invalid argument (out of its range, or not of its type)`,
			h.WriteSysctl("net.core.somaxconn", "many"), nil)
		_, err := h.ReadSysctl("net.ipv4.route.flush")
		expect("read", "net.ipv4.route.flush", "sysctl net.ipv4.route.flush: write-only: it cannot be read, so it could not be restored", err, host.ErrWriteOnly)
		_, err = h.ReadSysctl("net.ipv6.conf.all.stable_secret")
		expect("read", "stable_secret", "sysctl net.ipv6.conf.all.stable_secret: it has no value now, so none could be restored: input/output error", err, nil)
		_, err = h.ReadSysctl("net.ipv4.no_such_key")
		expect("read", "no_such_key", "sysctl net.ipv4.no_such_key: file does not exist", err, fs.ErrNotExist)
		_, err = h.ReadSysctl("net.ipv4")
		expect("read", "net.ipv4", "sysctl net.ipv4: it is a directory (name one of the keys in it)", err, nil)
		expect("write", "tcp_available_congestion_control",
			"sysctl net.ipv4.tcp_available_congestion_control: permission denied (the kernel allows no writing: a read-only key, or one of the first network namespace's)",
			h.WriteSysctl("net.ipv4.tcp_available_congestion_control", "x"), fs.ErrPermission)
		return errors.Join(errs...)
	})
}

func text(err error) string {
	if err == nil {
		return ""
	}
	return err.Error()
}

func second[T any](_ T, err error) error { return err }

// The order is that of `systemd-analyze cat-config sysctl.d`, with /etc/sysctl.conf after all.
func TestSysctlEntries(t *testing.T) {
	h, root := tree(t, map[string]string{
		"etc/sysctl.d/20-b.conf":          "kernel.panic = 1\n",
		"run/sysctl.d/20-b.conf":          "kernel.panic = 2\n",
		"usr/lib/sysctl.d/10-a.conf":      "# c\n; c\n\n -net/core/somaxconn=  5 \nnet.ipv4.conf.*.rp_filter = 2\n-net.ipv4.conf.lo.rp_filter\nnonsense\n",
		"etc/sysctl.d/10-A.conf":          "net.ipv4.tcp_rmem = 1 2\t3\n",
		"usr/local/lib/sysctl.d/Zed.conf": "kernel.panic = 3\n",
		"lib/sysctl.d/_x.conf":            "kernel.panic = 4\n",
		"usr/lib/sysctl.d/gone.conf":      "kernel.panic = 5\n",
		"etc/sysctl.d/README":             "kernel.panic = 6\n",
		"run/sysctl.d/zz-nodeprov.conf":   "kernel.panic = 7\n",
		"etc/sysctl.conf":                 "kernel.panic = 8\n",
	})
	for link, target := range map[string]string{"etc/sysctl.d/99-sysctl.conf": "../sysctl.conf", "etc/sysctl.d/gone.conf": "/dev/null"} {
		if err := os.Symlink(target, filepath.Join(root, link)); err != nil {
			t.Fatal(err)
		}
	}
	entries, err := h.SysctlEntries()
	if err != nil {
		t.Fatal(err)
	}
	var got strings.Builder
	for _, e := range entries {
		fmt.Fprintf(&got, "%s:%d %s=%q %v\n", e.File, e.Line, host.JoinSysctl(e.Parts), e.Value, e.Glob)
	}
	if d := cmp.Diff(`/etc/sysctl.d/10-A.conf:1 net.ipv4.tcp_rmem="1 2\t3" false
/usr/lib/sysctl.d/10-a.conf:4 net.core.somaxconn="5" false
/usr/lib/sysctl.d/10-a.conf:5 net.ipv4.conf.*.rp_filter="2" true
/etc/sysctl.d/20-b.conf:1 kernel.panic="1" false
/usr/local/lib/sysctl.d/Zed.conf:1 kernel.panic="3" false
/lib/sysctl.d/_x.conf:1 kernel.panic="4" false
/run/sysctl.d/zz-nodeprov.conf:1 kernel.panic="7" false
/etc/sysctl.conf:1 kernel.panic="8" false
`, got.String()); d != "" {
		t.Error(d)
	}
}

func TestFirstNetNS(t *testing.T) {
	h := live(t)
	if _, err := h.FirstNetNS(); err != nil {
		t.Error(err)
	}
	inNetNS(t, func() error {
		if first, err := h.FirstNetNS(); err != nil || first {
			return fmt.Errorf("a fresh namespace is the first one: %v, %w", first, err)
		}
		return nil
	})
	offline, _ := tree(t, nil)
	if first, err := offline.FirstNetNS(); err != nil || !first {
		t.Errorf("a tree of files: %v, %v", first, err)
	}
}
