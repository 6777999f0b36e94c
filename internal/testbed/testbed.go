// Package testbed gives tests a part of the real machine that is theirs alone:
// network namespaces, cgroups, a bpffs, a Kubernetes API server. Nothing of it is
// in a binary that ships. It needs root, and fails without: no test is skipped.
package testbed

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"

	"github.com/nodeprov/nodeprov/internal/probe"
)

// asProbe makes the test's own binary be the probe, so that tests need no other
// program for a client in a cgroup.
const asProbe = "NODEPROV_TEST_AS_PROBE"

// Main runs the tests of a package: func TestMain(m *testing.M) { testbed.Main(m) }.
func Main(m *testing.M) {
	if os.Getenv(asProbe) != "" {
		os.Exit(probe.Run(os.Args[1:], os.Stdout, os.Stderr))
	}
	os.Exit(m.Run())
}

// BPFFS mounts a bpffs of the test's own and returns its path.
func BPFFS(t testing.TB) string {
	t.Helper()
	dir := t.TempDir()
	if err := unix.Mount("bpf", dir, "bpf", 0, ""); err != nil {
		t.Fatalf("mount a bpffs: %v (root is needed)", err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(dir, unix.MNT_DETACH); err != nil {
			t.Errorf("umount %s: %v", dir, err)
		}
	})
	return dir
}

// Cgroup makes a cgroup2 directory of the test's own and returns its path.
func Cgroup(t testing.TB) string {
	t.Helper()
	dir, err := os.MkdirTemp(cgroupMount(t), "nodeprov-test-")
	if err != nil {
		t.Fatalf("cgroup: %v (root is needed)", err)
	}
	t.Cleanup(func() { removeCgroup(t, dir) })
	return dir
}

func removeCgroup(t testing.TB, dir string) {
	err := filepath.WalkDir(dir, func(path string, e os.DirEntry, err error) error {
		if err == nil && e.IsDir() && path != dir {
			removeCgroup(t, path)
			return filepath.SkipDir
		}
		return err
	})
	if err == nil {
		err = unix.Rmdir(dir)
	}
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		t.Errorf("cgroup %s: %v", dir, err)
	}
}

func cgroupMount(t testing.TB) string {
	b, err := os.ReadFile("/proc/self/mounts")
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(b)) {
		if f := strings.Fields(line); len(f) > 2 && f[2] == "cgroup2" {
			return f[1]
		}
	}
	t.Fatal("no cgroup2 hierarchy is mounted")
	return ""
}

// NetNS is a network namespace with its loopback device up.
type NetNS struct {
	t  testing.TB
	ns netns.NsHandle
}

// NewNetNS makes a network namespace that lives as long as the test.
func NewNetNS(t testing.TB) *NetNS {
	t.Helper()
	n := &NetNS{t: t}
	done := make(chan error, 1)
	go func() {
		runtime.LockOSThread() // never unlocked: the thread ends with the goroutine
		ns, err := netns.New()
		if err == nil {
			n.ns = ns
			var lo netlink.Link
			if lo, err = netlink.LinkByName("lo"); err == nil {
				err = netlink.LinkSetUp(lo)
			}
		}
		done <- err
	}()
	if err := <-done; err != nil {
		t.Fatalf("network namespace: %v (root is needed)", err)
	}
	t.Cleanup(func() { n.ns.Close() })
	return n
}

// Do runs f in the namespace, on a thread of its own. f must not start
// goroutines that are to be in the namespace too. t.Fatal ends f, but not its caller.
func (n *NetNS) Do(f func() error) {
	n.t.Helper()
	done := make(chan error, 1)
	go func() {
		defer close(done) // t.Fatal in f ends this goroutine
		runtime.LockOSThread()
		err := netns.Set(n.ns)
		if err == nil {
			err = f()
		}
		done <- err
	}()
	if err := <-done; err != nil {
		n.t.Fatal(err)
	}
}

// DoWithSysfs is Do with a /sys that shows the namespace's devices: the files of
// their queues are nowhere else. f sees no other file system below /sys.
func (n *NetNS) DoWithSysfs(f func() error) {
	n.t.Helper()
	n.Do(func() error {
		// The mounts are this thread's alone, and go with it.
		if err := unix.Unshare(unix.CLONE_NEWNS); err != nil {
			return os.NewSyscallError("unshare", err)
		}
		if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
			return os.NewSyscallError("mount", err)
		}
		if err := unix.Mount("sysfs", "/sys", "sysfs", 0, ""); err != nil {
			return fmt.Errorf("mount /sys: %w", err)
		}
		return f()
	})
}

// Addr adds addresses such as "10.0.0.1/24" to a device.
func (n *NetNS) Addr(device string, addrs ...string) {
	n.t.Helper()
	n.Do(func() error {
		l, err := netlink.LinkByName(device)
		if err != nil {
			return fmt.Errorf("link %s: %w", device, err)
		}
		for _, a := range addrs {
			addr, err := netlink.ParseAddr(a)
			if err != nil {
				return err
			}
			addr.Flags = unix.IFA_F_NODAD // usable at once
			if err := netlink.AddrAdd(l, addr); err != nil {
				return fmt.Errorf("addr %s: %w", a, err)
			}
		}
		return nil
	})
}

