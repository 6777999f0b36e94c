package host

import (
	"bufio"
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
	Cloud        CloudFacts        `json:"cloud" cty:"cloud"`
	// CGroup is "v2", "v1", or "hybrid": v1 with a v2 hierarchy beside it, which has
	// no controllers. Empty where none is mounted.
	CGroup string `json:"cgroup" cty:"cgroup"`
	// Bootloader is what passes the kernel its command line: "grub", "systemd-boot",
	// "raspberrypi", "u-boot", "extlinux", "zipl", or empty where no sign of one is
	// seen (a virtual machine that is given its kernel, a container).
	Bootloader string `json:"bootloader" cty:"bootloader"`
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
	// Cmdline is what it was booted with, on one line.
	Cmdline string `json:"cmdline" cty:"cmdline"`
	// BTF tells whether it describes its own types, which CO-RE programs need.
	BTF bool `json:"btf" cty:"btf"`
	// Preempt is its preemption model: "none", "voluntary", "full", "lazy" or
	// "rt"; empty where it cannot be told.
	Preempt string `json:"preempt" cty:"preempt"`
}

// CPUFacts tell the logical CPUs that are online.
type CPUFacts struct {
	Count int `json:"count" cty:"count"`
	// Online is a cpulist, "0-3,8". Isolated are those that isolcpus= took away from
	// the scheduler; empty for none.
	Online   string `json:"online" cty:"online"`
	Isolated string `json:"isolated" cty:"isolated"`
	// Threads are the CPUs that are online, by ID; NUMA are the nodes that have
	// one, by ID: one node where the kernel knows none.
	Threads []ThreadFacts `json:"threads" cty:"threads"`
	NUMA    []NUMAFacts   `json:"numa" cty:"numa"`
}

// ThreadFacts tell a logical CPU.
type ThreadFacts struct {
	ID int `json:"id" cty:"id"`
	// Core is the core's number within its Socket, as the kernel counts them; it
	// may leave gaps, and Socket is 0 where it tells none. Node is the NUMA node.
	Core   int `json:"core" cty:"core"`
	Socket int `json:"socket" cty:"socket"`
	Node   int `json:"node" cty:"node"`
	// Siblings is the cpulist of the core's threads that are online, this one
	// included.
	Siblings string `json:"siblings" cty:"siblings"`
}

// NUMAFacts tell a NUMA node.
type NUMAFacts struct {
	ID int `json:"id" cty:"id"`
	// CPUs is the cpulist of those online.
	CPUs string `json:"cpus" cty:"cpus"`
	// Memory is in bytes.
	Memory uint64 `json:"memory" cty:"memory"`
}

// CloudFacts tell who runs the virtual machine.
type CloudFacts struct {
	// Provider is "aws", "gce", "azure", "hetzner"…, as the firmware names it;
	// empty where it names none.
	Provider string `json:"provider" cty:"provider"`
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
	// PCI is the address of the device or of what it sits on (virtio),
	// "0000:00:03.0"; empty for one that is on no PCI bus.
	PCI string `json:"pci" cty:"pci"`
	// NUMANode is that of its bus, -1 where the kernel tells none.
	NUMANode int `json:"numa_node" cty:"numa_node"`
	// DefaultRoute tells whether a default route (IPv4 or IPv6) leads through it.
	// It comes late at boot: do not let it decide what is tuned.
	DefaultRoute bool `json:"default_route" cty:"default_route"`
	// TSOMaxSize is the largest packet in bytes that it segments (BIG TCP's
	// limit); 0 where the kernel does not tell (before 5.19).
	TSOMaxSize int `json:"tso_max_size" cty:"tso_max_size"`
	// Channels and Rings are 0 throughout for a device without such a setting.
	Channels ChannelFacts `json:"channels" cty:"channels"`
	Rings    RingFacts    `json:"rings" cty:"rings"`
}

// ChannelFacts tell a device's queues (ethtool -l).
type ChannelFacts struct {
	Combined    int `json:"combined" cty:"combined"`
	RX          int `json:"rx" cty:"rx"`
	TX          int `json:"tx" cty:"tx"`
	MaxCombined int `json:"max_combined" cty:"max_combined"`
	MaxRX       int `json:"max_rx" cty:"max_rx"`
	MaxTX       int `json:"max_tx" cty:"max_tx"`
}

