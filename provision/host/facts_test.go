package host

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"runtime"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/zclconf/go-cty/cty"
	"golang.org/x/sys/unix"
)

func TestFactsLive(t *testing.T) {
	h, err := New(Options{})
	if err != nil {
		t.Fatal(err)
	}
	f, err := h.Facts(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	var info unix.Sysinfo_t
	if err := unix.Sysinfo(&info); err != nil {
		t.Fatal(err)
	}
	if want := info.Totalram * uint64(info.Unit); f.Memory.Total != want {
		t.Errorf("memory %d, sysinfo has %d", f.Memory.Total, want)
	}
	if f.Arch != runtime.GOARCH {
		t.Errorf("arch %q", f.Arch)
	}
	if f.Hostname == "" || f.Kernel.Release == "" || f.CPU.Count < 1 || f.Distribution.ID == "" {
		t.Errorf("something is empty: %+v", f)
	}
	for i, n := range f.NICs {
		if n.Name == "lo" || i > 0 && f.NICs[i-1].Name >= n.Name {
			t.Errorf("NICs with lo or out of order: %+v", f.NICs)
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := h.Facts(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
	if id, err := h.BootID(); err != nil || len(id) != 36 {
		t.Errorf("boot ID %q, %v", id, err)
	}
}

func TestFactsValue(t *testing.T) {
	full := Facts{
		Hostname: "n1", Arch: "arm64",
		Kernel:       KernelFacts{Release: "6.1.0-25-arm64", Version: "6.1.0"},
		CPU:          CPUFacts{Count: 2, Online: "0-1"},
		Memory:       MemoryFacts{Total: 1<<64 - 1},
		NICs:         []NICFacts{{Name: "eth0", Driver: "virtio_net", MTU: 1500, MinMTU: 68, MaxMTU: 65535, Up: true}},
		Distribution: DistributionFacts{ID: "debian", VersionID: "12"},
	}
	for name, f := range map[string]Facts{"zero": {}, "full": full} {
		v := f.Value()
		if !v.Type().Equals(FactsType()) {
			t.Errorf("%s: type %#v", name, v.Type())
		}
		if !v.IsWhollyKnown() || v.GetAttr("nics").IsNull() {
			t.Errorf("%s: %#v", name, v)
		}
	}
	v := full.Value()
	for _, tc := range []struct {
		got  cty.Value
		want cty.Value
	}{
		{v.GetAttr("kernel").GetAttr("version"), cty.StringVal("6.1.0")},
		{v.GetAttr("cpu").GetAttr("count"), cty.NumberIntVal(2)},
		{v.GetAttr("memory").GetAttr("total"), cty.NumberUIntVal(1<<64 - 1)},
		{v.GetAttr("distribution").GetAttr("version_id"), cty.StringVal("12")},
		{v.GetAttr("nics").Index(cty.Zero).GetAttr("max_mtu"), cty.NumberIntVal(65535)},
		{v.GetAttr("nics").Index(cty.Zero).GetAttr("up"), cty.True},
		{v.GetAttr("virtualization"), cty.StringVal("")},
	} {
		if !tc.got.RawEquals(tc.want) {
			t.Errorf("got %#v, want %#v", tc.got, tc.want)
		}
	}
	if FactsType().AttributeType("nics").ElementType().AttributeType("mtu") != cty.Number {
		t.Errorf("%#v", FactsType())
	}
}

func TestKernelVersion(t *testing.T) {
	for release, want := range map[string]string{
		"6.1.0-25-cloud-amd64": "6.1.0", "6.18.44": "6.18.44", "7.0-rc1": "7.0.0", "5.15.0+": "5.15.0", "6.12.3.4": "6.12.3", "next": "",
	} {
		if got, err := kernelVersion(release); got != want || (err == nil) != (want != "") {
			t.Errorf("%s: %q, %v", release, got, err)
		}
	}
}

func TestFactsOfTree(t *testing.T) {
	for _, tc := range []struct {
		name  string
		files map[string]string
		want  string
	}{
		{"bare", nil, ""},
		{"bare with cpuinfo", map[string]string{"proc/cpuinfo": "processor: 0\nflags\t\t: fpu vme\n"}, ""},
		{"hypervisor flag", map[string]string{"proc/cpuinfo": "processor: 0\nflags\t\t: fpu hypervisor vme\n"}, "vm"},
		{"kvm", map[string]string{"sys/devices/system/clocksource/clocksource0/available_clocksource": "tsc kvm-clock \n", "sys/class/dmi/id/sys_vendor": "QEMU\n"}, "kvm"},
		{"tcg", map[string]string{"sys/devices/system/clocksource/clocksource0/available_clocksource": "tsc hpet\n", "sys/class/dmi/id/sys_vendor": "QEMU\n"}, "qemu"},
		{"ec2", map[string]string{"sys/class/dmi/id/sys_vendor": "Amazon EC2", "sys/class/dmi/id/product_name": "m5.large"}, "kvm"},
		{"ec2 metal", map[string]string{"sys/class/dmi/id/sys_vendor": "Amazon EC2", "sys/class/dmi/id/product_name": "m5.metal"}, ""},
		{"hyper-v", map[string]string{"sys/class/dmi/id/sys_vendor": "Microsoft Corporation", "sys/class/dmi/id/product_name": "Virtual Machine"}, "vm"},
		{"surface", map[string]string{"sys/class/dmi/id/sys_vendor": "Microsoft Corporation", "sys/class/dmi/id/product_name": "Surface"}, ""},
		{"nspawn on kvm", map[string]string{"run/systemd/container": "systemd-nspawn", "sys/devices/system/clocksource/clocksource0/available_clocksource": "kvm-clock"}, "container"},
	} {
		h := factsTree(t, tc.files)
		if got := h.virtualization(); got != tc.want {
			t.Errorf("%s: %q, want %q", tc.name, got, tc.want)
		}
	}

	h := factsTree(t, map[string]string{
		"etc/os-release":                   "# x\nNAME=\"Debian\"\nID=debian\nVERSION_ID=\"12\"\n",
		"proc/meminfo":                     "MemTotal:        8123456 kB\nMemFree: 1 kB\n",
		"proc/sys/kernel/random/boot_id":   "6f1c\n",
		"proc/sys/kernel/random/something": "",
	})
	d, err := h.distribution()
	if err != nil || d != (DistributionFacts{"debian", "12"}) {
		t.Errorf("%+v, %v", d, err)
	}
	m, err := h.memoryFacts()
	if err != nil || m.Total != 8123456*1024 {
		t.Errorf("%+v, %v", m, err)
	}
	if id, err := h.BootID(); err != nil || id != "6f1c" {
		t.Errorf("%q, %v", id, err)
	}

	h = factsTree(t, map[string]string{"proc/meminfo": "MemTotal: many kB\n", "sys/devices/system/cpu/online": "\n"})
	if d, err := h.distribution(); err != nil || d != (DistributionFacts{"linux", ""}) {
		t.Errorf("%+v, %v", d, err)
	}
	if _, err := h.memoryFacts(); err == nil {
		t.Error("bad meminfo taken")
	}
	if _, err := h.cpuFacts(0); err == nil {
		t.Error("empty cpulist taken")
	}
	if id, err := h.BootID(); err != nil || id != "" {
		t.Errorf("an image's boot ID: %q, %v", id, err)
	}
}

func TestOSRelease(t *testing.T) {
	for text, want := range map[string]DistributionFacts{
		"":                                  {"linux", ""},
		"ID='ubuntu'\nVERSION_ID='24.04'\n": {"ubuntu", "24.04"},
		"ID=arch":                           {"arch", ""},
		"ID=\"\n":                           {"\"", ""},
		"VERSION_ID=\nnonsense\n=\n":        {"linux", ""},
	} {
		if d := cmp.Diff(want, parseOSRelease(text)); d != "" {
			t.Errorf("%q: %s", text, d)
		}
	}
}

func TestSystemd(t *testing.T) {
	h, err := New(Options{})
	if err != nil {
		t.Fatal(err)
	}
	_, statErr := os.Stat("/run/systemd/system")
	s, err := h.Systemd(t.Context())
	if statErr != nil {
		if !errors.Is(err, ErrNoSystemd) {
			t.Fatalf("no systemd here: %v", err)
		}
		return
	}
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	// Reading only: this is the machine that the tests run on.
	u, err := s.Unit(t.Context(), "nodeprov-no-such-unit.service")
	if d := cmp.Diff(UnitState{LoadState: "not-found", ActiveState: "inactive", SubState: "dead"}, u); err != nil || d != "" {
		t.Errorf("%v %s", err, d)
	}
}

func factsTree(t *testing.T, files map[string]string) *Host {
	t.Helper()
	root := t.TempDir()
	for name, text := range files {
		p := filepath.Join(root, name)
		if err := os.MkdirAll(filepath.Dir(p), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(p, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	h, err := New(Options{Root: root})
	if err != nil {
		t.Fatal(err)
	}
	return h
}
