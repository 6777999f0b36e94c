package provision

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	gocmp "github.com/google/go-cmp/cmp"
	"k8s.io/utils/cpuset"

	"github.com/nodeprov/nodeprov/provision/host"
)

// fakeSlices is a systemd that has AllowedCPUs= of slices and writes the cgroup,
// but, as the real one may, not when the property becomes empty.
type fakeSlices struct {
	root  string // of the cgroup file system
	cpus  map[string]cpuset.CPUSet
	calls []string
	deaf  bool // keeps the property only
}

func (s *fakeSlices) AllowedCPUs(_ context.Context, name string) (cpuset.CPUSet, error) {
	return s.cpus[name], nil
}

func (s *fakeSlices) SetAllowedCPUs(_ context.Context, name string, cpus cpuset.CPUSet) error {
	s.calls = append(s.calls, name+"="+cpus.String())
	s.cpus[name] = cpus
	if s.deaf || cpus.IsEmpty() {
		return nil
	}
	var errs []error
	for _, f := range []string{"cpuset.cpus", "cpuset.cpus.effective"} {
		errs = append(errs, os.WriteFile(filepath.Join(s.root, name, f), []byte(cpus.String()+"\n"), 0o644))
	}
	return errors.Join(errs...)
}

func (s *fakeSlices) ControlGroup(_ context.Context, name string) (string, error) {
	if _, err := os.Stat(filepath.Join(s.root, name)); err != nil {
		return "", nil //nolint:nilerr // systemd knows no such cgroup
	}
	return "/" + name, nil
}

const (
	unified = "30 23 0:26 / /sys/fs/cgroup rw,nosuid - cgroup2 cgroup2 rw\n"
	hybrid  = "32 24 0:27 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n33 24 0:28 / /sys/fs/cgroup/cpuset rw - cgroup cgroup rw,cpuset\n"
)

