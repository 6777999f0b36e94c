package host

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path"
	"slices"
	"strings"
	"time"
)

// moduleTimeout is how long modprobe may take; drivers that look for their
// hardware may need seconds.
const moduleTimeout = 60 * time.Second

// Module is what the machine knows of a kernel module.
type Module struct {
	// Name has underscores where people may write dashes. For an alias it is the name
	// of the module that the alias stands for.
	Name string
	// Loaded modules are in the running kernel, built in or loaded.
	Loaded bool
	// Loadable modules are files for the running kernel.
	Loadable bool
	// Barred is the line that keeps modprobe from loading it, as "FILE:LINE: TEXT";
	// empty where nothing does.
	Barred string
}

// ModuleName is the one spelling of a module's name: to the kernel, dashes and
// underscores are the same. The error says why the name can be none.
func ModuleName(name string) (string, error) {
	// MODULE_NAME_LEN of the kernel, which includes a NUL.
	const longest = 64 - 8 - 1
	if name == "" {
		return "", errors.New("the name is empty")
	}
	if strings.Trim(strings.ToLower(name), "abcdefghijklmnopqrstuvwxyz0123456789_-") != "" {
		return "", fmt.Errorf("%q has a character that no module's name has (write the name alone, as in nf_conntrack: no path, no .ko, no options)", name)
	}
	if len(name) > longest {
		return "", fmt.Errorf("%q is longer than %d bytes, which no module's name is", name, longest)
	}
	return strings.ReplaceAll(name, "-", "_"), nil
}

// KernelRelease is what `uname -r` prints.
func (h *Host) KernelRelease() (string, error) {
	b, err := h.ReadFile("/proc/sys/kernel/osrelease")
	if err != nil {
		return "", fmt.Errorf("kernel release: %w (is /proc mounted?)", err)
	}
	return strings.TrimSpace(string(b)), nil
}

// Module looks for the module of this name or alias. One that is not there at all is no
// error: it is neither loaded nor loadable.
func (h *Host) Module(name string) (Module, error) {
	name, err := ModuleName(name)
	if err != nil {
		return Module{}, fmt.Errorf("module: %w", err)
	}
	m := Module{Name: name}
	// What is set already must cost little: the lists below have some 10,000
	// lines.
	if h.inKernel(name) {
		m.Loaded = true
		return m, nil
	}
	release, err := h.KernelRelease()
	if err != nil {
		return m, fmt.Errorf("module %s: %w", name, err)
	}
	if m.Loaded, m.Loadable, err = h.findModule(release, name); err != nil {
		return m, fmt.Errorf("module %s: %w", name, err)
	}
	config, err := h.modprobeConfig()
	if err != nil {
		return m, fmt.Errorf("module %s: %w", name, err)
	}
	if !m.Loaded && !m.Loadable {
		if target := h.moduleAlias(release, name, config); target != "" {
			m.Name = target
			if m.Loaded = h.inKernel(target); !m.Loaded {
				if m.Loaded, m.Loadable, err = h.findModule(release, target); err != nil {
					return m, fmt.Errorf("module %s: %w", name, err)
				}
			}
		}
	}
	if m.Loaded {
		return m, nil
	}
	for _, c := range config {
		if c.bars(m.Name) {
			m.Barred = c.String()
			break
		}
	}
	return m, nil
}

// inKernel tells whether the kernel shows the module. It shows those that are built in
// only where they have a parameter or a version.
func (h *Host) inKernel(name string) bool {
	dir := "/sys/module/" + name
	state, err := h.ReadFile(dir + "/initstate")
	if err == nil {
		// "coming" and "going" have their directory too.
		return strings.TrimSpace(string(state)) == "live"
	}
	return len(h.SysfsNames([]string{"module", name})) > 0
}

// findModule looks into the lists that depmod(8) wrote for the running kernel.
func (h *Host) findModule(release, name string) (builtIn, loadable bool, err error) {
	builtIn, err = h.listed("/lib/modules/"+release+"/modules.builtin", name)
	if err != nil || builtIn {
		return builtIn, false, err
	}
	loadable, err = h.listed("/lib/modules/"+release+"/modules.dep", name)
	return false, loadable, err
}

// listed tells whether one of depmod's lists has the module. Each is read once, as it
// is long, until it is written anew.
func (h *Host) listed(list, name string) (bool, error) {
	written, err := h.ModTime(list)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	if l, ok := h.modules[list]; ok && l.written.Equal(written) {
		return l.names[name], nil
	}
	b, err := h.ReadFile(list)
	if err != nil {
		return false, err
	}
	names := make(map[string]bool)
	for line := range bytes.Lines(b) {
		names[moduleOfLine(line)] = true
	}
	if h.modules == nil {
		h.modules = make(map[string]moduleList)
	}
	h.modules[list] = moduleList{written, names}
	return names[name], nil
}

// moduleList is what a list of depmod's had when it was written last.
type moduleList struct {
	written time.Time
	names   map[string]bool
}

