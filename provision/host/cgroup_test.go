package host

import (
	"errors"
	"io/fs"
	"testing"

	"k8s.io/utils/cpuset"
)

func TestCpuset(t *testing.T) {
	const mounts = "30 23 0:26 / /cg rw - cgroup2 none rw\n"
	h := newTree(t, map[string]string{
		"proc/self/mountinfo":          "24 1 0:5 / / rw shared:1 - ext4 /dev/vda rw\nbroken\n" + mounts,
		"cg/cgroup.controllers":        "cpuset cpu io\n",
		"cg/cpuset.cpus.effective":     "0-3\n",
		"cg/a/cgroup.controllers":      "cpuset\n",
		"cg/a/cpuset.cpus":             "0-1,3\n",
		"cg/a/cpuset.cpus.effective":   "0-1\n",
		"cg/a/off/cgroup.controllers":  "cpu\n",
		"cg/bad/cgroup.controllers":    "cpuset\n",
		"cg/bad/cpuset.cpus":           "x\n",
		"cg/bad/cpuset.cpus.effective": "0\n",
	})
	if root, err := h.CpusetRoot(); root != "/cg" || err != nil {
		t.Fatal(root, err)
	}
	got, err := h.Cpuset("/a")
	if err != nil || !got.CPUs.Equals(cpuset.New(0, 1, 3)) || !got.Effective.Equals(cpuset.New(0, 1)) {
		t.Errorf("%v, %v", got, err)
	}
	for group, want := range map[string]string{
		"/":      "cgroup /: openat /cg/cpuset.cpus: no such file or directory (the root cgroup is never confined)",
		"/a/off": "cgroup /a/off: the cpuset controller is not turned on for it, so it is confined to no CPUs (its parent's cgroup.subtree_control lacks cpuset)",
	} {
		if _, err := h.Cpuset(group); err == nil || err.Error() != want {
			t.Errorf("%s: %v", group, err)
		}
	}
	if _, err := h.Cpuset("/none"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("%v", err)
	}
	if c, err := h.Cpuset("/bad"); err == nil {
		t.Errorf("%v", c)
	}
	if _, err := newTree(t, map[string]string{"proc/self/mountinfo": mounts, "cg/cgroup.controllers": "cpu\n"}).CpusetRoot(); !errors.Is(err, ErrNoCpuset) {
		t.Errorf("%v", err)
	}
}
