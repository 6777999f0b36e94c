package host

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"syscall"
)

// ErrManagedIRQ is the reason for an interrupt whose CPUs only the kernel may
// choose: the driver asked it to spread them.
var ErrManagedIRQ = errors.New("the kernel manages this interrupt's CPUs itself, and lets nobody set them")

// QueueIRQ is an interrupt of one of a device's queues.
type QueueIRQ struct {
	// IRQ is the number, which may be another one after the device was reset or
	// plugged in again.
	IRQ int
	// Name is the driver's, "virtio0-input.0" or "eth0-TxRx-3".
	Name string
	// Queue is the part of the name that tells the queue, in lower case and without
	// what another boot or slot would name otherwise: "input.0", "txrx-3". It is
	// unique for a device. Number is the queue's.
	Queue  string
	Number int
	// CPUs is the cpulist that the interrupt may go to.
	CPUs string
}

// queueName tells queues' interrupts from the device's others (configuration,
// management, events). Drivers name them by direction (virtio: input, output; Intel,
// ENA, Broadcom: TxRx, Tx-Rx, rx, tx; VMware: rxtx), by completion queue (Mellanox:
// comp; QLogic: fp; Microsoft: q) or by block (Google: ntfy-blk); some add
// "@pci:ADDRESS".
var queueName = regexp.MustCompile(`(?i)(?:^|[-_.])((?:tx-?rx|rx-?tx|rx|tx|input|output|comp|fp|ntfy-blk|queue|q)[-_.]?(\d+))$`)

// QueueIRQs returns the interrupts of the device's queues, by number of the queue
// and then by interrupt. Where no name tells a queue, all the device's interrupts
// count as queues'. None is no error: virtual devices have none.
func (h *Host) QueueIRQs(name string) ([]QueueIRQ, error) {
	if err := h.checkSysfs(name); err != nil {
		return nil, err
	}
	b, err := h.linkBus(name)
	if err != nil {
		return nil, fmt.Errorf("interrupts of %s: %w", name, err)
	}
	if b.dir == "" {
		return nil, nil
	}
	numbers, err := h.deviceIRQs(b.dir)
	if err != nil {
		return nil, fmt.Errorf("interrupts of %s: %w", name, err)
	}
	text, err := h.ReadFile("/proc/interrupts")
	if err != nil {
		return nil, fmt.Errorf("interrupts of %s: %w", name, err)
	}
	irqs := queueIRQs(numbers, parseInterrupts(string(text)))
	for i := range irqs {
		cpus, err := h.cpuList(affinityFile(irqs[i].IRQ))
		if err != nil {
			return nil, fmt.Errorf("interrupts of %s: %w", name, err)
		}
		irqs[i].CPUs = cpus.String()
	}
	return irqs, nil
}

// SetIRQAffinity lets an interrupt go to the CPUs of a cpulist. It goes there with
// the next one that comes. The error is ErrManagedIRQ where the kernel refuses any.
func (h *Host) SetIRQAffinity(irq QueueIRQ, cpus string) error {
	err := h.writeAttr(affinityFile(irq.IRQ), cpus)
	// EIO says so before Linux 6.12, EPERM since; root is asked for at the start.
	if errors.Is(err, syscall.EIO) || errors.Is(err, syscall.EPERM) && os.Geteuid() == 0 {
		err = ErrManagedIRQ
	}
	if err != nil {
		return fmt.Errorf("interrupt %d (%s): %w", irq.IRQ, irq.Name, err)
	}
	return nil
}

func affinityFile(irq int) string { return "/proc/irq/" + strconv.Itoa(irq) + "/smp_affinity_list" }

// deviceIRQs are the numbers of a device's interrupts: its message-signalled ones,
// or the line that it has instead.
func (h *Host) deviceIRQs(dir string) ([]int, error) {
	var names []string
	d, err := h.open(dir+"/msi_irqs", os.O_RDONLY)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		b, err := h.ReadFile(dir + "/irq")
		if errors.Is(err, fs.ErrNotExist) {
			return nil, nil
		}
		if err != nil {
			return nil, err
		}
		names = []string{strings.TrimSpace(string(b))}
	case err != nil:
		return nil, err
	default:
		defer d.Close()
		if names, err = d.Readdirnames(-1); err != nil {
			return nil, err
		}
	}
	var numbers []int
	for _, n := range names {
		if i, err := strconv.Atoi(n); err == nil && i > 0 {
			numbers = append(numbers, i)
		}
	}
	slices.Sort(numbers)
	return numbers, nil
}

// parseInterrupts reads /proc/interrupts: the names of who handles each interrupt.
// After a count for each CPU that is online, a line has the controller's words and
// at last the names, "a, b" where several share it.
func parseInterrupts(text string) map[int][]string {
	header, rest, _ := strings.Cut(text, "\n")
	cpus := len(strings.Fields(header))
	names := map[int][]string{}
	for line := range strings.Lines(rest) {
		number, after, ok := strings.Cut(strings.TrimSpace(line), ":")
		irq, err := strconv.Atoi(number)
		fields := strings.Fields(after)
		if !ok || err != nil || len(fields) <= cpus {
			continue // a count of the processor's own, as NMI
		}
		fields = fields[cpus:]
		from := len(fields) - 1
		for from > 0 && strings.HasSuffix(fields[from-1], ",") {
			from--
		}
		for _, f := range fields[from:] {
			names[irq] = append(names[irq], strings.TrimSuffix(f, ","))
		}
	}
	return names
}

func queueIRQs(numbers []int, names map[int][]string) []QueueIRQ {
	var irqs, others []QueueIRQ
	seen := map[string]bool{}
	for _, n := range numbers {
		// What nobody handles is not in use.
		for _, name := range names[n] {
			q := QueueIRQ{IRQ: n, Name: name}
			short, _, _ := strings.Cut(name, "@")
			m := queueName.FindStringSubmatch(short)
			if m == nil {
				q.Queue, q.Number = "irq"+strconv.Itoa(len(others)), len(others)
				others = append(others, q)
				continue
			}
			number, err := strconv.Atoi(m[2])
			q.Queue, q.Number = strings.ToLower(m[1]), number
			if err != nil || seen[q.Queue] {
				continue // several functions on one line: not to be told apart
			}
			seen[q.Queue] = true
			irqs = append(irqs, q)
		}
	}
	if irqs == nil {
		irqs = others
	}
	slices.SortStableFunc(irqs, func(a, b QueueIRQ) int { return cmp.Compare(a.Number, b.Number) })
	return irqs
}
