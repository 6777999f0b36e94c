package host_test

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/nodeprov/nodeprov/provision/host"
)

func TestBootLoader(t *testing.T) {
	debian := map[string]string{
		"etc/default/grub":       "GRUB_CMDLINE_LINUX=\"\"\n",
		"usr/sbin/grub-mkconfig": "#! /bin/sh\nfor x in ${sysconfdir}/default/grub.d/*.cfg ; do\n",
	}
	wide := func(s string) string { return "\x06\x00\x00\x00" + strings.Join(strings.Split(s, ""), "\x00") + "\x00" }
	const loaderInfo = "sys/firmware/efi/efivars/LoaderInfo-4a67b082-0a4c-41cf-b6c7-440b29bb8c4f"
	with := func(name, content string) map[string]string {
		m := map[string]string{name: content}
		for k, v := range debian {
			m[k] = v
		}
		return m
	}
	for _, tc := range []struct {
		name  string
		files map[string]string
		want  string
	}{
		{"nothing", nil, "  false"},
		{"Debian", debian, "GRUB /etc/default/grub true"},
		{"GRUB that says so", with(loaderInfo, wide("GRUB 2.12")), "GRUB /etc/default/grub true"},
		{"GRUB installed, systemd-boot booted", with(loaderInfo, wide("systemd-boot 252")), "systemd-boot /" + loaderInfo + " false"},
		{"a GRUB that knows no drop-ins", map[string]string{"etc/default/grub": "", "usr/sbin/grub-mkconfig": ". /etc/default/grub\n"}, "GRUB /etc/default/grub false"},
		{"a GRUB without its programs", map[string]string{"etc/default/grub": ""}, "GRUB /etc/default/grub false"},
		{"systemd-boot", map[string]string{"boot/efi/loader/loader.conf": ""}, "systemd-boot /boot/efi/loader/loader.conf false"},
		{"Raspberry Pi", map[string]string{"boot/firmware/cmdline.txt": "x"}, "the Raspberry Pi's firmware /boot/firmware/cmdline.txt false"},
		{"extlinux", map[string]string{"boot/extlinux/extlinux.conf": ""}, "extlinux /boot/extlinux/extlinux.conf false"},
	} {
		h, _ := tree(t, tc.files)
		l := h.BootLoader()
		if got := fmt.Sprintf("%s %s %v", l.Name, l.Evidence, l.DropIns); got != tc.want || l.ByHand == "" {
			t.Errorf("%s: %s; by hand: %s", tc.name, got, l.ByHand)
		}
	}
}

func TestGRUB(t *testing.T) {
	h, _ := tree(t, map[string]string{
		"etc/default/grub":                      "# GRUB_CMDLINE_LINUX=\"no\"\nGRUB_TIMEOUT=5\nGRUB_CMDLINE_LINUX_DEFAULT=\"quiet splash\"\n  GRUB_CMDLINE_LINUX=''\n",
		"etc/default/grub.d/10_cloud.cfg":       "GRUB_CMDLINE_LINUX=\"console=ttyS0\"\n",
		"etc/default/grub.d/90-nodeprov.cfg":    "GRUB_CMDLINE_LINUX=ours\n",
		"etc/default/grub.d/99-last.cfg":        "\n\nGRUB_CMDLINE_LINUX=\"$GRUB_CMDLINE_LINUX x=1\"\n",
		"etc/default/grub.d/99-last.cfg.backup": "GRUB_CMDLINE_LINUX=old\n",
		"boot/grub/grub.cfg": "set timeout=5\nfunction x {\n  linux_is_here\n}\nmenuentry 'Debian' {\n\tinsmod gzio\n" +
			"\tlinux\t/boot/vmlinuz-6.1.0 root=UUID=1 ro  preempt=none quiet\n\tinitrd\t/boot/initrd.img\n}\n\tlinux\t/boot/vmlinuz-6.1.0 root=UUID=1 ro single\n",
	})
	lines, err := h.GRUBLines("/etc/default/grub.d/90-nodeprov.cfg")
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff([]host.GRUBLine{
		{"/etc/default/grub", 3, `GRUB_CMDLINE_LINUX_DEFAULT="quiet splash"`, false},
		{"/etc/default/grub", 4, `GRUB_CMDLINE_LINUX=''`, false},
		{"/etc/default/grub.d/10_cloud.cfg", 1, `GRUB_CMDLINE_LINUX="console=ttyS0"`, false},
		{"/etc/default/grub.d/99-last.cfg", 3, `GRUB_CMDLINE_LINUX="$GRUB_CMDLINE_LINUX x=1"`, true},
	}, lines); d != "" {
		t.Error(d)
	}
	if entry, err := h.GRUBEntry(); err != nil || entry != "root=UUID=1 ro  preempt=none quiet" {
		t.Errorf("%q, %v", entry, err)
	}
	if err := h.UpdateGRUB(t.Context()); !errors.Is(err, host.ErrOffline) {
		t.Errorf("update-grub ran for a tree of files: %v", err)
	}
}
