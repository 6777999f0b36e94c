package host

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"

	"k8s.io/utils/cpuset"
)

const netDir = "/sys/class/net/"

// QueueAttr is a file that each receive or each transmit queue of a device has.
type QueueAttr struct {
	// Dir is "rx" or "tx".
	Dir, Name string
	// CPUs are masks, which are turned into cpulists here.
	CPUs bool
}

// The queues' files, see Documentation/networking/scaling.rst of Linux.
var (
	RPSCPUs  = QueueAttr{"rx", "rps_cpus", true}
	RPSFlows = QueueAttr{"rx", "rps_flow_cnt", false}
	XPSCPUs  = QueueAttr{"tx", "xps_cpus", true}
)

// LinkAttr returns what the file attr of the device's directory in /sys holds,
// without the newline. The error is fs.ErrNotExist for a device that is not
// there, and errors.ErrUnsupported where the kernel has no such file.
func (h *Host) LinkAttr(name, attr string) (string, error) {
	if err := h.checkSysfs(name); err != nil {
		return "", err
	}
	return h.readAttr(name, netDir+name+"/"+attr)
}

// SetLinkAttr writes such a file.
func (h *Host) SetLinkAttr(name, attr, text string) error {
	if err := h.checkSysfs(name); err != nil {
		return err
	}
	return h.writeAttr(netDir+name+"/"+attr, text)
}

// QueueValues returns the value of each of the queues in use, by number; an empty
// cpulist is empty. Errors are those of LinkAttr; a device with one transmit queue
// has no XPS.
func (h *Host) QueueValues(name string, a QueueAttr) ([]string, error) {
	if err := h.checkSysfs(name); err != nil {
		return nil, err
	}
	n, err := h.Queues(name, a.Dir)
	if err != nil {
		return nil, err
	}
	if n == 0 {
		return nil, fmt.Errorf("link %s: %w: it has no %s queues", name, errors.ErrUnsupported, a.Dir)
	}
	values := make([]string, n)
	for i := range values {
		text, err := h.readAttr(name, queueFile(name, i, a))
		if err != nil {
			return nil, err
		}
		if a.CPUs {
			set, err := parseMask(text)
			if err != nil {
				return nil, fmt.Errorf("%s: %w", queueFile(name, i, a), err)
			}
			text = set.String()
		}
		values[i] = text
	}
	return values, nil
}

// SetQueueValue sets the value of one queue.
func (h *Host) SetQueueValue(name string, a QueueAttr, queue int, value string) error {
	if err := h.checkSysfs(name); err != nil {
		return err
	}
	if a.CPUs {
		set, err := cpuset.Parse(value)
		if err != nil {
			return fmt.Errorf("%s: cpulist %q: %w", queueFile(name, queue, a), value, err)
		}
		value = formatMask(set)
	}
	return h.writeAttr(queueFile(name, queue, a), value)
}

// Queues counts the receive ("rx") or transmit ("tx") queues that the device uses.
func (h *Host) Queues(name, dir string) (int, error) {
	d, err := h.open(netDir+name+"/queues", os.O_RDONLY)
	if errors.Is(err, fs.ErrNotExist) {
		return 0, nil
	}
	if err != nil {
		return 0, err
	}
	defer d.Close()
	names, err := d.Readdirnames(-1)
	if err != nil {
		return 0, err
	}
	return len(slices.DeleteFunc(names, func(n string) bool { return !strings.HasPrefix(n, dir+"-") })), nil
}

func queueFile(name string, queue int, a QueueAttr) string {
	return netDir + name + "/queues/" + a.Dir + "-" + strconv.Itoa(queue) + "/" + a.Name
}

// checkSysfs tells whether the device in /sys is the one that netlink and ethtool
// mean: /sys shows the network namespace that it was mounted in, which is not this
// thread's after nsenter --net.
func (h *Host) checkSysfs(name string) error {
	dir := netDir + name
	address, err := h.ReadFile(dir + "/address")
	if errors.Is(err, fs.ErrNotExist) {
		if h.Live() {
			if _, err := h.Link(name); err != nil {
				return err
			}
			return fmt.Errorf("link %s: it is not in /sys, which shows another network namespace (mount one that shows this one: `ip netns exec` does)", name)
		}
		return fmt.Errorf("link %s: %w", name, fs.ErrNotExist)
	}
	if err != nil {
		return fmt.Errorf("link %s: %w", name, err)
	}
	if !h.Live() {
		return nil
	}
	l, err := h.Link(name)
	if err != nil {
		return err
	}
	index, err := h.ReadFile(dir + "/ifindex")
	if err != nil {
		return fmt.Errorf("link %s: %w", name, err)
	}
	if strings.TrimSpace(string(index)) != strconv.Itoa(l.Index) || strings.TrimSpace(string(address)) != l.MAC {
		return fmt.Errorf("link %s: the one in /sys is another network namespace's (mount a /sys that shows this one: `ip netns exec` does)", name)
	}
	return nil
}

