package host

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"k8s.io/utils/cpuset"
)

// The interrupts that drivers name in so many ways.
func TestQueueIRQs(t *testing.T) {
	for _, tc := range []struct{ name, interrupts, want string }{
		{"virtio", `           CPU0       CPU1
 24:          1          0 PCI-MSIX-0000:00:03.0   0-edge      virtio0-config
 25:          0          1 PCI-MSIX-0000:00:03.0   1-edge      virtio0-input.0
 26:          0          8 PCI-MSIX-0000:00:03.0   2-edge      virtio0-output.0
 27:          0          8 PCI-MSIX-0000:00:03.0   3-edge      virtio0-input.1
 28:          0          8 PCI-MSIX-0000:00:03.0   4-edge      virtio0-output.1
NMI:          0          0   Non-maskable interrupts
`, "input.0=25 output.0=26 input.1=27 output.1=28"},
		{"ixgbe", `  CPU0
 30:  1  PCI-MSI 524288-edge      eth0-TxRx-0
 31:  1  PCI-MSI 524289-edge      eth0-TxRx-1
 32:  1  PCI-MSI 524290-edge      eth0
`, "txrx-0=30 txrx-1=31"},
		{"ice, more than ten", `  CPU0
 30:  1  PCI-MSI 0-edge      ice-ens1f0-TxRx-10
 31:  1  PCI-MSI 1-edge      ice-ens1f0-TxRx-9
 32:  1  PCI-MSI 2-edge      ice-0000:3b:00.0:misc
`, "txrx-9=31 txrx-10=30"},
		{"mlx5", `  CPU0
 40:  1  IR-PCI-MSIX-0000:3b:00.0    0-edge      mlx5_async0@pci:0000:3b:00.0
 41:  1  IR-PCI-MSIX-0000:3b:00.0    1-edge      mlx5_comp0@pci:0000:3b:00.0
 42:  1  IR-PCI-MSIX-0000:3b:00.0    2-edge      mlx5_comp1@pci:0000:3b:00.0
`, "comp0=41 comp1=42"},
		{"ena", `  CPU0
 40:  1  PCI-MSIX-0000:00:05.0    0-edge      ena-mgmnt@pci:0000:00:05.0
 41:  1  PCI-MSIX-0000:00:05.0    1-edge      eth0-Tx-Rx-0
 42:  1  PCI-MSIX-0000:00:05.0    2-edge      eth0-Tx-Rx-1
`, "tx-rx-0=41 tx-rx-1=42"},
		{"gve", `  CPU0
 40:  1  PCI-MSIX-0000:00:05.0    0-edge      gve-ntfy-blk0@pci:0000:00:05.0
 41:  1  PCI-MSIX-0000:00:05.0    1-edge      gve-ntfy-blk1@pci:0000:00:05.0
 42:  1  PCI-MSIX-0000:00:05.0    2-edge      gve-mgmnt@pci:0000:00:05.0
`, "ntfy-blk0=40 ntfy-blk1=41"},
		{"tg3 and vmxnet3", `  CPU0
 40:  1  PCI-MSI 0-edge      eth0-tx-0
 41:  1  PCI-MSI 1-edge      eth0-rx-1
 42:  1  PCI-MSI 2-edge      eth1-rxtx-0
 43:  1  PCI-MSI 3-edge      eth1-event-2
`, "tx-0=40 rxtx-0=42 rx-1=41"},
		{"one line, shared", `  CPU0
 11:  1  IO-APIC 11-fasteoi   eth0, uhci_hcd:usb1
`, "irq0=11 irq1=11"},
		{"nobody handles it", "  CPU0\n 11:  1\n", ""},
	} {
		t.Run(tc.name, func(t *testing.T) {
			names := parseInterrupts(tc.interrupts)
			var numbers []int
			for i := range 64 {
				numbers = append(numbers, i)
			}
			var got []string
			for _, q := range queueIRQs(numbers, names) {
				got = append(got, q.Queue+"="+filepath.Base(filepath.Dir(affinityFile(q.IRQ))))
			}
			if d := cmp.Diff(tc.want, strings.Join(got, " ")); d != "" {
				t.Error(d)
			}
		})
	}
}

