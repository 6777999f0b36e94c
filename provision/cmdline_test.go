package provision

import (
	"cmp"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"

	gocmp "github.com/google/go-cmp/cmp"
	"github.com/hashicorp/hcl/v2"
	"github.com/zclconf/go-cty/cty"
	"golang.org/x/sys/unix"

	"github.com/nodeprov/nodeprov/provision/host"
)

// kernelText is what a profile wants where there is no machine, with the classes, and
// then its mistakes by place.
func kernelText(tb testing.TB, text string) string {
	tb.Helper()
	ws, diags := (&Engine{Kinds: Kinds()}).Desired(evaluate(tb, text, cty.UnknownVal(host.FactsType())), nil, PhaseAll)
	var b strings.Builder
	slices.SortStableFunc(diags, func(a, b *hcl.Diagnostic) int { return cmp.Compare(a.Subject.Start.Byte, b.Subject.Start.Byte) })
	for _, d := range diags {
		fmt.Fprintf(&b, "%d,%d: %s: %s\n", d.Subject.Start.Line-3, d.Subject.Start.Column, d.Summary, d.Detail)
	}
	for _, w := range ws {
		v, err := w.Want(Value{Absent: true})
		if err != nil {
			tb.Error(err)
		}
		fmt.Fprintf(&b, "%s (%s) = %s\n", w.Key(), w.OnError, v.Text)
	}
	return b.String()
}

func TestKernelArguments(t *testing.T) {
	for text, want := range map[string]string{
		"quiet  root=/dev/vda1\tx=\n": "quiet|root=/dev/vda1|x=",
		`dyndbg="file a.c +p" y`:      `dyndbg="file a.c +p"|y`,
		`"dyndbg=file a.c +p" y`:      `dyndbg="file a.c +p"|y`,
		"a=1 -- --init-option b=2":    "a=1",
		"a=b=c":                       "a=b=c",
		"":                            "",
		`x=""`:                        "x=",
	} {
		var got []string
		for _, a := range kernelArguments(text) {
			got = append(got, a.String())
		}
		if strings.Join(got, "|") != want {
			t.Errorf("%q: %q", text, got)
		}
	}
}