func TestSlice(t *testing.T) {
	h, root, _ := treeHost(t, map[string]string{
		"proc/self/mountinfo":                              unified,
		"sys/devices/system/cpu/online":                    "0-3\n",
		"sys/fs/cgroup/cgroup.controllers":                 "cpuset cpu\n",
		"sys/fs/cgroup/system.slice/cgroup.controllers":    "cpuset cpu\n",
		"sys/fs/cgroup/system.slice/cpuset.cpus":           "\n",
		"sys/fs/cgroup/system.slice/cpuset.cpus.effective": "0-3\n",
		"sys/fs/cgroup/user.slice/cgroup.controllers":      "memory\n",
	})
	m := &fakeSlices{root: filepath.Join(root, "sys/fs/cgroup"), cpus: map[string]cpuset.CPUSet{}}
	open := func(name string) *slice {
		s := newSlice(name)
		s.connect = func(context.Context, *host.Host) (cpuManager, error) { return m, nil }
		return s
	}
	s := open("system.slice")
	read := func() string {
		v, err := s.Read(t.Context(), h)
		if err != nil || v.Absent {
			t.Fatal(v, err)
		}
		return v.Text
	}
	verify := func(s *slice, want string) string { return fmt.Sprint(s.Verify(t.Context(), h, Value{Text: want})) }
	var got []string
	step := func(text string) { got = append(got, text) }
	step(read())
	step(fmt.Sprint(s.Write(t.Context(), h, Value{Text: "0-1,3"})))
	step(read())
	step(verify(s, "0-1,3"))
	step(fmt.Sprint(s.Write(t.Context(), h, Value{})))
	step(read())
	step(strings.Join(m.calls, " "))
	b, err := os.ReadFile(filepath.Join(root, "sys/fs/cgroup/system.slice/cpuset.cpus"))
	step(strings.TrimSpace(string(b)))
	want := []string{"", "<nil>", "0-1,3", "<nil>", "<nil>", "", "system.slice=0-1,3 system.slice=0-3 system.slice=", "0-3"}
	if d := gocmp.Diff(want, got); d != "" || err != nil {
		t.Error(d, err)
	}

	// The property alone is worth nothing.
	m.deaf = true
	for _, tc := range []struct{ unit, effective, want string }{
		{"system.slice", "0-3", "slice system.slice: systemd has AllowedCPUs=0-1, but cpuset.cpus of the cgroup /system.slice is \"0-3\" (something else wrote it; systemctl daemon-reload writes it again)"},
		{"user.slice", "", "slice user.slice: systemd has AllowedCPUs=0-1, but cgroup /user.slice: the cpuset controller is not turned on for it, so it is confined to no CPUs (its parent's cgroup.subtree_control lacks cpuset)"},
		{"machine.slice", "", "<nil>"}, // it has no cgroup now
	} {
		if got := verify(open(tc.unit), "0-1"); got != tc.want {
			t.Errorf("%s: %s", tc.unit, got)
		}
	}
	if err := os.WriteFile(filepath.Join(root, "sys/fs/cgroup/system.slice/cpuset.cpus"), []byte("0-1\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	if got := verify(s, "0-1"); got != "slice system.slice: AllowedCPUs=0-1, but the processes in /system.slice run on 0-3 (a cgroup above has none of these CPUs, or they are offline)" {
		t.Error(got)
	}
}

func TestSliceUnsupported(t *testing.T) {
	for _, tc := range []struct{ name, mounts, want string }{
		{"hybrid", hybrid, "slice a.slice: no cgroup v2 with the cpuset controller: this machine has the hybrid layout, whose v2 part at /sys/fs/cgroup/unified has no cpuset (boot with systemd.unified_cgroup_hierarchy=1, and without cgroup_disable=cpuset)"},
		{"v1", "33 24 0:28 / /sys/fs/cgroup/cpuset rw - cgroup cgroup rw,cpuset\n", "slice a.slice: no cgroup v2 with the cpuset controller: this machine has cgroup v1, at /sys/fs/cgroup (boot with systemd.unified_cgroup_hierarchy=1, and without cgroup_disable=cpuset)"},
		{"none", "", "slice a.slice: no cgroup v2 with the cpuset controller: no cgroup file system is mounted (boot with systemd.unified_cgroup_hierarchy=1, and without cgroup_disable=cpuset)"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			h, _, _ := treeHost(t, map[string]string{"proc/self/mountinfo": tc.mounts, "sys/fs/cgroup/unified/cgroup.controllers": "hugetlb\n"})
			s := newSlice("a.slice")
			if v, err := s.Read(t.Context(), h); err != nil || !v.Absent {
				t.Errorf("%v, %v", v, err)
			}
			if err := s.unsupported(h); err == nil || err.Error() != tc.want {
				t.Errorf("%v", err)
			}
		})
	}
}

func TestSliceWanted(t *testing.T) {
	h, _, _ := treeHost(t, map[string]string{"proc/self/mountinfo": hybrid, "sys/fs/cgroup/unified/cgroup.controllers": "hugetlb\n"})
	got := wantedOnMachine(t, `cpu {
  allowed_cpus = {
    "system.slice" = "1,0,3"
    "user.slice"   = best_effort("0")
  }
}`, h, &host.Facts{CPU: host.CPUFacts{Online: "0-3"}})
	var lines []string
	for line := range strings.Lines(got) {
		key, _, _ := strings.Cut(line, " ! ")
		class := ""
		if strings.HasSuffix(line, " (tolerate)\n") {
			class = " (tolerate)"
		}
		lines = append(lines, key+class)
	}
	sameText(t, "slice/system.slice/AllowedCPUs = 0-1,3\nslice/user.slice/AllowedCPUs = 0 (tolerate)", strings.Join(lines, "\n"))
	for name, ok := range map[string]bool{"a.slice/AllowedCPUs": true, "a@b.service/AllowedCPUs": true, "a.slice": false, "-.slice/AllowedCPUs": false, "a/b.slice/AllowedCPUs": false, "a.target/AllowedCPUs": false, "": false} {
		s, err := openSlice(name)
		if (err == nil) != ok {
			t.Errorf("%q: %v", name, err)
		}
		if err == nil && s.Key() != "slice/"+name {
			t.Errorf("%q opens %s", name, s.Key())
		}
	}
}
