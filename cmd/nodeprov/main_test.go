package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){
		"nodeprov": func() {
			ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
			defer stop()
			os.Exit(run(ctx, processEnv()))
		},
	})
}

// TestScripts are the verbs that leave the machine alone.
func TestScripts(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir:   "testdata/script",
		Setup: setup,
		Cmds:  map[string]func(*testscript.TestScript, bool, []string){"code": code},
	})
}

// hostNetNS is set for the process that TestNetNS starts: the network namespace
// that it must not be in.
const hostNetNS = "NODEPROV_TEST_HOST_NETNS"

// TestNetNS runs the scripts that change things, in a process with a network
// namespace of its own. Only what belongs to that namespace is changed.
func TestNetNS(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Fatal("needs root, to make a network namespace")
	}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	c := exec.CommandContext(t.Context(), self, "-test.run=^TestInNetNS$", "-test.v")
	c.Env = append(os.Environ(), hostNetNS+"="+netns(t))
	c.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET | syscall.CLONE_NEWNS}
	out, err := c.CombinedOutput()
	if err != nil || !strings.Contains(string(out), "--- PASS: TestInNetNS") {
		t.Errorf("%v\n%s", err, out)
	}
	for line := range strings.Lines(string(out)) {
		if strings.Contains(line, " kills within ") {
			t.Log(strings.TrimSpace(line))
		}
	}
}

// TestInNetNS is run by TestNetNS.
func TestInNetNS(t *testing.T) {
	outside := os.Getenv(hostNetNS)
	if outside == "" {
		return // TestNetNS runs it
	}
	if outside == netns(t) {
		t.Fatal("this is the host's network namespace")
	}
	// The files of a device's queues are in the /sys of its namespace only.
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		t.Fatal(err)
	}
	if err := unix.Mount("sysfs", "/sys", "sysfs", 0, ""); err != nil {
		t.Fatal(err)
	}
	scripts, err := filepath.Glob("testdata/netns/*.txtar")
	if err != nil || len(scripts) == 0 {
		t.Fatal(err, scripts)
	}
	t.Run("killed", killed)
	for _, s := range scripts {
		// One at a time: they share the namespace.
		t.Run(filepath.Base(s), func(t *testing.T) {
			testscript.Run(t, testscript.Params{
				Files: []string{s},
				Setup: setup,
				Cmds:  map[string]func(*testscript.TestScript, bool, []string){"code": code, "veth": veth, "sysctl": sysctl, "mtu": mtu, "watch": watch, "within": within, "healed": healed, "fight": fight},
			})
		})
	}
}

func setup(e *testscript.Env) error {
	e.Setenv("STATE", filepath.Join(e.WorkDir, "state"))
	// Or each command takes a second longer under the race detector.
	e.Setenv("GORACE", "atexit_sleep_ms=0")
	return nil
}

func netns(t *testing.T) string {
	t.Helper()
	ns, err := os.Readlink("/proc/self/ns/net")
	if err != nil {
		t.Fatal(err)
	}
	return ns
}

// code N COMMAND… runs a command that must end with exit code N. Its output is
// compared with stdout and stderr, as always.
func code(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: code N command…")
	}
	err := ts.Exec(args[1], args[2:]...)
	got := 0
	if exit, ok := errors.AsType[*exec.ExitError](err); ok {
		got = exit.ExitCode()
	} else if err != nil {
		ts.Fatalf("%v", err)
	}
	if fmt.Sprint(got) != args[0] {
		ts.Fatalf("exit code %d, want %s", got, args[0])
	}
}

// veth NAME makes a pair of devices, and removes it after the script.
func veth(ts *testscript.TestScript, _ bool, args []string) {
	link := &netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: args[0], MTU: 1500}, PeerName: args[0] + "p"}
	ts.Check(netlink.LinkAdd(link))
	ts.Defer(func() { ts.Check(netlink.LinkDel(link)) })
}

// mtu NAME N compares a device's MTU.
func mtu(ts *testscript.TestScript, _ bool, args []string) {
	l, err := netlink.LinkByName(args[0])
	ts.Check(err)
	if got := fmt.Sprint(l.Attrs().MTU); got != args[1] {
		ts.Fatalf("mtu of %s: %s, want %s", args[0], got, args[1])
	}
}

// sysctl KEY VALUE compares; sysctl KEY = VALUE sets. Only net.*, which is the
// namespace's.
func sysctl(ts *testscript.TestScript, neg bool, args []string) {
	if !strings.HasPrefix(args[0], "net.") {
		ts.Fatalf("%s is not the network namespace's", args[0])
	}
	path := "/proc/sys/" + strings.ReplaceAll(args[0], ".", "/")
	if args[1] == "=" {
		ts.Check(os.WriteFile(path, []byte(args[2]), 0o644))
		return
	}
	b, err := os.ReadFile(path)
	ts.Check(err)
	got := strings.Join(strings.Fields(string(b)), " ")
	if (got == args[1]) == neg {
		ts.Fatalf("%s is %q, %q was named", args[0], got, args[1])
	}
}