// What the shell of grub-mkconfig makes of the drop-in.
func TestCmdlineFile(t *testing.T) {
	for _, tc := range []struct{ name, args, linux, fallback, want, wantDefault string }{
		{"added", "preempt=none nosoftlockup", "", "", "preempt=none nosoftlockup", ""},
		{"others stay", "preempt=none", "console=ttyS0 net.ifnames=0", "quiet splash", "console=ttyS0 net.ifnames=0 preempt=none", "quiet splash"},
		{"taken out where they are", "preempt=none -quiet", "a preempt=full b", "quiet preempt x", "a b preempt=none", "x"},
		{"dashes are underscores", "transparent_hugepage=never", "transparent-hugepage=always x", "transparent_hugepage", "x transparent_hugepage=never", ""},
		{"a longer name is another one", "preempt=none -quiet", "preempt_x=1 preempt.y=2", "quieter quiet=", "preempt_x=1 preempt.y=2 preempt=none", "quieter"},
		{"a dot is a dot", "-a.b", "a.b axb", "", "axb", ""},
		{"removed with this value", "-console=tty0", "console=tty0 console=ttyS0 console=tty0x", "", "console=ttyS0 console=tty0x", ""},
		{"quoted blanks", `x=1`, `dyndbg="file a.c  +p" x="1 x=2" y`, "", `dyndbg="file a.c +p" y x=1`, ""},
		{"quoted as a whole", `x=1`, `"x=1 2" y`, "", `y x=1`, ""},
		{"a quoted value is set and removed", `dyndbg="file b.c +p" -z="1 2"`, `z="1 2" z="1 3" "z=1 2"`, "", `z="1 3" dyndbg="file b.c +p"`, ""},
		{"no file is touched by a star", `x=1`, "a=* ? [a-z]*", "", "a=* ? [a-z]* x=1", ""},
		{"several times", "console=tty0 console=ttyS0,115200", "console=hvc0", "", "console=tty0 console=ttyS0,115200", ""},
		{"only removed", "-quiet", "quiet", "splash", "", "splash"},
		{"nothing", "", "a", "b", "a", "b"},
		{"an open quote", `x=1`, `y="1 x=2`, "", `y="1 x=2 x=1`, ""},
		{"what a shell would like to read", `x=#!%()*+,/:=?@[]^~`, `a=$HOME b=$(id)`, "", "a=$HOME b=$(id) x=#!%()*+,/:=?@[]^~", ""},
	} {
		t.Run(tc.name, func(t *testing.T) {
			change := parseCmdline(tc.args)
			if change.String() != tc.args {
				t.Fatalf("reads as %s", change)
			}
			dir := t.TempDir()
			if err := os.WriteFile(filepath.Join(dir, "90-nodeprov.cfg"), []byte(change.file()), 0o644); err != nil {
				t.Fatal(err)
			}
			c := exec.Command("sh", "-euc", `names() { set | grep -v -e ^_= -e ^GRUB; }
				names >before; . ./90-nodeprov.cfg; names | diff before -
				printf '%s\n%s\n' "$GRUB_CMDLINE_LINUX" "$GRUB_CMDLINE_LINUX_DEFAULT"; case $- in *f*) echo no globs;; esac`)
			c.Dir = dir
			c.Env = []string{"PATH=" + os.Getenv("PATH"), "GRUB_CMDLINE_LINUX=" + tc.linux, "GRUB_CMDLINE_LINUX_DEFAULT=" + tc.fallback}
			out, err := c.CombinedOutput()
			if err != nil {
				t.Fatalf("%v: %s\n%s", err, out, change.file())
			}
			if d := gocmp.Diff(tc.want+"\n"+tc.wantDefault+"\n", string(out)); d != "" {
				t.Error(d)
			}
		})
	}
	// Neither variable need be set.
	c := exec.Command("sh", "-euc", parseCmdline("x=1").file()+`printf %s "$GRUB_CMDLINE_LINUX"`)
	c.Env = []string{"PATH=" + os.Getenv("PATH")}
	if out, err := c.CombinedOutput(); err != nil || string(out) != "x=1" {
		t.Errorf("%s, %v", out, err)
	}
}

func TestCmdlinePending(t *testing.T) {
	for _, tc := range []struct{ args, booted, want string }{
		{"preempt=none nosoftlockup", "BOOT_IMAGE=/vmlinuz root=/dev/vda1 ro preempt=none nosoftlockup", ""},
		{"preempt=none nosoftlockup", "root=/dev/vda1 ro", "the kernel was booted without preempt=none nosoftlockup"},
		{"preempt=none", "preempt=full preempt=none", "the kernel was booted with preempt=full"},
		{"preempt=none", "preempt=full", "the kernel was booted without preempt=none, and with preempt=full"},
		{"preempt=none", "preempt", "the kernel was booted without preempt=none, and with preempt"},
		{"preempt=none", "preempt=none preempt=none", "the kernel was booted with preempt=none preempt=none"},
		{"preempt=none", "a -- preempt=none", "the kernel was booted without preempt=none"},
		{"console=tty0 console=ttyS0", "console=tty0 console=ttyS0", ""},
		{"console=tty0 console=ttyS0", "console=ttyS0 console=tty0", "the kernel was booted with console=ttyS0 console=tty0"},
		{"-quiet -console=hvc0", "quiet console=hvc1", "the kernel was booted with quiet"},
		{"-quiet -console=hvc0", "x console=hvc1", ""},
		{"a_b=1", "a-b=1", ""},
		{`dyndbg="file a.c +p"`, `"dyndbg=file a.c +p"`, ""},
		{"x=1" + cmdlineStale, "x=1", ""},
	} {
		h, _, _ := treeHost(t, map[string]string{"proc/cmdline": tc.booted + "\n"})
		got, err := cmdline{}.Pending(t.Context(), h, Value{Text: tc.args})
		if err != nil || got != tc.want {
			t.Errorf("%s in %s: %q, %v", tc.args, tc.booted, got, err)
		}
	}
	h, _, _ := treeHost(t, nil)
	if got, err := (cmdline{}).Pending(t.Context(), h, Value{Text: "x"}); err != nil || got != "" {
		t.Errorf("an image: %q, %v", got, err)
	}
}