// readAttr reads a file of the device that checkSysfs has found.
func (h *Host) readAttr(name, p string) (string, error) {
	b, err := h.ReadFile(p)
	// XPS of a device with one queue has a file that says ENOENT.
	if errors.Is(err, fs.ErrNotExist) {
		return "", fmt.Errorf("link %s: %w: the kernel has no %s for it", name, errors.ErrUnsupported, path.Base(p))
	}
	if err != nil {
		return "", err
	}
	return strings.TrimSpace(string(b)), nil
}

// writeAttr writes a file of the kernel in one call, which takes it or not.
func (h *Host) writeAttr(p, text string) error {
	f, err := h.open(p, os.O_WRONLY|os.O_TRUNC)
	if err == nil {
		defer f.Close()
		_, err = f.Write([]byte(text + "\n"))
	}
	switch {
	case errors.Is(err, syscall.EROFS):
		return fmt.Errorf("%s: %w (it is mounted read-only, as in most containers)", p, cause(err))
	case errors.Is(err, syscall.EINVAL), errors.Is(err, syscall.ERANGE), errors.Is(err, syscall.EOVERFLOW):
		return fmt.Errorf("%s: the kernel refuses %q: %w (out of its range, or it names no CPU that is online)", p, text, cause(err))
	case err != nil:
		return fmt.Errorf("%s: %q: %w", p, text, cause(err))
	}
	return nil
}

// parseMask reads the kernel's bitmaps: groups of 32 bits in hex, the highest
// first, "00000001,0000000f".
func parseMask(text string) (cpuset.CPUSet, error) {
	var cpus []int
	groups := strings.Split(text, ",")
	for i, g := range groups {
		bits, err := strconv.ParseUint(g, 16, 32)
		if err != nil {
			return cpuset.CPUSet{}, fmt.Errorf("CPU mask %q: %w", text, err)
		}
		for bit := range 32 {
			if bits>>bit&1 != 0 {
				cpus = append(cpus, (len(groups)-1-i)*32+bit)
			}
		}
	}
	return cpuset.New(cpus...), nil
}

func formatMask(set cpuset.CPUSet) string {
	groups := []uint32{0}
	for _, cpu := range set.UnsortedList() {
		for cpu/32 >= len(groups) {
			groups = append(groups, 0)
		}
		groups[cpu/32] |= 1 << (cpu % 32)
	}
	var b strings.Builder
	for i, g := range slices.Backward(groups) {
		if b.Len() == 0 {
			fmt.Fprintf(&b, "%x", g)
		} else {
			fmt.Fprintf(&b, "%08x", g)
		}
		if i > 0 {
			b.WriteByte(',')
		}
	}
	return b.String()
}

// bus is where a device is plugged in.
type bus struct {
	// dir holds numa_node and msi_irqs; empty for a device without a bus.
	dir string
	// pci is the address on the PCI bus, "0000:00:03.0"; empty on others.
	pci string
}

// linkBus finds the device's directory below /sys/devices. virtio's own one is below
// that of the PCI function, which has what is asked for.
func (h *Host) linkBus(name string) (bus, error) {
	root, err := filepath.EvalSymlinks(h.Path("/"))
	if err != nil {
		return bus{}, err
	}
	target, err := filepath.EvalSymlinks(h.Path(netDir + name + "/device"))
	if errors.Is(err, fs.ErrNotExist) {
		return bus{}, nil
	}
	if err != nil {
		return bus{}, err
	}
	dir, inside := strings.CutPrefix(target, strings.TrimSuffix(root, "/"))
	if !inside {
		return bus{}, fmt.Errorf("%s%s/device leads out of %s", netDir, name, root)
	}
	for _, d := range []string{dir, path.Dir(dir)} {
		if isPCI(path.Base(d)) {
			return bus{d, path.Base(d)}, nil
		}
	}
	return bus{dir: dir}, nil
}

// isPCI tells addresses as "0000:00:03.0"; the domain may have more digits.
func isPCI(s string) bool {
	i := len(s) - len("00:03.0") - 1
	if i < 4 || s[i] != ':' || s[i+3] != ':' || s[i+6] != '.' {
		return false
	}
	for j, c := range s {
		if j != i && j != i+3 && j != i+6 && !strings.ContainsRune("0123456789abcdef", c) {
			return false
		}
	}
	return true
}

// numaNode is -1 where the kernel tells none.
func (h *Host) numaNode(b bus) int {
	if b.dir == "" {
		return -1
	}
	text, err := h.ReadFile(b.dir + "/numa_node")
	if err != nil {
		return -1
	}
	n, err := strconv.Atoi(strings.TrimSpace(string(text)))
	if err != nil {
		return -1
	}
	return n
}