// Veth joins two namespaces by a pair of devices that are up.
func Veth(a *NetNS, nameA string, b *NetNS, nameB string) {
	a.t.Helper()
	a.Do(func() error {
		veth := netlink.NewVeth(netlink.LinkAttrs{Name: nameA})
		veth.PeerName, veth.PeerNamespace = nameB, netlink.NsFd(b.ns)
		if err := netlink.LinkAdd(veth); err != nil {
			return fmt.Errorf("veth %s: %w", nameA, err)
		}
		return netlink.LinkSetUp(veth)
	})
	b.Do(func() error {
		l, err := netlink.LinkByName(nameB)
		if err != nil {
			return err
		}
		return netlink.LinkSetUp(l)
	})
}

// Place is where a process runs: a network namespace, a cgroup, or both.
type Place struct {
	NetNS  *NetNS // nil: the test's
	Cgroup string // empty: the test's
}

// Start starts cmd in the place and ends it with the test.
func (p Place) Start(t testing.TB, cmd *exec.Cmd) {
	t.Helper()
	if cmd.SysProcAttr == nil {
		cmd.SysProcAttr = &syscall.SysProcAttr{}
	}
	if p.Cgroup != "" {
		dir, err := os.Open(p.Cgroup)
		if err != nil {
			t.Fatal(err)
		}
		defer dir.Close()
		cmd.SysProcAttr.UseCgroupFD, cmd.SysProcAttr.CgroupFD = true, int(dir.Fd())
	}
	if p.NetNS != nil {
		p.NetNS.Do(cmd.Start)
	} else if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
}

// Probe runs the probe, see internal/probe, and returns what it printed, of
// which an error is the last line without "probe …: ".
func (p Place) Probe(t testing.TB, args ...string) string {
	t.Helper()
	cmd := p.probe(t, args...)
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	p.Start(t, cmd)
	if err := cmd.Wait(); err != nil {
		msg := strings.TrimSpace(errs.String())
		if msg == "" {
			t.Fatalf("probe %v: %v", args, err)
		}
		out.WriteString(strings.TrimPrefix(msg, "probe "+strings.Join(args, " ")+": "))
	}
	return strings.TrimSpace(out.String())
}

func (p Place) probe(t testing.TB, args ...string) *exec.Cmd {
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(exe, args...)
	cmd.Env = append(os.Environ(), asProbe+"=1",
		"GORACE=atexit_sleep_ms=0") // or each call takes a second longer under the race detector
	return cmd
}

// Serve runs `probe serve` with the arguments until the test ends; it returns
// when the sockets are open.
func (p Place) Serve(t testing.TB, args ...string) {
	t.Helper()
	p.background(t, append([]string{"serve"}, args...), true)
}

// Load starts `probe load` with the arguments; the function that it returns
// stops it and returns what it printed.
func (p Place) Load(t testing.TB, args ...string) (stop func() string) {
	t.Helper()
	return p.background(t, append([]string{"load"}, args...), false)
}

// Socket returns a socket that `probe socket` made with the arguments. It stays
// in the place, and the test may use it as it likes.
func (p Place) Socket(t testing.TB, args ...string) int {
	t.Helper()
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(pair[0])
	other := os.NewFile(uintptr(pair[1]), "socketpair")
	defer other.Close()
	cmd := p.probe(t, append([]string{"socket"}, args...)...)
	cmd.Stderr, cmd.ExtraFiles = os.Stderr, []*os.File{other}
	p.Start(t, cmd)
	if err := cmd.Wait(); err != nil {
		t.Fatalf("probe socket %v: %v", args, err)
	}
	buf, oob := make([]byte, 1), make([]byte, unix.CmsgSpace(4))
	_, n, _, _, err := unix.Recvmsg(pair[0], buf, oob, unix.MSG_CMSG_CLOEXEC)
	if err != nil {
		t.Fatal(err)
	}
	msgs, err := unix.ParseSocketControlMessage(oob[:n])
	if err != nil || len(msgs) != 1 {
		t.Fatalf("probe socket %v: %d messages, %v", args, len(msgs), err)
	}
	fds, err := unix.ParseUnixRights(&msgs[0])
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Close(fds[0]) })
	return fds[0]
}

func (p Place) background(t testing.TB, args []string, ready bool) (stop func() string) {
	t.Helper()
	cmd := p.probe(t, args...)
	cmd.Stderr = os.Stderr
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	cmd.Stdout = w
	p.Start(t, cmd)
	w.Close()
	if ready {
		b := make([]byte, len("ready\n"))
		if _, err := r.Read(b); err != nil || string(b) != "ready\n" {
			t.Fatalf("probe %v: not ready: %q, %v", args, b, err)
		}
	}
	stopped := false
	stop = func() string {
		if stopped {
			return ""
		}
		stopped = true
		cmd.Process.Signal(syscall.SIGTERM)
		var out bytes.Buffer
		out.ReadFrom(r)
		r.Close()
		cmd.Wait()
		return strings.TrimSpace(out.String())
	}
	t.Cleanup(func() { stop() })
	return stop
}
