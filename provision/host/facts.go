package host

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"regexp"
	"runtime"
	"strconv"
	"strings"

	"github.com/zclconf/go-cty/cty"
	"github.com/zclconf/go-cty/cty/gocty"
	"golang.org/x/sys/unix"
)

// Facts are what a profile sees of the machine as `host`.
type Facts struct {
	Hostname string `json:"hostname" cty:"hostname"`
	// Arch has Go's names: "amd64", "arm64".
	Arch         string            `json:"arch" cty:"arch"`
	Kernel       KernelFacts       `json:"kernel" cty:"kernel"`
	CPU          CPUFacts          `json:"cpu" cty:"cpu"`
	Memory       MemoryFacts       `json:"memory" cty:"memory"`
	NICs         []NICFacts        `json:"nics" cty:"nics"`
	Distribution DistributionFacts `json:"distribution" cty:"distribution"`
	// Virtualization is "container", "kvm", "qemu" (emulated), "vm" (another
	// hypervisor), or empty for a machine that shows no sign of one.
	Virtualization string `json:"virtualization" cty:"virtualization"`
}

// KernelFacts tell the running kernel.
type KernelFacts struct {
	// Release is what `uname -r` prints, "6.1.0-25-cloud-amd64".
	Release string `json:"release" cty:"release"`
	// Version is the three numbers that the release begins with, "6.1.0". Some
	// distributions keep the last one at 0.
	Version string `json:"version" cty:"version"`
}

// CPUFacts tell the logical CPUs that are online.
type CPUFacts struct {
	Count int `json:"count" cty:"count"`
	// Online is a cpulist, "0-3,8".
	Online string `json:"online" cty:"online"`
}

// MemoryFacts tell the memory.
type MemoryFacts struct {
	// Total is what the kernel can use, in bytes.
	Total uint64 `json:"total" cty:"total"`
}

// NICFacts tell a network device; loopback is none. The fields are Link's.
type NICFacts struct {
	Name    string `json:"name" cty:"name"`
	Driver  string `json:"driver" cty:"driver"`
	MAC     string `json:"mac" cty:"mac"`
	MTU     int    `json:"mtu" cty:"mtu"`
	MinMTU  int    `json:"min_mtu" cty:"min_mtu"`
	MaxMTU  int    `json:"max_mtu" cty:"max_mtu"`
	Virtual bool   `json:"virtual" cty:"virtual"`
	Up      bool   `json:"up" cty:"up"`
}

// DistributionFacts are ID and VERSION_ID of os-release(5); "linux" and empty are its
// defaults.
type DistributionFacts struct {
	ID        string `json:"id" cty:"id"`
	VersionID string `json:"version_id" cty:"version_id"`
}

// FactsType is the type of Facts.Value, always the same.
func FactsType() cty.Type {
	t, err := gocty.ImpliedType(Facts{})
	if err != nil {
		panic(fmt.Sprintf("host facts: %v", err)) // the struct above is wrong
	}
	return t
}

// Value returns the facts as the profile language sees them. NICs is a list even
// when there is none.
func (f Facts) Value() cty.Value {
	if f.NICs == nil {
		f.NICs = []NICFacts{}
	}
	v, err := gocty.ToCtyValue(f, FactsType())
	if err != nil {
		panic(fmt.Sprintf("host facts: %v", err))
	}
	return v
}

// Facts asks the running machine, and takes its network namespace's devices. With
// a Root it is ErrOffline: an image's facts are not the builder's.
func (h *Host) Facts(ctx context.Context) (Facts, error) {
	if !h.Live() {
		return Facts{}, fmt.Errorf("host facts: %w", ErrOffline)
	}
	if err := ctx.Err(); err != nil {
		return Facts{}, err
	}
	var uts unix.Utsname
	if err := unix.Uname(&uts); err != nil {
		return Facts{}, fmt.Errorf("host facts: uname: %w", err)
	}
	f := Facts{
		Hostname: unix.ByteSliceToString(uts.Nodename[:]),
		Arch:     goArch(unix.ByteSliceToString(uts.Machine[:])),
		NICs:     []NICFacts{},
	}
	var err error
	f.Kernel.Release = unix.ByteSliceToString(uts.Release[:])
	if f.Kernel.Version, err = kernelVersion(f.Kernel.Release); err != nil {
		return Facts{}, fmt.Errorf("host facts: %w", err)
	}
	if f.CPU, err = h.cpuFacts(); err != nil {
		return Facts{}, fmt.Errorf("host facts: %w", err)
	}
	if f.Memory, err = h.memoryFacts(); err != nil {
		return Facts{}, fmt.Errorf("host facts: %w", err)
	}
	if f.Distribution, err = h.distribution(); err != nil {
		return Facts{}, fmt.Errorf("host facts: %w", err)
	}
	f.Virtualization = h.virtualization()
	links, err := h.Links()
	if err != nil {
		return Facts{}, fmt.Errorf("host facts: %w", err)
	}
	for _, l := range links {
		if l.Loopback {
			continue
		}
		f.NICs = append(f.NICs, NICFacts{
			Name: l.Name, Driver: l.Driver, MAC: l.MAC, MTU: l.MTU, MinMTU: l.MinMTU, MaxMTU: l.MaxMTU,
			Virtual: l.Virtual, Up: l.Up,
		})
	}
	return f, nil
}

// BootID is the kernel's name for the time since it booted, new at every boot. A
// tree of files that holds none has never been booted: its is empty.
func (h *Host) BootID() (string, error) {
	b, err := h.ReadFile("/proc/sys/kernel/random/boot_id")
	if !h.Live() && errors.Is(err, fs.ErrNotExist) {
		return "", nil
	}
	if err != nil {
		return "", fmt.Errorf("boot ID: %w (is /proc mounted?)", err)
	}
	return strings.TrimSpace(string(b)), nil
}

