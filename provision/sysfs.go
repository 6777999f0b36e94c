package provision

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"math/big"
	"path"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/hashicorp/hcl/v2"

	"github.com/nodeprov/nodeprov/provision/host"
	"github.com/nodeprov/nodeprov/provision/profile"
)

// sysfsKind sets files below /sys.
func sysfsKind() Kind {
	return Kind{
		Name: "sysfs",
		Schema: &profile.Schema{
			Type: "sysfs",
			Map:  true,
			Doc: "Files below /sys by their paths, and their values: a string, a whole number, a bool (1 or 0), or at_least(n) for a file that " +
				"holds one number. A file that shows all its words with the chosen one in brackets has that one as its value. With *, ? or [ ] in " +
				"it a path stands for all that match now: \"/sys/block/*/queue/read_ahead_kb\" = at_least(4096); a path that is written out wins, and with " +
				"null it is left alone. best_effort(v) tolerates a host that has no such file or refuses the value. Nothing else may set the same " +
				"file: kernel, cpu and nic have their own attributes for theirs.",
		},
		Wanted:   sysfsMapWanted,
		Open:     func(name string) (Setting, error) { return openSysfs(name) },
		Scope:    Machine,
		Lifetime: Runtime,
		Effect:   "now",
		Early:    true,
		Device:   true,

		Entangled: true,
	}
}

// sysfs is a file below /sys. Its value is the text without the newline at its end; of a
// file that shows a choice it is the selected word.
type sysfs struct {
	path string
}

// openSysfs takes a path in its one spelling.
func openSysfs(name string) (sysfs, error) {
	if _, err := host.SplitSysfs(name); err != nil {
		return sysfs{}, fmt.Errorf("sysfs: %w", err)
	}
	return sysfs{name}, nil
}

// sysfsWanted asks for one text in the file at the path p, for the constructs that are made
// of such settings. A path that is not below /sys is a mistake of the caller.
func sysfsWanted(p, want string, rng hcl.Range, onError Class) Wanted {
	return sysfsWish(p, &wish{text: want}, rng, onError)
}

func sysfsWish(p string, w *wish, rng hcl.Range, onError Class) Wanted {
	s, err := openSysfs(p)
	if err != nil {
		panic(err)
	}
	return Wanted{
		Setting:     s,
		Want:        w.want(),
		Range:       rng,
		OnError:     onError,
		Unsupported: s.unsupported,
		Scope:       s.scope(),
	}
}

func sysfsMapWanted(b profile.Block, t Target) ([]Wanted, hcl.Diagnostics) {
	m := kernelMap{
		noun: "file of /sys", sample: "/sys/kernel/mm/ksm/run", root: host.SysfsRoot,
		split: host.SplitSysfs, join: sysfsPath,
	}
	if t.Host != nil {
		m.names = t.Host.SysfsNames
	}
	entries, diags := m.entries(b.Attrs["sysfs"])
	keys, more := m.keys(entries, t.Host)
	diags = append(diags, more...)
	var ws []Wanted
	for _, k := range keys {
		ws = append(ws, m.passing(sysfsWish(sysfsPath(k.parts), k.entry.wish, k.entry.rng(), k.entry.class(Warn)), k))
	}
	return ws, diags
}

// sysfsPath is the path with these parts.
func sysfsPath(parts []string) string { return host.SysfsRoot + "/" + strings.Join(parts, "/") }

func (s sysfs) Key() string { return "sysfs/" + s.path }

func (s sysfs) Read(_ context.Context, h *host.Host) (Value, error) {
	text, err := h.ReadSysfs(s.path)
	if errors.Is(err, fs.ErrNotExist) {
		return Value{Absent: true}, nil
	}
	if err != nil {
		return Value{}, fmt.Errorf("sysfs %w", err)
	}
	if selected, words := host.SysfsChoice(text); words != nil {
		text = selected
	}
	return Value{Text: text}, nil
}

func (s sysfs) Write(_ context.Context, h *host.Host, v Value) error {
	if v.Absent {
		return fmt.Errorf("sysfs %s: a file of the kernel cannot be removed (it goes with the module or the device that it belongs to)", s.path)
	}
	if err := h.WriteSysfs(s.path, v.Text); err != nil {
		return fmt.Errorf("sysfs %w", err)
	}
	return s.checkPages(h, v)
}

// checkPages tells of huge pages that there was no room for: the kernel takes any number,
// and makes as many as it can.
func (s sysfs) checkPages(h *host.Host, v Value) error {
	size := s.pageSize()
	if size == 0 {
		return nil
	}
	text, err := h.ReadSysfs(s.path)
	if err != nil {
		return fmt.Errorf("sysfs %w", err)
	}
	had, err1 := strconv.ParseUint(strings.TrimSpace(text), 10, 64)
	want, err2 := strconv.ParseUint(strings.TrimSpace(v.Text), 10, 64)
	if err1 != nil || err2 != nil || had >= want {
		return nil //nolint:nilerr // what is no number, the engine reads back
	}
	return fmt.Errorf("sysfs %s: the kernel found room for %d of %d pages of %s: memory is used or fragmented (reserve them at boot, by hugepagesz=%s and hugepages=%d in set of the kernel block's cmdline)",
		s.path, had, want, pageSizeText(size), pageSizeText(size), want)
}