// machine is a tree with a virtio device, whose interrupts are its PCI parent's, and a
// PCI device.
func machine(t *testing.T) (*Host, string) {
	t.Helper()
	root := t.TempDir()
	for name, text := range map[string]string{
		"sys/devices/pci0000:00/0000:00:03.0/numa_node":                             "1\n",
		"sys/devices/pci0000:00/0000:00:03.0/msi_irqs/25":                           "msix\n",
		"sys/devices/pci0000:00/0000:00:03.0/msi_irqs/24":                           "msix\n",
		"sys/devices/pci0000:00/0000:00:03.0/virtio0/net/eth0/address":              "52:54:00:12:34:56\n",
		"sys/devices/pci0000:00/0000:00:04.0/irq":                                   "11\n",
		"sys/devices/pci0000:00/0000:00:04.0/net/eth1/address":                      "52:54:00:12:34:57\n",
		"sys/devices/virtual/net/veth0/address":                                     "52:54:00:12:34:58\n",
		"proc/interrupts":                                                           "  CPU0\n 11: 0 IO-APIC 11-fasteoi eth1\n 24: 0 PCI-MSIX 0-edge virtio0-config\n 25: 0 PCI-MSIX 1-edge virtio0-input.0\n",
		"proc/irq/25/smp_affinity_list":                                             "0-3\n",
		"proc/irq/11/smp_affinity_list":                                             "0\n",
		"sys/devices/pci0000:00/0000:00:03.0/virtio0/net/eth0/queues/rx-0/rps_cpus": "00000001,0000000f\n",
	} {
		p := filepath.Join(root, name)
		if err := errors.Join(os.MkdirAll(filepath.Dir(p), 0o755), os.WriteFile(p, []byte(text), 0o644)); err != nil {
			t.Fatal(err)
		}
	}
	for name, to := range map[string]string{
		"sys/class/net/eth0":  "../../devices/pci0000:00/0000:00:03.0/virtio0/net/eth0",
		"sys/class/net/eth1":  "../../devices/pci0000:00/0000:00:04.0/net/eth1",
		"sys/class/net/veth0": "../../devices/virtual/net/veth0",
		"sys/devices/pci0000:00/0000:00:03.0/virtio0/net/eth0/device": "../../../virtio0",
		"sys/devices/pci0000:00/0000:00:04.0/net/eth1/device":         "../../../0000:00:04.0",
	} {
		p := filepath.Join(root, name)
		if err := errors.Join(os.MkdirAll(filepath.Dir(p), 0o755), os.Symlink(to, p)); err != nil {
			t.Fatal(err)
		}
	}
	h, err := New(Options{Root: root})
	if err != nil {
		t.Fatal(err)
	}
	return h, root
}

func TestDeviceFiles(t *testing.T) {
	h, root := machine(t)
	for name, want := range map[string][]QueueIRQ{
		"eth0":  {{IRQ: 25, Name: "virtio0-input.0", Queue: "input.0", CPUs: "0-3"}},
		"eth1":  {{IRQ: 11, Name: "eth1", Queue: "irq0", CPUs: "0"}},
		"veth0": nil,
	} {
		got, err := h.QueueIRQs(name)
		if d := cmp.Diff(want, got); d != "" || err != nil {
			t.Errorf("%s: %v %s", name, err, d)
		}
	}
	for name, want := range map[string]string{"eth0": "0000:00:03.0 1", "eth1": "0000:00:04.0 -1", "veth0": " -1"} {
		b, err := h.linkBus(name)
		if err != nil {
			t.Error(err)
		}
		node := "1"
		if n := h.numaNode(b); n < 0 {
			node = "-1"
		}
		if got := b.pci + " " + node; got != want {
			t.Errorf("%s: %q, want %q", name, got, want)
		}
	}
	irqs, err := h.QueueIRQs("eth0")
	if err != nil {
		t.Fatal(err)
	}
	if err := h.SetIRQAffinity(irqs[0], "2"); err != nil {
		t.Error(err)
	}
	if b, _ := os.ReadFile(filepath.Join(root, "proc/irq/25/smp_affinity_list")); string(b) != "2\n" {
		t.Errorf("%q", b)
	}
	if got, err := h.QueueValues("eth0", RPSCPUs); len(got) != 1 || got[0] != "0-3,32" || err != nil {
		t.Errorf("%q %v", got, err)
	}
	if _, err := h.QueueIRQs("eth9"); !errors.Is(err, os.ErrNotExist) {
		t.Error(err)
	}
}

func TestMask(t *testing.T) {
	for mask, list := range map[string]string{"0": "", "3": "0-1", "80000000": "31", "1,00000000": "32", "3,80000001": "0,31-33"} {
		set, err := parseMask(mask)
		if err != nil || set.String() != list {
			t.Errorf("%s: %s %v", mask, set, err)
		}
		back, err := cpuset.Parse(list)
		if got := formatMask(back); got != mask || err != nil {
			t.Errorf("%s: %s %v", list, got, err)
		}
	}
	for _, bad := range []string{"", "x", "1,,2", "100000000"} {
		if set, err := parseMask(bad); err == nil {
			t.Errorf("%q is %s", bad, set)
		}
	}
}
