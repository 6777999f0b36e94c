package host

import (
	"bytes"
	"compress/gzip"
	"errors"
	"fmt"
	"io"
	"strings"

	"golang.org/x/sys/unix"
)

func (h *Host) kernelFacts() (KernelFacts, error) {
	k := KernelFacts{
		Release: h.text("/proc/sys/kernel/osrelease"),
		Cmdline: strings.Join(strings.Fields(h.text("/proc/cmdline")), " "),
		BTF:     h.Exists("/sys/kernel/btf/vmlinux"),
	}
	if h.Live() {
		// /proc may be another machine's, or hidden.
		var uts unix.Utsname
		if err := unix.Uname(&uts); err != nil {
			return k, fmt.Errorf("uname: %w", err)
		}
		k.Release = unix.ByteSliceToString(uts.Release[:])
	}
	if k.Release == "" {
		return k, errors.New("/proc/sys/kernel/osrelease: no kernel release (is /proc mounted?)")
	}
	var err error
	if k.Version, err = kernelVersion(k.Release); err != nil {
		return k, err
	}
	k.Preempt = h.preempt(k)
	return k, nil
}

// preempt tells the preemption model. debugfs says what holds now, but is not
// mounted early at boot and in containers: then it is what the kernel was built
// with, and for one that can choose, what it was booted with.
func (h *Host) preempt(k KernelFacts) string {
	if words := h.text("/sys/kernel/debug/sched/preempt"); words != "" {
		for w := range strings.FieldsSeq(words) {
			if strings.HasPrefix(w, "(") && strings.HasSuffix(w, ")") {
				return strings.Trim(w, "()")
			}
		}
	}
	// "#1 SMP PREEMPT_DYNAMIC Debian 6.1.112-1 (2024-09-30)"
	var mark string
	for w := range strings.FieldsSeq(h.text("/proc/sys/kernel/version")) {
		if strings.HasPrefix(w, "PREEMPT") {
			mark = w
		}
	}
	switch mark {
	case "PREEMPT_RT":
		return "rt"
	case "PREEMPT":
		return "full"
	case "PREEMPT_LAZY":
		return "lazy"
	case "PREEMPT_DYNAMIC":
		for w := range strings.FieldsSeq(k.Cmdline) {
			switch v, ok := strings.CutPrefix(w, "preempt="); {
			case !ok:
			case v == "none", v == "voluntary", v == "full", v == "lazy":
				return v
			}
		}
	}
	config := h.kernelConfig(k.Release)
	for _, model := range []struct{ option, name string }{
		{"PREEMPT_NONE", "none"}, {"PREEMPT_VOLUNTARY", "voluntary"}, {"PREEMPT", "full"}, {"PREEMPT_LAZY", "lazy"},
	} {
		// One of them is set, also in a kernel that can choose.
		if bytes.Contains(config, []byte("\nCONFIG_"+model.option+"=y\n")) {
			return model.name
		}
	}
	return ""
}

// kernelConfig is the text of the options that the kernel of this release was
// built with; empty where neither /boot nor /proc/config.gz has it.
func (h *Host) kernelConfig(release string) []byte {
	if text, err := h.ReadFile("/boot/config-" + release); err == nil {
		return text
	}
	f, err := h.open("/proc/config.gz", unix.O_RDONLY)
	if err != nil {
		return nil
	}
	defer f.Close()
	z, err := gzip.NewReader(f)
	if err != nil {
		return nil
	}
	text, err := io.ReadAll(z)
	if err != nil {
		return nil
	}
	return text
}

// cgroup looks for the file that the root of every v2 hierarchy has, where
// systemd mounts them.
func (h *Host) cgroup() string {
	switch {
	case h.Exists("/sys/fs/cgroup/cgroup.controllers"):
		return "v2"
	case h.Exists("/sys/fs/cgroup/unified/cgroup.controllers"):
		return "hybrid"
	case len(h.DirNames("/sys/fs/cgroup")) > 0:
		return "v1"
	}
	return ""
}

// bootloader is the BootLoader's name as profiles compare it.
func (h *Host) bootloader() string {
	switch name := h.BootLoader().Name; name {
	case "the Raspberry Pi's firmware":
		return "raspberrypi"
	default:
		return strings.ToLower(name)
	}
}