// Same compares without the blanks around a value. Masks of CPUs and bools of modules have
// several spellings.
func (s sysfs) Same(live, want Value) bool {
	if live.Absent != want.Absent {
		return false
	}
	l, w := strings.TrimSpace(live.Text), strings.TrimSpace(want.Text)
	switch base := path.Base(s.path); {
	case l == w:
		return true
	case strings.Contains(base, "cpumask"), strings.HasSuffix(base, "_cpus"), base == "xps_rxqs":
		return sameMask(l, w)
	case strings.HasPrefix(s.path, "/sys/module/"):
		// Such a bool is read as Y or N, and may be written as 1 or 0.
		truth := map[string]string{"Y": "1", "y": "1", "N": "0", "n": "0"}
		return truth[l] != "" && (truth[l] == w || truth[l] == truth[w])
	}
	return false
}

// sameMask compares masks of CPUs: groups of hexadecimal digits with commas between.
func sameMask(a, b string) bool {
	x, ok1 := parseMask(a)
	y, ok2 := parseMask(b)
	return ok1 && ok2 && x.Cmp(y) == 0
}

func parseMask(text string) (*big.Int, bool) {
	mask := new(big.Int)
	for i, group := range strings.Split(strings.TrimSpace(text), ",") {
		n, err := strconv.ParseUint(group, 16, 32)
		if err != nil || i > 0 && len(group) != 8 {
			// The first group may be shorter or, without commas, longer.
			if long, ok := new(big.Int).SetString(group, 16); ok && i == 0 && !strings.ContainsAny(text, ",+-_") {
				return long, true
			}
			return nil, false
		}
		mask.Lsh(mask, 32).Or(mask, new(big.Int).SetUint64(n))
	}
	return mask, true
}

// Device is the network device that the file is of.
func (s sysfs) Device() string {
	rest, ok := strings.CutPrefix(s.path, "/sys/class/net/")
	if !ok {
		return ""
	}
	device, _, below := strings.Cut(rest, "/")
	if !below {
		return ""
	}
	return device
}

func (s sysfs) scope() Scope {
	if strings.HasPrefix(s.path, "/sys/class/net/") {
		return NetNS
	}
	return Machine
}

const hugepagesInexact = "memory may be too fragmented to have the pages back, and those in use are not given up"

func (s sysfs) Inexact(live, want Value) string {
	if s.pageSize() != 0 && live != want {
		return hugepagesInexact
	}
	return ""
}

// unsupported says why there is no such file.
func (s sysfs) unsupported(h *host.Host) error {
	parts, err := host.SplitSysfs(s.path)
	if err != nil {
		return fmt.Errorf("sysfs: %w", err)
	}
	none := func(remedy string) error {
		return fmt.Errorf("sysfs %s: the kernel has no such file (%s)", s.path, remedy)
	}
	if s.pageSize() != 0 {
		return none(s.noPages(h))
	}
	if d := s.Device(); d != "" && !slices.Contains(h.SysfsNames(parts[:2]), d) {
		return none("there is no device " + d + ", but it may come later")
	}
	if parts[0] == "module" && len(parts) > 2 && len(h.SysfsNames(parts[:2])) == 0 {
		return none(fmt.Sprintf("module %s is not loaded: add it to modules in the kernel block", parts[1]))
	}
	if near := nearest(h.SysfsNames, parts); near != nil {
		return none("did you mean " + sysfsPath(near) + "?")
	}
	return none("is it misspelt, of another kernel version, or of hardware or a module that is not there?")
}

// pageSize is the size in kB of the huge pages that the file counts; 0 for another file.
func (s sysfs) pageSize() uint64 {
	m := regexp.MustCompile(`^/sys/(?:kernel/mm|devices/system/node/node\d+)/hugepages/hugepages-(\d{1,12})kB/nr_hugepages$`).FindStringSubmatch(s.path)
	if m == nil {
		return 0
	}
	n, err := strconv.ParseUint(m[1], 10, 64)
	if err != nil {
		return 0
	}
	return n
}

// noPages says what there is instead of these huge pages.
func (s sysfs) noPages(h *host.Host) string {
	dir := path.Dir(path.Dir(s.path)) // …/hugepages
	if owner := path.Dir(dir); owner != "/sys/kernel/mm" && len(h.DirNames(owner)) == 0 {
		var nodes []string
		for _, name := range h.DirNames(path.Dir(owner)) {
			if n, ok := strings.CutPrefix(name, "node"); ok && n != "" && strings.Trim(n, "0123456789") == "" {
				nodes = append(nodes, n)
			}
		}
		if len(nodes) == 0 {
			return "this kernel knows no NUMA nodes: use count"
		}
		return "NUMA nodes are " + strings.Join(nodes, ", ")
	}
	var sizes []uint64
	for _, name := range h.DirNames(dir) {
		n, err := strconv.ParseUint(strings.TrimSuffix(strings.TrimPrefix(name, "hugepages-"), "kB"), 10, 64)
		if err == nil {
			sizes = append(sizes, n)
		}
	}
	if len(sizes) == 0 {
		return "this kernel has no huge pages"
	}
	slices.Sort(sizes)
	texts := make([]string, len(sizes))
	for i, n := range sizes {
		texts[i] = pageSizeText(n)
	}
	return "this machine has pages of " + strings.Join(texts, " and ")
}

// pageSizeText is a size in kB as people and the kernel's command line write it: "2M".
func pageSizeText(kb uint64) string {
	switch {
	case kb%(1<<20) == 0:
		return strconv.FormatUint(kb>>20, 10) + "G"
	case kb%(1<<10) == 0:
		return strconv.FormatUint(kb>>10, 10) + "M"
	}
	return strconv.FormatUint(kb, 10) + "K"
}