// goArch turns uname's machine into Go's name for it.
func goArch(machine string) string {
	switch machine {
	case "x86_64":
		return "amd64"
	case "i386", "i486", "i586", "i686":
		return "386"
	case "aarch64":
		return "arm64"
	case "armv5tel", "armv6l", "armv7l", "armv8l":
		return "arm"
	case "riscv64", "s390x", "ppc64le", "ppc64":
		return machine
	case "loongarch64":
		return "loong64"
	}
	return runtime.GOARCH
}

// kernelVersion takes the numbers from the front of a kernel release.
func kernelVersion(release string) (string, error) {
	m := regexp.MustCompile(`^(\d+)\.(\d+)(?:\.(\d+))?`).FindStringSubmatch(release)
	if m == nil {
		return "", fmt.Errorf("kernel release %q does not begin with a version", release)
	}
	if m[3] == "" {
		m[3] = "0"
	}
	return strings.Join(m[1:], "."), nil
}

func (h *Host) cpuFacts() (CPUFacts, error) {
	const p = "/sys/devices/system/cpu/online"
	b, err := h.ReadFile(p)
	if err != nil {
		return CPUFacts{}, fmt.Errorf("%w (is /sys mounted?)", err)
	}
	online := strings.TrimSpace(string(b))
	n, err := countCPUs(online)
	if err != nil {
		return CPUFacts{}, fmt.Errorf("%s: %w", p, err)
	}
	return CPUFacts{Count: n, Online: online}, nil
}

// countCPUs counts the CPUs of the kernel's cpulist, "0-3,8".
func countCPUs(list string) (int, error) {
	n := 0
	for part := range strings.SplitSeq(list, ",") {
		from, to, isRange := strings.Cut(part, "-")
		if !isRange {
			to = from
		}
		a, err1 := strconv.ParseUint(from, 10, 31)
		b, err2 := strconv.ParseUint(to, 10, 31)
		if err1 != nil || err2 != nil || b < a {
			return 0, fmt.Errorf("cpulist %q: %q is neither a CPU nor a range", list, part)
		}
		n += int(b-a) + 1
	}
	return n, nil
}

func (h *Host) memoryFacts() (MemoryFacts, error) {
	const p = "/proc/meminfo"
	b, err := h.ReadFile(p)
	if err != nil {
		return MemoryFacts{}, fmt.Errorf("%w (is /proc mounted?)", err)
	}
	for line := range strings.Lines(string(b)) {
		f := strings.Fields(line)
		if len(f) == 3 && f[0] == "MemTotal:" && f[2] == "kB" {
			kib, err := strconv.ParseUint(f[1], 10, 54)
			if err != nil {
				return MemoryFacts{}, fmt.Errorf("%s: MemTotal: %w", p, err)
			}
			return MemoryFacts{Total: kib << 10}, nil
		}
	}
	return MemoryFacts{}, fmt.Errorf("%s: no line MemTotal", p)
}

// distribution reads os-release(5), where /etc comes before /usr/lib.
func (h *Host) distribution() (DistributionFacts, error) {
	for _, p := range []string{"/etc/os-release", "/usr/lib/os-release"} {
		b, err := h.ReadFile(p)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return DistributionFacts{}, err
		}
		return parseOSRelease(string(b)), nil
	}
	return parseOSRelease(""), nil
}

func parseOSRelease(text string) DistributionFacts {
	d := DistributionFacts{ID: "linux"}
	for line := range strings.Lines(text) {
		key, value, ok := strings.Cut(strings.TrimSpace(line), "=")
		if !ok {
			continue
		}
		if n := len(value); n >= 2 && (value[0] == '"' || value[0] == '\'') && value[n-1] == value[0] {
			value = value[1 : n-1]
		}
		switch key {
		case "ID":
			d.ID = value
		case "VERSION_ID":
			d.VersionID = value
		}
	}
	return d
}

// virtualization looks at what is cheap to see: the marks that container
// managers leave, the clock that KVM gives its guests, the firmware's vendor,
// the CPU's flag.
func (h *Host) virtualization() string {
	text := func(p string) string {
		b, err := h.ReadFile(p)
		if err != nil {
			return ""
		}
		return strings.TrimSpace(string(b))
	}
	for _, p := range []string{"/run/systemd/container", "/run/.containerenv", "/.dockerenv"} {
		if f, err := h.open(p, unix.O_RDONLY); err == nil {
			f.Close()
			return "container"
		}
	}
	if strings.Contains(text("/sys/devices/system/clocksource/clocksource0/available_clocksource"), "kvm-clock") {
		return "kvm"
	}
	vendor, product := text("/sys/class/dmi/id/sys_vendor"), text("/sys/class/dmi/id/product_name")
	switch {
	case vendor == "Amazon EC2" && !strings.Contains(product, ".metal"), product == "Google Compute Engine":
		return "kvm"
	case vendor == "QEMU":
		return "qemu"
	case strings.HasPrefix(vendor, "VMware"), vendor == "innotek GmbH", vendor == "Xen", vendor == "Parallels International GmbH.",
		vendor == "Microsoft Corporation" && product == "Virtual Machine":
		return "vm"
	}
	for line := range strings.Lines(text("/proc/cpuinfo")) {
		if key, flags, ok := strings.Cut(line, ":"); ok && strings.TrimSpace(key) == "flags" {
			if strings.Contains(" "+flags+" ", " hypervisor ") {
				return "vm"
			}
			break
		}
	}
	return ""
}