func grubTree() map[string]string {
	return map[string]string{
		"etc/default/grub":                "GRUB_CMDLINE_LINUX_DEFAULT=\"quiet splash\"\nGRUB_CMDLINE_LINUX=\"console=ttyS0\"\n",
		"etc/default/grub.d/10_cloud.cfg": "GRUB_CMDLINE_LINUX_DEFAULT=\"$GRUB_CMDLINE_LINUX_DEFAULT preempt=full\"\n",
		"etc/default/grub.d/99-later.cfg": "GRUB_CMDLINE_LINUX='preempt=voluntary'\n",
		"usr/sbin/grub-mkconfig":          "for x in ${sysconfdir}/default/grub.d/*.cfg ; do\n",
	}
}

// Read, write and go back, byte for byte, in a tree of files: there update-grub does not
// run, and what it had made counts for nothing.
func TestCmdlineSetting(t *testing.T) {
	files := grubTree()
	files["boot/grub/grub.cfg"] = "\tlinux\t/vmlinuz root=/dev/vda1\n"
	h, root, text := treeHost(t, files)
	before := text()
	s := cmdline{}
	read := func() Value {
		t.Helper()
		v, err := s.Read(t.Context(), h)
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
	if v := read(); !v.Absent {
		t.Errorf("%v", v)
	}
	const path = "etc/default/grub.d/90-nodeprov.cfg"
	for _, foreign := range []string{"", "# arguments: x=1\n", "GRUB_CMDLINE_LINUX=mine", parseCmdline("x=1").file() + "echo\n"} {
		if err := os.WriteFile(filepath.Join(root, path), []byte(foreign), 0o644); err != nil {
			t.Fatal(err)
		}
		was := read()
		if was.Text != cmdlineForeign+foreign {
			t.Errorf("%q reads as %q", foreign, was.Text)
		}
		for _, args := range []string{"preempt=none nosoftlockup -quiet", `dyndbg="file a.c +p"`, ""} {
			want := Value{Text: args}
			if err := s.Write(t.Context(), h, want); err != nil {
				t.Fatal(err)
			}
			if v := read(); !s.Same(v, want) || s.Same(was, want) {
				t.Errorf("wrote %q, has %q", args, v.Text)
			}
		}
		if err := s.Write(t.Context(), h, was); err != nil {
			t.Fatal(err)
		}
		if b, err := os.ReadFile(filepath.Join(root, path)); err != nil || string(b) != foreign {
			t.Errorf("not as before: %q, %v", b, err)
		}
	}
	if err := s.Write(t.Context(), h, Value{Absent: true}); err != nil {
		t.Fatal(err)
	}
	if d := gocmp.Diff(before, text()); d != "" {
		t.Error(d)
	}
	if !s.Same(Value{Text: "x=1"}, Value{Text: "x=1" + cmdlineStale}) || s.Same(Value{Text: "x=1" + cmdlineStale}, Value{Text: "x=1"}) || s.Same(Value{}, Value{Absent: true}) {
		t.Error("when update-grub is due")
	}
}

func TestCmdlineWanted(t *testing.T) {
	const text = `kernel {
  cmdline {
    set    = { preempt = "none" }
    remove = ["quiet"]
    reboot = "if-needed"
    max_attempts = 2
  }
}`
	h, _, _ := treeHost(t, grubTree())
	sameText(t, `
cmdline/grub (warn) = preempt=none -quiet
  /etc/default/grub:1: GRUB_CMDLINE_LINUX_DEFAULT="quiet splash" (taken out by /etc/default/grub.d/90-nodeprov.cfg)
  /etc/default/grub.d/10_cloud.cfg:1: GRUB_CMDLINE_LINUX_DEFAULT="$GRUB_CMDLINE_LINUX_DEFAULT preempt=full" (taken out by /etc/default/grub.d/90-nodeprov.cfg)
  /etc/default/grub.d/99-later.cfg:1: GRUB_CMDLINE_LINUX='preempt=voluntary' (wins, as its name comes later than 90-nodeprov.cfg: remove it there)
`, wantedOn(t, text, h))

	e := &Engine{Host: h, Kinds: Kinds()}
	ws, diags := e.Desired(evaluate(t, text, cty.UnknownVal(host.FactsType())), nil, PhaseAll)
	if diags.HasErrors() || len(ws) != 1 {
		t.Fatal(ws, diags)
	}
	if d := gocmp.Diff(RebootPolicy{IfNeeded: true, MaxAttempts: 2}, ws[0].Reboot); d != "" {
		t.Error(d)
	}
	if ws[0].Effect != "after update-grub in the image and a boot" {
		t.Error(ws[0].Effect)
	}
	if ws, _ := e.Desired(evaluate(t, text, cty.UnknownVal(host.FactsType())), nil, PhaseEarly); len(ws) != 0 {
		t.Errorf("the early unit sets %v", ws)
	}

	for _, tc := range []struct {
		name  string
		files map[string]string
		want  string
	}{
		{"none", nil, `cmdline: no boot loader that nodeprov knows is set up here, so "preempt=none -quiet" cannot be set (add it where this machine's kernel is started from: ` +
			`a hypervisor or a container's host has the command line then; or say on_missing = "skip" in cmdline)`},
		{"GRUB without drop-ins", map[string]string{"etc/default/grub": ""}, `cmdline: GRUB is here (/etc/default/grub), but no grub-mkconfig that reads /etc/default/grub.d, so ` +
			`"preempt=none -quiet" cannot be set (add it to GRUB_CMDLINE_LINUX in /etc/default/grub and have GRUB's configuration made anew (grub2-mkconfig, grubby); or say on_missing = "skip" in cmdline)`},
		{"Raspberry Pi", map[string]string{"boot/firmware/cmdline.txt": ""}, `cmdline: the boot loader is the Raspberry Pi's firmware (/boot/firmware/cmdline.txt), and nodeprov sets GRUB only, so ` +
			`"preempt=none -quiet" cannot be set (add it to the one line of /boot/firmware/cmdline.txt; or say on_missing = "skip" in cmdline)`},
	} {
		h, _, _ := treeHost(t, tc.files)
		sameText(t, "cmdline/grub (warn): "+tc.want, wantedOn(t, text, h))
	}
	skip := strings.Replace(text, "set ", "on_missing = \"skip\"\n    set ", 1)
	if got := kernelText(t, skip); got != "cmdline/grub (tolerate) = preempt=none -quiet\n" {
		t.Error(got)
	}
	for _, name := range []string{"", "systemd-boot"} {
		if s, err := openCmdline(name); err == nil {
			t.Errorf("%q opens %s", name, s.Key())
		}
	}
}

// The live path: GRUB's configuration is made anew, and what comes of failures and of being
// killed in between. It has a mount namespace of its own, where /etc/default and /boot are
// empty, and a program in the place of update-grub.
func TestCmdlineUpdateGRUB(t *testing.T) {
	bin := t.TempDir()
	for name, script := range map[string]string{
		"update-grub": "exec grub-mkconfig -o /boot/grub/grub.cfg",
		"grub-mkconfig": `[ "$1" = -o ]
			. /etc/default/grub
			for x in /etc/default/grub.d/*.cfg; do if [ -e "$x" ]; then . "$x"; fi; done
			echo Generating >&2
			if [ -e /etc/default/broken ]; then echo "grub-probe: error: no device" >&2; exit 1; fi
			printf "menuentry 'x' {\n\tlinux\t/vmlinuz root=/dev/vda1 ro %s %s\n}\n" "$GRUB_CMDLINE_LINUX" "$GRUB_CMDLINE_LINUX_DEFAULT" >"$2"`,
	} {
		if err := os.WriteFile(filepath.Join(bin, name), []byte("#!/bin/sh\nset -e\n"+script+"\n"), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	t.Setenv("PATH", bin+":"+os.Getenv("PATH"))
	h, err := host.New(host.Options{})
	if err != nil {
		t.Fatal(err)
	}
	ctx, s := t.Context(), cmdline{}
	ownMounts(t, []string{"/etc/default", "/boot"}, func() error {
		var errs []error
		write := func(name, text string) {
			errs = append(errs, os.MkdirAll(filepath.Dir(name), 0o755), os.WriteFile(name, []byte(text), 0o644))
		}
		expect := func(what, got, want string) {
			if got != want {
				errs = append(errs, fmt.Errorf("%s:\n got %s\nwant %s", what, got, want))
			}
		}
		state := func() string {
			v, err := s.Read(ctx, h)
			entry, _ := h.GRUBEntry() // none at first
			return fmt.Sprintf("%s | %s %v", v, entry, err)
		}
		set := func(v Value) string { return fmt.Sprint(s.Write(ctx, h, v)) }
		write("/etc/default/grub", "GRUB_CMDLINE_LINUX_DEFAULT=\"quiet\"\nGRUB_CMDLINE_LINUX=\"a=1 preempt=full\"\n")
		write("/boot/grub/grub.cfg", "\tlinux /vmlinuz root=/dev/vda1 ro a=1 preempt=full quiet\n")

		expect("at first", state(), "(absent) | root=/dev/vda1 ro a=1 preempt=full quiet <nil>")
		write("/etc/default/broken", "")
		failure := strings.Replace(set(Value{Text: "preempt=none"}), "update-grub: exit", "grub-mkconfig: exit", 1) // whichever is installed
		expect("update-grub fails", failure, "cmdline: GRUB's configuration cannot be made, so /etc/default/grub.d/90-nodeprov.cfg is what it was: "+
			"grub-mkconfig: exit status 1: it ended with:\nGenerating\ngrub-probe: error: no device")
		expect("it failed", state(), "(absent) | root=/dev/vda1 ro a=1 preempt=full quiet <nil>")
		errs = append(errs, os.Remove("/etc/default/broken"))
		expect("set", set(Value{Text: "preempt=none -quiet"}), "<nil>")
		expect("it is set", state(), "preempt=none -quiet | root=/dev/vda1 ro a=1 preempt=none  <nil>")

		write("/etc/default/broken", "")
		set(Value{Text: "b=2"})
		expect("it failed again", state(), "preempt=none -quiet | root=/dev/vda1 ro a=1 preempt=none  <nil>")
		errs = append(errs, os.Remove("/etc/default/broken"))

		write("/etc/default/grub.d/90-nodeprov.cfg", parseCmdline("b=2").file())
		expect("killed before update-grub", state(), "b=2 (update-grub has not run) | root=/dev/vda1 ro a=1 preempt=none  <nil>")
		expect("set after that", set(Value{Text: "b=2"}), "<nil>")
		expect("it is set after that", state(), "b=2 | root=/dev/vda1 ro a=1 preempt=full b=2 quiet <nil>")

		write("/etc/default/grub.d/99-late.cfg", "GRUB_CMDLINE_LINUX=late\n")
		expect("another file wins", set(Value{Text: "b=3"}), "cmdline: update-grub has run, but the first entry of /boot/grub/grub.cfg is without b=3 "+
			"(is GRUB_CMDLINE_LINUX set again in /etc/default/grub.d after 90-nodeprov.cfg?)")
		expect("another file won", state(), "b=3 (update-grub has not run) | root=/dev/vda1 ro late quiet <nil>")
		errs = append(errs, os.Remove("/etc/default/grub.d/99-late.cfg"))

		expect("gone", set(Value{Absent: true}), "<nil>")
		expect("it is gone", state(), "(absent) | root=/dev/vda1 ro a=1 preempt=full quiet <nil>")
		return errors.Join(errs...)
	})
}

// ownMounts runs f in a mount namespace of its own, in which the directories are empty; it goes
// with the thread.
func ownMounts(tb testing.TB, empty []string, f func() error) {
	tb.Helper()
	done := make(chan error, 1)
	go func() {
		runtime.LockOSThread() // never unlocked: the thread ends with the goroutine
		done <- func() error {
			if err := unix.Unshare(unix.CLONE_NEWNS | unix.CLONE_FS); err != nil {
				return os.NewSyscallError("unshare (root is needed)", err)
			}
			if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
				return os.NewSyscallError("mount", err)
			}
			for _, dir := range empty {
				if err := unix.Mount("tmpfs", dir, "tmpfs", 0, "mode=755"); err != nil {
					return os.NewSyscallError("mount "+dir, err)
				}
			}
			return f()
		}()
	}()
	if err := <-done; err != nil {
		tb.Error(err)
	}
}
