package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// The tuning of builtin://k3s-server, on a pair of devices instead of hardware.
const benchProfile = `nodeprov {
  schema  = 1
  include = ["builtin://k3s-server"]
}
locals {
  uplinks = { for n in host.nics : n.name => n }
}
# The machine's disks are not the benchmark's.
sysfs = { "/sys/block/*/queue/read_ahead_kb" = null }
kernel { thp = null }
lbd { service = false }
`

// BenchmarkProcess takes the time of whole processes, from exec to exit: the median
// of b.N runs is "ms-median". The process has a network namespace of its own, and
// copies of /proc/sys and /etc in place of the machine's, so that nothing of the
// machine is changed: a write to a kernel key is one to a file in memory.
//
//	go test -run xxx -bench Process -benchtime 20x ./cmd/nodeprov
func BenchmarkProcess(b *testing.B) {
	dir := b.TempDir()
	binary := filepath.Join(dir, "nodeprov")
	if out, err := exec.Command("go", "build", "-trimpath", "-ldflags=-s -w", "-o", binary, ".").CombinedOutput(); err != nil {
		b.Fatalf("%v\n%s", err, out)
	}
	// Sub-benchmarks have goroutines of their own; namespaces are a thread's.
	work, done := make(chan func()), make(chan struct{})
	defer close(work)
	go func() {
		runtime.LockOSThread() // for good: the thread ends with the goroutine
		for f := range work {
			f()
			done <- struct{}{}
		}
	}()
	inside := func(f func()) { work <- f; <-done }
	var err error
	inside(func() { err = confine(dir) })
	if err != nil {
		b.Fatalf("%v (run as root)", err)
	}
	state := filepath.Join(dir, "state")
	run := func(args ...string) time.Duration {
		var out []byte
		var took time.Duration
		inside(func() {
			c := exec.Command(binary, append(args, "--state-dir", state)...)
			start := time.Now()
			out, err = c.CombinedOutput()
			took = time.Since(start)
		})
		if err != nil {
			b.Fatalf("nodeprov %v: %v\n%s", args, err, out)
		}
		return took
	}
	for _, bc := range []struct {
		name   string
		before func()
		args   []string
	}{
		{"version", func() {}, []string{"version"}},
		{"validate", func() {}, []string{"validate", "builtin://k3s-server"}},
		{"plan", func() {}, []string{"plan"}},
		{"apply-first", func() {
			run("rollback", "--to", "0")
			if err := os.RemoveAll(state); err != nil {
				b.Fatal(err)
			}
		}, []string{"apply"}},
		{"apply-again", func() {}, []string{"apply"}},
		{"verify", func() {}, []string{"verify"}},
	} {
		if bc.name == "apply-again" || bc.name == "apply-first" {
			run("apply")
		}
		b.Run(bc.name, func(b *testing.B) {
			var took []time.Duration
			for range b.N {
				bc.before()
				took = append(took, run(bc.args...))
			}
			slices.Sort(took)
			b.ReportMetric(float64(took[len(took)/2].Microseconds())/1000, "ms-median")
			b.ReportMetric(float64(took[len(took)-1].Microseconds())/1000, "ms-max")
			b.ReportMetric(0, "ns/op")
		})
	}
}

// confine gives this thread, and the processes that it starts, namespaces of their
// own.
func confine(dir string) error {
	sys := filepath.Join(dir, "sys")
	if err := copyKeys("/proc/sys", sys); err != nil {
		return err
	}
	if err := unix.Unshare(unix.CLONE_NEWNS | unix.CLONE_NEWNET | unix.CLONE_NEWUTS | unix.CLONE_NEWIPC); err != nil {
		return fmt.Errorf("unshare: %w", err)
	}
	link := &netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: "eth0", MTU: 1500, NumTxQueues: 4, NumRxQueues: 4}, PeerName: "eth1", PeerNumTxQueues: 4, PeerNumRxQueues: 4}
	if err := netlink.LinkAdd(link); err != nil {
		return err
	}
	type mount struct {
		from, to, kind string
		flags          uintptr
		data           string
	}
	mounts := []mount{
		{"", "/", "", unix.MS_REC | unix.MS_PRIVATE, ""},
		{sys, "/proc/sys", "", unix.MS_BIND, ""},
		{"sysfs", "/sys", "sysfs", 0, ""}, // the network namespace's
	}
	for _, d := range []string{"/sys/kernel", "/sys/block", "/sys/firmware", "/sys/devices/system"} {
		mounts = append(mounts,
			mount{d, d, "", unix.MS_BIND | unix.MS_REC, ""},
			mount{"", d, "", unix.MS_BIND | unix.MS_REMOUNT | unix.MS_RDONLY, ""})
	}
	for _, d := range []string{"/etc", "/run", "/usr/lib"} {
		upper, work := filepath.Join(dir, "upper", d), filepath.Join(dir, "work", d)
		if err := errors.Join(os.MkdirAll(upper, 0o755), os.MkdirAll(work, 0o755)); err != nil {
			return err
		}
		mounts = append(mounts, mount{"overlay", d, "overlay", 0, fmt.Sprintf("lowerdir=%s,upperdir=%s,workdir=%s", d, upper, work)})
	}
	for _, m := range mounts {
		if err := unix.Mount(m.from, m.to, m.kind, m.flags, m.data); err != nil {
			return fmt.Errorf("mount %s: %w", m.to, err)
		}
	}
	// A kernel that has everything built in, as a machine's has it loaded.
	var uts unix.Utsname
	if err := unix.Uname(&uts); err != nil {
		return err
	}
	modules := "/lib/modules/" + unix.ByteSliceToString(uts.Release[:])
	return errors.Join(
		os.MkdirAll(modules, 0o755),
		os.WriteFile(modules+"/modules.builtin", []byte("kernel/overlay.ko\nkernel/br_netfilter.ko\nkernel/nf_conntrack.ko\nkernel/tcp_bbr.ko\nkernel/sch_fq.ko\n"), 0o644),
		os.WriteFile(modules+"/modules.dep", nil, 0o644),
		os.MkdirAll("/etc/nodeprov", 0o755),
		os.WriteFile("/etc/nodeprov/profile.hcl", []byte(benchProfile), 0o644))
}

// copyKeys copies what can be read of a tree of kernel keys.
func copyKeys(from, to string) error {
	return filepath.WalkDir(from, func(path string, e fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		target := filepath.Join(to, strings.TrimPrefix(path, from))
		if e.IsDir() {
			return os.MkdirAll(target, 0o755)
		}
		text, err := os.ReadFile(path)
		if err != nil {
			return nil //nolint:nilerr // for writing alone, or without a value
		}
		return os.WriteFile(target, text, 0o644)
	})
}
