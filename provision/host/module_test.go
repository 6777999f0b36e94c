package host_test

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/nodeprov/nodeprov/provision/host"
)

func moduleTree() map[string]string {
	const dir = "lib/modules/6.1.0-25-amd64/"
	return map[string]string{
		"proc/sys/kernel/osrelease": "6.1.0-25-amd64\n",
		"proc/cmdline":              "root=/dev/vda1 modprobe.blacklist=floppy,pcspkr quiet\n",
		dir + "modules.builtin":     "kernel/net/ipv4/tcp_cubic.ko\nkernel/fs/binfmt-script.ko\n",
		dir + "modules.dep": "kernel/net/ipv4/tcp_bbr.ko:\nkernel/net/netfilter/nf_conntrack.ko.xz: kernel/lib/libcrc32c.ko.xz\n" +
			"kernel/drivers/parport/parport_pc.ko:\nkernel/drivers/block/floppy.ko.zst:\nkernel/net/dccp/dccp.ko:\nkernel/net/sctp/sctp.ko:\nkernel/net/rds/rds.ko:\n",
		dir + "modules.alias":               "# comment\nalias ip_conntrack nf_conntrack\nalias pci:v*d* tcp_bbr\nalias tcp-* tcp_bbr\nalias nf_conntrack_ipv? nf_conntrack\n",
		dir + "modules.builtin.modinfo":     "tcp_cubic.license=GPL\x00tcp_cubic.alias=net-cubic\x00",
		"etc/modprobe.d/10-local.conf":      "# no\n\nblacklist parport-pc\nalias mine sctp\ninstall rds /bin/true\noptions dccp x=1\ninstall sctp /sbin/modprobe --ignore-install sctp\n",
		"etc/modprobe.d/masked.conf":        "",
		"usr/lib/modprobe.d/masked.conf":    "blacklist tcp_bbr\n",
		"usr/lib/modprobe.d/dccp.conf":      "blacklist dccp\n",
		"usr/lib/modprobe.d/README":         "blacklist nf_conntrack\n",
		"sys/module/nvme/initstate":         "live\n",
		"sys/module/vfio/initstate":         "coming\n",
		"sys/module/printk/parameters/time": "Y\n",
	}
}

func TestModule(t *testing.T) {
	h, _ := tree(t, moduleTree())
	for _, tc := range []struct {
		name string
		want host.Module
	}{
		{"nvme", host.Module{Name: "nvme", Loaded: true}},
		{"vfio", host.Module{Name: "vfio"}},
		{"printk", host.Module{Name: "printk", Loaded: true}},
		{"tcp_cubic", host.Module{Name: "tcp_cubic", Loaded: true}},
		{"binfmt_script", host.Module{Name: "binfmt_script", Loaded: true}},
		{"net-cubic", host.Module{Name: "tcp_cubic", Loaded: true}},
		{"tcp-bbr", host.Module{Name: "tcp_bbr", Loadable: true}},
		{"nf_conntrack", host.Module{Name: "nf_conntrack", Loadable: true}},
		{"ip-conntrack", host.Module{Name: "nf_conntrack", Loadable: true}},
		{"nf_conntrack_ipv4", host.Module{Name: "nf_conntrack", Loadable: true}},
		{"nothing", host.Module{Name: "nothing"}},
		{"parport_pc", host.Module{Name: "parport_pc", Loadable: true, Barred: "/etc/modprobe.d/10-local.conf:3: blacklist parport-pc"}},
		{"rds", host.Module{Name: "rds", Loadable: true, Barred: "/etc/modprobe.d/10-local.conf:5: install rds /bin/true"}},
		{"mine", host.Module{Name: "sctp", Loadable: true}},
		{"dccp", host.Module{Name: "dccp", Loadable: true, Barred: "/usr/lib/modprobe.d/dccp.conf:1: blacklist dccp"}},
		{"floppy", host.Module{Name: "floppy", Loadable: true, Barred: "/proc/cmdline:1: modprobe.blacklist=floppy,pcspkr"}},
	} {
		got, err := h.Module(tc.name)
		if err != nil {
			t.Errorf("%s: %v", tc.name, err)
		}
		if d := cmp.Diff(tc.want, got); d != "" {
			t.Errorf("%s: %s", tc.name, d)
		}
	}
	want := "binfmt_script dccp floppy nf_conntrack parport_pc rds sctp tcp_bbr tcp_cubic"
	if got := strings.Join(h.ModuleNames(), " "); got != want {
		t.Errorf("names %s", got)
	}
	if err := h.LoadModule(t.Context(), "tcp_bbr"); !errors.Is(err, host.ErrOffline) {
		t.Errorf("loaded from a tree of files: %v", err)
	}
	if m, err := h.Module("a/b"); err == nil {
		t.Errorf("%+v", m)
	}
	empty, _ := tree(t, nil)
	if m, err := empty.Module("tcp_bbr"); text(err) != "module tcp_bbr: kernel release: openat proc/sys/kernel/osrelease: no such file or directory (is /proc mounted?)" &&
		!strings.Contains(text(err), "is /proc mounted?") {
		t.Errorf("%+v, %v", m, err)
	}
}

func TestModuleName(t *testing.T) {
	for name, want := range map[string]string{
		"tcp_bbr": "tcp_bbr", "br-netfilter": "br_netfilter", "8021q": "8021q", "DAC960": "DAC960",
		"": "!", "a.ko": "!", "/lib/x": "!", "a b": "!", "a\n": "!", "é": "!", strings.Repeat("a", 55): strings.Repeat("a", 55), strings.Repeat("a", 56): "!",
		"--remove": "__remove",
	} {
		got, err := host.ModuleName(name)
		if err != nil {
			got = "!"
		}
		if got != want {
			t.Errorf("%q: %q, %v", name, got, err)
		}
	}
}

// The command that is run, and what its failure says.
func TestLoadModule(t *testing.T) {
	bin := t.TempDir()
	log := filepath.Join(bin, "log")
	script := "#!/bin/sh\necho \"$@\" >>" + log + "\ncase $3 in bad) echo 'modprobe: ERROR: could not insert bad: Unknown symbol' >&2; exit 1;; esac\n"
	if err := os.WriteFile(filepath.Join(bin, "modprobe"), []byte(script), 0o755); err != nil {
		t.Fatal(err)
	}
	t.Setenv("PATH", bin+":"+os.Getenv("PATH"))
	h := live(t)
	if err := h.LoadModule(t.Context(), "tcp_bbr"); err != nil {
		t.Error(err)
	}
	want := "module bad: modprobe: exit status 1: modprobe: ERROR: could not insert bad: Unknown symbol (the kernel's log may say more: dmesg)"
	if err := h.LoadModule(t.Context(), "bad"); text(err) != want {
		t.Errorf("got %v", err)
	}
	b, err := os.ReadFile(log)
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff("--use-blacklist -- tcp_bbr\n--use-blacklist -- bad\n", string(b)); d != "" {
		t.Error(d)
	}
}
