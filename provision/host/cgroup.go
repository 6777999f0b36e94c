package host

import (
	"errors"
	"fmt"
	"io/fs"
	"path"
	"slices"
	"strings"

	"github.com/containerd/cgroups/v3/cgroup2"
	"k8s.io/utils/cpuset"
)

// ErrNoCpuset is the reason for which a machine cannot confine cgroups to CPUs.
var ErrNoCpuset = errors.New("no cgroup v2 with the cpuset controller")

// Cpuset is what a cgroup says of its CPUs.
type Cpuset struct {
	// CPUs are those that it is confined to; empty for no limit of its own.
	CPUs cpuset.CPUSet
	// Effective are those that its processes can run on, after the limits of the
	// cgroups above it and without CPUs that are offline.
	Effective cpuset.CPUSet
}

// CpusetRoot returns where the cgroup v2 file system with the cpuset controller is
// mounted. The error is ErrNoCpuset where there is none: cgroup v1, a hybrid
// layout that leaves cpuset to v1, or a kernel without it.
func (h *Host) CpusetRoot() (string, error) {
	b, err := h.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return "", fmt.Errorf("cgroups: %w (is /proc mounted?)", err)
	}
	var mounts, v1 []string
	for line := range strings.Lines(string(b)) {
		// proc_pid_mountinfo(5): the mount point is the fifth field, the type of
		// file system comes after a lone hyphen.
		before, after, ok := strings.Cut(line, " - ")
		left, right := strings.Fields(before), strings.Fields(after)
		if !ok || len(left) < 5 || len(right) < 1 {
			continue
		}
		switch right[0] {
		case "cgroup2":
			mounts = append(mounts, left[4])
		case "cgroup":
			v1 = append(v1, left[4])
		}
	}
	for _, m := range mounts {
		g, err := cgroup2.Load("/", cgroup2.WithMountpoint(h.Path(m)))
		if err != nil {
			return "", fmt.Errorf("cgroups: %s: %w", m, err)
		}
		controllers, err := g.RootControllers()
		if err != nil {
			return "", fmt.Errorf("cgroups: %w", err)
		}
		if slices.Contains(controllers, "cpuset") {
			return m, nil
		}
	}
	const remedy = "boot with systemd.unified_cgroup_hierarchy=1, and without cgroup_disable=cpuset"
	switch {
	case len(mounts) == 0 && len(v1) == 0:
		return "", fmt.Errorf("%w: no cgroup file system is mounted (%s)", ErrNoCpuset, remedy)
	case len(mounts) == 0:
		return "", fmt.Errorf("%w: this machine has cgroup v1, at %s (%s)", ErrNoCpuset, path.Dir(v1[0]), remedy)
	case len(v1) > 0:
		return "", fmt.Errorf("%w: this machine has the hybrid layout, whose v2 part at %s has no cpuset (%s)", ErrNoCpuset, mounts[0], remedy)
	}
	return "", fmt.Errorf("%w: %s has none (%s)", ErrNoCpuset, mounts[0], remedy)
}

// Cpuset returns the CPUs of the cgroup at the path group below the cgroup file
// system. The error is fs.ErrNotExist for a cgroup that is not there, and says so
// where nothing has turned the controller on for it.
func (h *Host) Cpuset(group string) (Cpuset, error) {
	root, err := h.CpusetRoot()
	if err != nil {
		return Cpuset{}, err
	}
	g, err := cgroup2.Load(group, cgroup2.WithMountpoint(h.Path(root)))
	if err != nil {
		return Cpuset{}, fmt.Errorf("cgroup %s: %w", group, err)
	}
	controllers, err := g.Controllers()
	if err != nil {
		return Cpuset{}, fmt.Errorf("cgroup %s: %w", group, err)
	}
	if !slices.Contains(controllers, "cpuset") {
		return Cpuset{}, fmt.Errorf("cgroup %s: the cpuset controller is not turned on for it, so it is confined to no CPUs (its parent's cgroup.subtree_control lacks cpuset)", group)
	}
	var c Cpuset
	for name, to := range map[string]*cpuset.CPUSet{"cpuset.cpus": &c.CPUs, "cpuset.cpus.effective": &c.Effective} {
		p := path.Join(root, group, name)
		b, err := h.ReadFile(p)
		if errors.Is(err, fs.ErrNotExist) {
			return Cpuset{}, fmt.Errorf("cgroup %s: %w (the root cgroup is never confined)", group, err)
		}
		if err != nil {
			return Cpuset{}, fmt.Errorf("cgroup %s: %w", group, err)
		}
		if *to, err = cpuset.Parse(strings.TrimSpace(string(b))); err != nil {
			return Cpuset{}, fmt.Errorf("cgroup %s: %s: %w", group, name, err)
		}
	}
	return c, nil
}
