package host

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path"
	"regexp"
	"slices"
	"strings"
	"time"
)

const (
	// GRUBConfig is what GRUB reads when it boots; update-grub writes it.
	GRUBConfig = "/boot/grub/grub.cfg"
	// GRUBDropIns has shell files, NAME.cfg, that grub-mkconfig sources in the order of
	// their names, after /etc/default/grub.
	GRUBDropIns = "/etc/default/grub.d"

	grubDefaults = "/etc/default/grub"
	// updateGRUBTimeout is how long update-grub may take: os-prober looks at each
	// disk.
	updateGRUBTimeout = 5 * time.Minute
)

// BootLoader is what boots the machine.
type BootLoader struct {
	// Name is "GRUB", "systemd-boot"…; empty where none was found, as in a container.
	Name string
	// Evidence is the path that shows it.
	Evidence string
	// DropIns tells whether it takes kernel arguments from GRUBDropIns, and a program is
	// there that makes it read them.
	DropIns bool
	// ByHand says what a person does to give the kernel an argument.
	ByHand string
}

// BootLoader looks for what boots the machine.
func (h *Host) BootLoader() BootLoader {
	const (
		kernelInstall = "add it to /etc/kernel/cmdline and run kernel-install, or to the options lines of the entries of the loader"
		// systemd's Boot Loader Interface; GRUB sets the variable too, since 2.12.
		loaderInfo = "/sys/firmware/efi/efivars/LoaderInfo-4a67b082-0a4c-41cf-b6c7-440b29bb8c4f"
	)
	if info, err := h.ReadFile(loaderInfo); err == nil && strings.Contains(utf16Text(info), "systemd-boot") {
		return BootLoader{Name: "systemd-boot", Evidence: loaderInfo, ByHand: kernelInstall}
	}
	if h.Exists(grubDefaults) || h.Exists(GRUBDropIns) {
		g := BootLoader{Name: "GRUB", Evidence: grubDefaults, ByHand: "add it to GRUB_CMDLINE_LINUX in " + grubDefaults + " and have GRUB's configuration made anew (grub2-mkconfig, grubby)"}
		if mk := h.program("grub-mkconfig"); mk != "" {
			// The directory is Debian's addition to GRUB.
			text, err := h.ReadFile(mk)
			g.DropIns = err == nil && strings.Contains(string(text), "default/grub.d")
		}
		return g
	}
	for _, l := range []BootLoader{
		{Name: "systemd-boot", Evidence: "/boot/loader/loader.conf", ByHand: kernelInstall},
		{Name: "systemd-boot", Evidence: "/boot/efi/loader/loader.conf", ByHand: kernelInstall},
		{Name: "systemd-boot", Evidence: "/efi/loader/loader.conf", ByHand: kernelInstall},
		{Name: "the Raspberry Pi's firmware", Evidence: "/boot/firmware/cmdline.txt", ByHand: "add it to the one line of /boot/firmware/cmdline.txt"},
		{Name: "the Raspberry Pi's firmware", Evidence: "/boot/cmdline.txt", ByHand: "add it to the one line of /boot/cmdline.txt"},
		{Name: "U-Boot", Evidence: "/etc/default/u-boot", ByHand: "add it to U_BOOT_PARAMETERS in /etc/default/u-boot and run u-boot-update"},
		{Name: "extlinux", Evidence: "/boot/extlinux/extlinux.conf", ByHand: "add it to the append lines of /boot/extlinux/extlinux.conf"},
		{Name: "zipl", Evidence: "/etc/zipl.conf", ByHand: "add it to the parameters in /etc/zipl.conf and run zipl"},
	} {
		if h.Exists(l.Evidence) {
			return l
		}
	}
	return BootLoader{ByHand: "add it where this machine's kernel is started from: a hypervisor or a container's host has the command line then"}
}

// utf16Text is the text of an EFI variable whose letters are ASCII.
func utf16Text(b []byte) string { return strings.ReplaceAll(string(b), "\x00", "") }

// program returns where a system administrator's program is, or nothing.
func (h *Host) program(name string) string {
	for _, dir := range []string{"/usr/local/sbin", "/usr/sbin", "/sbin", "/usr/local/bin", "/usr/bin", "/bin"} {
		if p := path.Join(dir, name); h.Exists(p) {
			return p
		}
	}
	return ""
}

// UpdateGRUB has GRUBConfig made anew. The error has the end of what the program
// wrote. With a Root it is ErrOffline.
func (h *Host) UpdateGRUB(ctx context.Context) error {
	argv := []string{"update-grub"}
	if h.program(argv[0]) == "" {
		argv = []string{"grub-mkconfig", "-o", GRUBConfig}
	}
	out, err := h.Run(ctx, updateGRUBTimeout, argv...)
	if err == nil {
		return nil
	}
	if out = strings.TrimSpace(out); out != "" {
		return fmt.Errorf("%w: it ended with:\n%s", err, out)
	}
	return err
}

// GRUBEntry returns the kernel arguments of the first entry in GRUBConfig, which is the
// one that is booted if nobody chooses another. The error is fs.ErrNotExist where
// there is no such file, or no entry of a Linux kernel in it.
func (h *Host) GRUBEntry() (string, error) {
	b, err := h.ReadFile(GRUBConfig)
	if err != nil {
		return "", err
	}
	m := regexp.MustCompile(`(?m)^[ \t]*linux(?:16|efi)?[ \t]+\S+[ \t]*(.*)$`).FindSubmatch(b)
	if m == nil {
		return "", fmt.Errorf("%s: no entry of a Linux kernel: %w", GRUBConfig, fs.ErrNotExist)
	}
	return string(m[1]), nil
}

// GRUBLine is a line that gives kernel arguments to GRUB.
type GRUBLine struct {
	File string
	Line int
	Text string
	// Later tells whether it is read after the drop-in of the name that was asked with.
	Later bool
}

// GRUBLines are the assignments to GRUB_CMDLINE_LINUX and its kin in the files that
// grub-mkconfig sources, but for the drop-in.
func (h *Host) GRUBLines(dropIn string) ([]GRUBLine, error) {
	lines, err := h.configLines(grubDefaults)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	more, err := h.dropIns(".cfg", GRUBDropIns)
	if err != nil {
		return nil, err
	}
	var out []GRUBLine
	for _, l := range slices.Concat(lines, more) {
		if l.File != dropIn && strings.Contains(l.Text, "GRUB_CMDLINE_LINUX") {
			later := path.Dir(l.File) == GRUBDropIns && path.Base(l.File) > path.Base(dropIn)
			out = append(out, GRUBLine{l.File, l.Line, l.Text, later})
		}
	}
	return out, nil
}

// BootedCmdline is the command line that the running kernel was started with.
func (h *Host) BootedCmdline() (string, error) {
	b, err := h.ReadFile("/proc/cmdline")
	if err != nil {
		return "", err
	}
	return strings.TrimSpace(string(b)), nil
}
