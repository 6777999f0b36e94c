package host

import (
	"encoding/json"
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/rogpeppe/go-internal/txtar"
)

var update = flag.Bool("update", false, "write the facts of the pictures anew")

// A picture is what /proc, /sys and /etc of some machine hold, and below
// "facts.json" what is told of it.
func TestPictures(t *testing.T) {
	names, err := filepath.Glob("testdata/picture/*.txtar")
	if err != nil || len(names) < 4 {
		t.Fatal(err, names)
	}
	for _, name := range names {
		t.Run(strings.TrimSuffix(filepath.Base(name), ".txtar"), func(t *testing.T) {
			a, err := txtar.ParseFile(name)
			if err != nil {
				t.Fatal(err)
			}
			files, want := map[string]string{}, ""
			for i, f := range a.Files {
				if f.Name == "facts.json" {
					want = string(f.Data)
					a.Files = a.Files[:i]
					break // it is the last one
				}
				files[f.Name] = string(f.Data)
			}
			f, err := factsTree(t, files).FileFacts()
			if err != nil {
				t.Fatal(err)
			}
			got, err := json.MarshalIndent(f, "", "  ")
			if err != nil {
				t.Fatal(err)
			}
			if *update {
				a.Files = append(a.Files, txtar.File{Name: "facts.json", Data: append(got, '\n')})
				if err := os.WriteFile(name, txtar.Format(a), 0o644); err != nil {
					t.Fatal(err)
				}
				return
			}
			if d := cmp.Diff(want, string(got)+"\n"); d != "" {
				t.Error(d)
			}
		})
	}
}

func TestTopologyErrors(t *testing.T) {
	const online = "sys/devices/system/cpu/online"
	for _, tc := range []struct {
		name  string
		files map[string]string
		want  string
	}{
		{"no sysfs", nil, "is /sys mounted?"},
		{"no CPU", map[string]string{online: "\n"}, "no CPU is online"},
		{"no list", map[string]string{online: "0-x\n"}, `"0-x" is no list of CPUs`},
		{"isolated", map[string]string{online: "0\n", "sys/devices/system/cpu/isolated": "?\n"}, `isolated: "?" is no list`},
		{"siblings", map[string]string{online: "0\n", "sys/devices/system/cpu/cpu0/topology/thread_siblings_list": "?\n"}, `"?" is no list`},
		{"node", map[string]string{online: "0\n", "sys/devices/system/node/node0/cpulist": "?\n"}, `"?" is no list`},
		{"homeless", map[string]string{online: "0-1\n", "sys/devices/system/node/node0/cpulist": "0\n"}, "CPUs 1 are of no node"},
	} {
		_, err := factsTree(t, tc.files).cpuFacts(0)
		if err == nil || !strings.Contains(err.Error(), tc.want) {
			t.Errorf("%s: %v", tc.name, err)
		}
	}
}