// moduleOfLine is the module of a line of modules.dep or modules.builtin:
// "kernel/net/ipv4/tcp_bbr.ko.xz: …".
func moduleOfLine(line []byte) string {
	file, _, _ := bytes.Cut(bytes.TrimSpace(line), []byte(":"))
	name, _, ok := strings.Cut(path.Base(string(file)), ".ko")
	if !ok {
		return ""
	}
	return strings.ReplaceAll(name, "-", "_")
}

// ModuleNames are the sorted names of the modules that depmod(8) lists for the running
// kernel, built-in ones included; empty where it lists none.
func (h *Host) ModuleNames() []string {
	release, err := h.KernelRelease()
	if err != nil {
		return nil
	}
	var names []string
	for _, list := range []string{"modules.builtin", "modules.dep"} {
		b, err := h.ReadFile("/lib/modules/" + release + "/" + list)
		if err != nil {
			continue
		}
		for line := range bytes.Lines(b) {
			if name := moduleOfLine(line); name != "" {
				names = append(names, name)
			}
		}
	}
	slices.Sort(names)
	return slices.Compact(names)
}

// moduleAlias is the module that the alias stands for, or nothing. The machine's own
// aliases come before those that the modules have.
func (h *Host) moduleAlias(release, name string, config []modprobeLine) string {
	for _, c := range config {
		if c.command == "alias" && matchModule(c.name, name) {
			return strings.ReplaceAll(c.rest, "-", "_")
		}
	}
	dir := "/lib/modules/" + release
	if b, err := h.ReadFile(dir + "/modules.alias"); err == nil {
		for line := range bytes.Lines(b) {
			if f := strings.Fields(string(line)); len(f) == 3 && f[0] == "alias" && matchModule(f[1], name) {
				return strings.ReplaceAll(f[2], "-", "_")
			}
		}
	}
	// Records of "MODULE.FIELD=VALUE", each ended by a NUL.
	if b, err := h.ReadFile(dir + "/modules.builtin.modinfo"); err == nil {
		for record := range bytes.SplitSeq(b, []byte{0}) {
			module, alias, ok := strings.Cut(string(record), ".alias=")
			if ok && matchModule(alias, name) {
				return strings.ReplaceAll(module, "-", "_")
			}
		}
	}
	return ""
}

// matchModule matches an alias, which may be a pattern of device numbers
// ("pci:v0000*"); those never match a name.
func matchModule(pattern, name string) bool {
	ok, err := path.Match(strings.ReplaceAll(pattern, "-", "_"), name)
	return err == nil && ok && !strings.Contains(pattern, ":")
}

// modprobeLine is a line of modprobe.d(5), or a word of the kernel's command line.
type modprobeLine struct {
	configLine
	command, name, rest string
}

// bars tells whether the line forbids the module.
func (l modprobeLine) bars(name string) bool {
	if strings.ReplaceAll(l.name, "-", "_") != name {
		return false
	}
	switch l.command {
	case "blacklist":
		return true
	case "install":
		// How people forbid what is asked for by its name.
		program, _, _ := strings.Cut(l.rest, " ")
		return slices.Contains([]string{"true", "false", ":", "exit"}, path.Base(program))
	}
	return false
}

// modprobeConfig reads modprobe.d(5), and what the kernel's command line forbids.
func (h *Host) modprobeConfig() ([]modprobeLine, error) {
	lines, err := h.dropIns(".conf", "/etc/modprobe.d", "/run/modprobe.d", "/usr/local/lib/modprobe.d", "/usr/lib/modprobe.d", "/lib/modprobe.d")
	if err != nil {
		return nil, err
	}
	var out []modprobeLine
	for _, l := range lines {
		f := strings.Fields(l.Text)
		if len(f) < 2 || strings.HasPrefix(f[0], "#") {
			continue
		}
		out = append(out, modprobeLine{l, f[0], f[1], strings.Join(f[2:], " ")})
	}
	b, err := h.ReadFile("/proc/cmdline")
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	for word := range strings.FieldsSeq(string(b)) {
		name, list, _ := strings.Cut(word, "=")
		if name != "modprobe.blacklist" && name != "module_blacklist" {
			continue
		}
		for module := range strings.SplitSeq(list, ",") {
			out = append(out, modprobeLine{configLine{"/proc/cmdline", 1, word}, "blacklist", module, ""})
		}
	}
	return out, nil
}

// LoadModule loads the module of this name or alias, and what it needs, by
// modprobe(8); it returns when the module is ready. That it is loaded already is no error.
func (h *Host) LoadModule(ctx context.Context, name string) error {
	// modprobe looks into the lists of the kernel that runs.
	out, err := h.Run(ctx, moduleTimeout, "modprobe", "--use-blacklist", "--", name)
	if err == nil {
		return nil
	}
	if out = strings.TrimSpace(out); out != "" {
		return fmt.Errorf("module %s: %w: %s (the kernel's log may say more: dmesg)", name, err, out)
	}
	return fmt.Errorf("module %s: %w", name, err)
}
