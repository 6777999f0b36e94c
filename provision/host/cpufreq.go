package host

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

const (
	// CPUFreqDir holds the frequency policies, each of one or several CPUs.
	CPUFreqDir = "/sys/devices/system/cpu/cpufreq"
	// CPUDir holds the CPUs.
	CPUDir = "/sys/devices/system/cpu"
	// IntelPstateDir is there where the driver intel_pstate is.
	IntelPstateDir = CPUDir + "/intel_pstate"
)

// CPUFreqPolicies returns the directories of the frequency policies, by number;
// none where the kernel controls no frequencies.
func (h *Host) CPUFreqPolicies() ([]string, error) {
	return h.numbered(CPUFreqDir, "policy")
}

// CPUs returns the directories of the CPUs that the kernel knows, by number,
// those that are offline too.
func (h *Host) CPUs() ([]string, error) {
	return h.numbered(CPUDir, "cpu")
}

// IdleState is one C-state of CPU 0.
type IdleState struct {
	// Name is the driver's: "POLL", "C1", "C1E", "C1_ACPI"…
	Name string
	// Latency is how long leaving the state takes, in µs.
	Latency int
}

// IdleStates returns the C-states of CPU 0, shallowest first; none where the
// kernel has no say in them, as in most virtual machines.
func (h *Host) IdleStates() ([]IdleState, error) {
	dirs, err := h.numbered(CPUDir+"/cpu0/cpuidle", "state")
	if err != nil {
		return nil, err
	}
	var states []IdleState
	for _, dir := range dirs {
		name, err := h.ReadFile(dir + "/name")
		if err != nil {
			return nil, err
		}
		latency, err := h.ReadFile(dir + "/latency")
		if err != nil {
			return nil, err
		}
		us, err := strconv.Atoi(strings.TrimSpace(string(latency)))
		if err != nil {
			return nil, fmt.Errorf("%s/latency: %w", dir, err)
		}
		states = append(states, IdleState{strings.TrimSpace(string(name)), us})
	}
	return states, nil
}

// numbered returns the entries of dir that are prefix and a number, by number; a
// directory that is not there has none.
func (h *Host) numbered(dir, prefix string) ([]string, error) {
	d, err := h.open(dir, os.O_RDONLY)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	defer d.Close()
	names, err := d.Readdirnames(-1)
	if err != nil {
		return nil, named(err, dir)
	}
	pattern := regexp.MustCompile(`^` + prefix + `(\d{1,9})$`)
	number := func(name string) int {
		n, _ := strconv.Atoi(name[len(prefix):]) // the pattern lets only numbers through
		return n
	}
	names = slices.DeleteFunc(names, func(n string) bool { return !pattern.MatchString(n) })
	slices.SortFunc(names, func(a, b string) int { return number(a) - number(b) })
	for i, n := range names {
		names[i] = path.Join(dir, n)
	}
	return names, nil
}