func TestCloudProvider(t *testing.T) {
	const dmi = "sys/class/dmi/id/"
	for _, tc := range []struct {
		want  string
		files map[string]string
	}{
		{"", nil},
		{"", map[string]string{dmi + "sys_vendor": "Microsoft Corporation\n", dmi + "product_name": "Virtual Machine\n"}},
		{"", map[string]string{dmi + "sys_vendor": "Google\n", dmi + "product_name": "Pixelbook\n"}},
		{"", map[string]string{dmi + "product_uuid": "ec2f0000-1\n", dmi + "product_serial": "77\n"}},
		{"aws", map[string]string{dmi + "sys_vendor": "Amazon EC2\n", dmi + "product_name": "m5.large\n"}},
		{"aws", map[string]string{dmi + "sys_vendor": "Xen\n", dmi + "product_uuid": "EC2E1916-9099\n", dmi + "product_serial": "ec2e1916-9099\n"}},
		{"aws", map[string]string{"sys/hypervisor/uuid": "ec2e1916-9099\n"}},
		{"gce", map[string]string{dmi + "sys_vendor": "Google\n", dmi + "product_name": "Google Compute Engine\n"}},
		{"gce", map[string]string{dmi + "product_serial": "GoogleCloud-0123\n"}},
		{"azure", map[string]string{dmi + "chassis_asset_tag": "7783-7084-3265-9085-8269-3286-77\n"}},
		{"oracle", map[string]string{dmi + "sys_vendor": "QEMU\n", dmi + "chassis_asset_tag": "OracleCloud.com\n"}},
		{"hetzner", map[string]string{dmi + "sys_vendor": "Hetzner\n", dmi + "product_name": "vServer\n"}},
		{"digitalocean", map[string]string{dmi + "sys_vendor": "DigitalOcean\n"}},
		{"vultr", map[string]string{dmi + "sys_vendor": "Vultr\n"}},
		{"scaleway", map[string]string{dmi + "sys_vendor": "Scaleway\n"}},
		{"upcloud", map[string]string{dmi + "sys_vendor": "UpCloud\n"}},
		{"akamai", map[string]string{dmi + "sys_vendor": "Akamai\n"}},
		{"akamai", map[string]string{dmi + "sys_vendor": "Linode\n"}},
		{"alibaba", map[string]string{dmi + "product_name": "Alibaba Cloud ECS\n"}},
		{"exoscale", map[string]string{dmi + "product_name": "Exoscale Compute Platform\n"}},
		{"huawei", map[string]string{dmi + "chassis_asset_tag": "HUAWEICLOUD\n"}},
		{"openstack", map[string]string{dmi + "product_name": "OpenStack Nova\n"}},
		{"openstack", map[string]string{dmi + "chassis_asset_tag": "OpenTelekomCloud\n"}},
	} {
		if got := factsTree(t, tc.files).cloudProvider(); got != tc.want {
			t.Errorf("%v: %q, want %q", tc.files, got, tc.want)
		}
	}
}

func TestPreempt(t *testing.T) {
	const version, debug, config = "proc/sys/kernel/version", "sys/kernel/debug/sched/preempt", "boot/config-6.1.0"
	for _, tc := range []struct {
		want, cmdline string
		files         map[string]string
	}{
		{"", "", nil},
		{"full", "", map[string]string{version: "#1 SMP PREEMPT Debian\n"}},
		{"rt", "", map[string]string{version: "#1 SMP PREEMPT_RT Debian\n"}},
		{"lazy", "", map[string]string{version: "#1 SMP PREEMPT_LAZY x\n"}},
		{"none", "", map[string]string{debug: "(none) voluntary full \n", version: "#1 SMP PREEMPT_DYNAMIC x\n"}},
		{"lazy", "preempt=none", map[string]string{debug: "full (lazy) \n"}}, // a kernel that has no "none" any more
		{"none", "quiet preempt=none", map[string]string{version: "#1 SMP PREEMPT_DYNAMIC x\n", config: "#\nCONFIG_PREEMPT=y\n"}},
		{"full", "preempt=nonsense", map[string]string{version: "#1 SMP PREEMPT_DYNAMIC x\n", config: "#\nCONFIG_PREEMPT_BUILD=y\nCONFIG_PREEMPT=y\n"}},
		{"voluntary", "preempt=none", map[string]string{version: "#1 SMP Debian\n", config: "#\n# CONFIG_PREEMPT_NONE is not set\nCONFIG_PREEMPT_VOLUNTARY=y\n"}},
	} {
		got := factsTree(t, tc.files).preempt(KernelFacts{Release: "6.1.0", Cmdline: tc.cmdline})
		if got != tc.want {
			t.Errorf("%q %v: %q, want %q", tc.cmdline, tc.files, got, tc.want)
		}
	}
}

func TestBootloaderFact(t *testing.T) {
	for _, tc := range []struct {
		want  string
		files map[string]string
	}{
		{"", nil},
		{"grub", map[string]string{"etc/default/grub": ""}},
		{"systemd-boot", map[string]string{"efi/loader/loader.conf": ""}},
		{"raspberrypi", map[string]string{"boot/firmware/cmdline.txt": "root=…"}},
		{"u-boot", map[string]string{"etc/default/u-boot": ""}},
	} {
		if got := factsTree(t, tc.files).bootloader(); got != tc.want {
			t.Errorf("%v: %q, want %q", tc.files, got, tc.want)
		}
	}
}

// Goal: less than 10 ms, since every run begins with them.
func BenchmarkFacts(b *testing.B) {
	h, err := New(Options{})
	if err != nil {
		b.Fatal(err)
	}
	for b.Loop() {
		if _, err := h.Facts(b.Context()); err != nil {
			b.Fatal(err)
		}
	}
}
