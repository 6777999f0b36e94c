package host

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"strconv"
	"strings"

	"k8s.io/utils/cpuset"
)

const (
	cpuDir  = "/sys/devices/system/cpu"
	nodeDir = "/sys/devices/system/node"
)

// cpuFacts reads the topology. What the kernel does not tell is what it would be on
// the simplest machine: a core for each CPU, one socket, one node with all the
// memory (in bytes).
func (h *Host) cpuFacts(memory uint64) (CPUFacts, error) {
	online, err := h.cpuList(cpuDir + "/online")
	if err != nil {
		return CPUFacts{}, fmt.Errorf("%w (is /sys mounted?)", err)
	}
	if online.IsEmpty() {
		return CPUFacts{}, fmt.Errorf("%s/online: no CPU is online", cpuDir)
	}
	isolated, err := h.cpuList(cpuDir + "/isolated")
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return CPUFacts{}, err
	}
	c := CPUFacts{Count: online.Size(), Online: online.String(), Isolated: isolated.String()}
	if c.NUMA, err = h.numaNodes(online, memory); err != nil {
		return CPUFacts{}, err
	}
	nodeOf := make(map[int]int, c.Count)
	for _, n := range c.NUMA {
		cpus, err := cpuset.Parse(n.CPUs)
		if err != nil {
			return CPUFacts{}, err
		}
		for _, cpu := range cpus.UnsortedList() {
			nodeOf[cpu] = n.ID
		}
	}
	threads := make(map[int]ThreadFacts, c.Count)
	for _, cpu := range online.List() {
		if _, ok := threads[cpu]; ok {
			continue
		}
		t, siblings, err := h.core(cpu)
		if err != nil {
			return CPUFacts{}, err
		}
		// Threads of a core differ in nothing else: no need to read their files,
		// which is what takes the time on a large machine.
		siblings = siblings.Intersection(online).Union(cpuset.New(cpu))
		t.Siblings = siblings.String()
		for _, id := range siblings.UnsortedList() {
			t.ID, t.Node = id, nodeOf[id]
			threads[id] = t
		}
	}
	c.Threads = make([]ThreadFacts, 0, c.Count)
	for _, cpu := range online.List() {
		c.Threads = append(c.Threads, threads[cpu])
	}
	return c, nil
}

// core tells the core that a CPU is a thread of, and its threads.
func (h *Host) core(cpu int) (ThreadFacts, cpuset.CPUSet, error) {
	t, alone := ThreadFacts{Core: cpu}, cpuset.New(cpu)
	dir := cpuDir + "/cpu" + strconv.Itoa(cpu) + "/topology/"
	// core_cpus_list is its name since Linux 5.3; the old one is still there, and
	// is what copies of older machines have.
	siblings, err := h.cpuList(dir + "thread_siblings_list")
	if errors.Is(err, fs.ErrNotExist) {
		siblings, err = h.cpuList(dir + "core_cpus_list")
	}
	if errors.Is(err, fs.ErrNotExist) {
		return t, alone, nil
	}
	if err != nil {
		return t, alone, err
	}
	for _, f := range []struct {
		name string
		to   *int
	}{{"core_id", &t.Core}, {"physical_package_id", &t.Socket}} {
		n, err := strconv.Atoi(h.text(dir + f.name))
		// -1 is the kernel's way to say that the firmware does not tell.
		if err == nil && n >= 0 {
			*f.to = n
		}
	}
	return t, siblings, nil
}

// numaNodes are the nodes that have a CPU that is online.
func (h *Host) numaNodes(online cpuset.CPUSet, memory uint64) ([]NUMAFacts, error) {
	var nodes []NUMAFacts
	rest := online
	for _, name := range h.DirNames(nodeDir) {
		id, err := strconv.Atoi(strings.TrimPrefix(name, "node"))
		if err != nil || !strings.HasPrefix(name, "node") {
			continue
		}
		cpus, err := h.cpuList(nodeDir + "/" + name + "/cpulist")
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, err
		}
		cpus = cpus.Intersection(online)
		if cpus.IsEmpty() {
			continue // memory only, or all of its CPUs are offline
		}
		rest = rest.Difference(cpus)
		nodes = append(nodes, NUMAFacts{ID: id, CPUs: cpus.String(), Memory: nodeMemory(h.text(nodeDir + "/" + name + "/meminfo"))})
	}
	if len(nodes) == 0 {
		return []NUMAFacts{{CPUs: online.String(), Memory: memory}}, nil
	}
	if !rest.IsEmpty() {
		return nil, fmt.Errorf("%s: CPUs %s are of no node", nodeDir, rest)
	}
	slices.SortFunc(nodes, func(a, b NUMAFacts) int { return a.ID - b.ID })
	return nodes, nil
}

// nodeMemory reads "Node 0 MemTotal: 16306524 kB" and returns bytes; 0 where it
// is not told.
func nodeMemory(meminfo string) uint64 {
	for line := range strings.Lines(meminfo) {
		f := strings.Fields(line)
		if len(f) == 5 && f[2] == "MemTotal:" && f[4] == "kB" {
			if kib, err := strconv.ParseUint(f[3], 10, 54); err == nil {
				return kib << 10
			}
		}
	}
	return 0
}

// cpuList reads a file that holds a cpulist, "0-3,8"; an empty one is no CPU.
func (h *Host) cpuList(p string) (cpuset.CPUSet, error) {
	b, err := h.ReadFile(p)
	if err != nil {
		return cpuset.New(), err
	}
	text := strings.TrimSpace(string(b))
	if text == "(null)" { // what Linux before 4.15 wrote for an empty list
		return cpuset.New(), nil
	}
	list, err := cpuset.Parse(text)
	if err != nil {
		return list, fmt.Errorf("%s: %q is no list of CPUs: %w", p, text, err)
	}
	return list, nil
}

// NoHzFull are the CPUs that nohz_full= relieves of the kernel's own work: none where
// the kernel does not tell.
func (h *Host) NoHzFull() cpuset.CPUSet {
	list, err := h.cpuList(cpuDir + "/nohz_full")
	if err != nil {
		return cpuset.New()
	}
	return list
}

// DirNames returns the sorted names in the directory at the absolute path p; it
// is empty for one that cannot be read.
func (h *Host) DirNames(p string) []string {
	d, err := h.open(p, os.O_RDONLY)
	if err != nil {
		return nil
	}
	defer d.Close()
	names, err := d.Readdirnames(-1)
	if err != nil {
		return nil
	}
	slices.Sort(names)
	return names
}