// RingFacts tell the entries of a device's rings (ethtool -g).
type RingFacts struct {
	RX    int `json:"rx" cty:"rx"`
	TX    int `json:"tx" cty:"tx"`
	MaxRX int `json:"max_rx" cty:"max_rx"`
	MaxTX int `json:"max_tx" cty:"max_tx"`
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

// Value returns the facts as the profile language sees them. Lists are lists even
// when they are empty.
func (f Facts) Value() cty.Value {
	if f.NICs == nil {
		f.NICs = []NICFacts{}
	}
	if f.CPU.Threads == nil {
		f.CPU.Threads = []ThreadFacts{}
	}
	if f.CPU.NUMA == nil {
		f.CPU.NUMA = []NUMAFacts{}
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
	f, err := h.FileFacts()
	if err != nil {
		return Facts{}, err
	}
	// What the process sees, whatever is mounted at /proc.
	var uts unix.Utsname
	if err := unix.Uname(&uts); err != nil {
		return Facts{}, fmt.Errorf("host facts: uname: %w", err)
	}
	f.Hostname = unix.ByteSliceToString(uts.Nodename[:])
	f.Arch = goArch(unix.ByteSliceToString(uts.Machine[:]))
	if f.NICs, err = h.nicFacts(); err != nil {
		return Facts{}, fmt.Errorf("host facts: %w", err)
	}
	return f, nil
}

// FileFacts are the facts that files tell: all but the network devices. They can
// be had from a Root too, and are then those of the machine that its /proc and
// /sys were copied from: a picture of it.
func (h *Host) FileFacts() (Facts, error) {
	f := Facts{
		Hostname:       h.text("/proc/sys/kernel/hostname"),
		Arch:           goArch(h.text("/proc/sys/kernel/arch")), // since Linux 6.1
		NICs:           []NICFacts{},
		Cloud:          CloudFacts{Provider: h.cloudProvider()},
		Virtualization: h.virtualization(),
		CGroup:         h.cgroup(),
		Bootloader:     h.bootloader(),
	}
	var err error
	for _, part := range []func() error{
		func() error { f.Kernel, err = h.kernelFacts(); return err },
		func() error { f.Memory, err = h.memoryFacts(); return err },
		func() error { f.CPU, err = h.cpuFacts(f.Memory.Total); return err },
		func() error { f.Distribution, err = h.distribution(); return err },
	} {
		if err := part(); err != nil {
			return Facts{}, fmt.Errorf("host facts: %w", err)
		}
	}
	return f, nil
}

// text returns a file's content without blanks around it; empty for one that
// cannot be read.
func (h *Host) text(p string) string {
	b, err := h.ReadFile(p)
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(b))
}

// Exists tells whether there is something at the absolute path p. A symbolic
// link counts where it leads to something.
func (h *Host) Exists(p string) bool {
	f, err := h.open(p, unix.O_PATH)
	if err != nil {
		return false
	}
	f.Close()
	return true
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
	for _, p := range []string{"/run/systemd/container", "/run/.containerenv", "/.dockerenv"} {
		if h.Exists(p) {
			return "container"
		}
	}
	if strings.Contains(h.text("/sys/devices/system/clocksource/clocksource0/available_clocksource"), "kvm-clock") {
		return "kvm"
	}
	vendor, product := h.text("/sys/class/dmi/id/sys_vendor"), h.text("/sys/class/dmi/id/product_name")
	switch {
	case vendor == "Amazon EC2" && !strings.Contains(product, ".metal"), product == "Google Compute Engine":
		return "kvm"
	case vendor == "QEMU":
		return "qemu"
	case strings.HasPrefix(vendor, "VMware"), vendor == "innotek GmbH", vendor == "Xen", vendor == "Parallels International GmbH.",
		vendor == "Microsoft Corporation" && product == "Virtual Machine":
		return "vm"
	}
	if h.cpuFlag("hypervisor") {
		return "vm"
	}
	return ""
}

// cpuFlag asks the first CPU. Only the beginning is read: with hundreds of CPUs
// the kernel takes milliseconds to write the whole file.
func (h *Host) cpuFlag(flag string) bool {
	f, err := h.open("/proc/cpuinfo", unix.O_RDONLY)
	if err != nil {
		return false
	}
	defer f.Close()
	lines := bufio.NewScanner(f)
	for lines.Scan() {
		if key, flags, ok := strings.Cut(lines.Text(), ":"); ok && strings.TrimSpace(key) == "flags" {
			return strings.Contains(" "+flags+" ", " "+flag+" ")
		}
	}
	return false
}
