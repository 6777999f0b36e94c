package provision

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"math/big"
	"path"
	"slices"
	"strconv"
	"strings"
	"syscall"

	"github.com/agext/levenshtein"
	"github.com/hashicorp/hcl/v2"
	"github.com/zclconf/go-cty/cty"
	"k8s.io/utils/cpuset"

	"github.com/nodeprov/nodeprov/provision/host"
	"github.com/nodeprov/nodeprov/provision/profile"
)

// SysctlFile has the kernel keys of the profile, so that `sysctl --system`, and a device
// that appears, do not undo them. Its name comes after those that people use. It is below
// /run, so that a boot begins with the machine's own values: a rollback leads there.
const SysctlFile = "/run/sysctl.d/zz-nodeprov.conf"

// sysctlKind sets kernel keys below /proc/sys.
func sysctlKind() Kind {
	return Kind{
		Name: "sysctl",
		Schema: &profile.Schema{
			Type: "sysctl",
			Map:  true,
			Doc: "Kernel keys below /proc/sys and their values: a string, a whole number, a bool (1 or 0), or at_least(n), which raises a key " +
				"that holds one number and never lowers it. Keys are spelled as for sysctl(8): dots separate, and a slash stands for a dot " +
				"within a part (net.ipv4.conf.eth0/100.rp_filter). With *, ? or [ ] in it a key stands for all that match: " +
				"net.ipv4.conf.*.rp_filter is that of each device that there is or will be, of all and of default; a key that is written out wins, " +
				"and with null it is left alone. best_effort(v) tolerates a host that has no such key or refuses the value. A key that belongs to a " +
				"module needs the module in modules of the kernel block, which is done first. The keys also go to " + SysctlFile + ", so that " +
				"`sysctl --system` keeps them; plan names each other file of sysctl.d that says something else. The larger one of " +
				"net.ipv4.conf.all.rp_filter and the device's holds, so lower both.",
		},
		Wanted:   sysctlWanted,
		Open:     func(name string) (Setting, error) { return openSysctl(name) },
		Scope:    Machine,
		Lifetime: Runtime,
		Effect:   "now",
		Early:    true,
		Device:   true,

		Entangled: true,
	}
}

// sysctl is one kernel key. Its value is the kernel's text without the newline
// at its end.
type sysctl struct {
	parts []string
}

// openSysctl takes a key in the spelling that Key gives.
func openSysctl(name string) (*sysctl, error) {
	parts, err := host.SplitSysctl(name)
	if err != nil {
		return nil, fmt.Errorf("sysctl: %w", err)
	}
	s := &sysctl{parts}
	if s.name() != name {
		return nil, fmt.Errorf("sysctl: %q is spelled %q in keys of settings", name, s.name())
	}
	return s, nil
}

func (s *sysctl) name() string { return host.JoinSysctl(s.parts) }

func (s *sysctl) Key() string { return "sysctl/" + s.name() }

func (s *sysctl) Read(_ context.Context, h *host.Host) (Value, error) {
	text, err := h.ReadSysctl(s.name())
	if errors.Is(err, fs.ErrNotExist) {
		return Value{Absent: true}, nil
	}
	if err != nil {
		return Value{}, err
	}
	return Value{Text: text}, nil
}

func (s *sysctl) Write(_ context.Context, h *host.Host, v Value) error {
	if v.Absent {
		return fmt.Errorf("sysctl %s: a kernel key cannot be removed (it goes with the module or the device that it belongs to)", s.name())
	}
	err := h.WriteSysctl(s.name(), v.Text)
	if errors.Is(err, syscall.ENOENT) {
		if remedy := s.unknownName(h, v.Text); remedy != "" {
			return fmt.Errorf("sysctl %s: the kernel knows no %q (%s)", s.name(), v.Text, remedy)
		}
	}
	return err
}

// unknownName says what to do about a name that the kernel does not know; it is empty for
// keys that hold none.
func (s *sysctl) unknownName(h *host.Host, value string) string {
	var prefix, known string
	switch s.name() {
	case "net.ipv4.tcp_congestion_control":
		prefix = "tcp_"
		// What cannot be read is only missing in the message.
		if text, err := h.ReadSysctl("net.ipv4.tcp_available_congestion_control"); err == nil {
			known = "it knows " + strings.Join(strings.Fields(text), ", ") + "; "
		}
	case "net.core.default_qdisc":
		prefix = "sch_"
	default:
		return ""
	}
	if name, err := host.ModuleName(prefix + value); err == nil {
		return fmt.Sprintf("%sadd %q to modules in the kernel block, if this machine has that module", known, name)
	}
	return strings.TrimSuffix(known, "; ")
}

// Same compares as the kernel reads: runs of blanks separate, whatever their
// length. It prints tabs where people write spaces. Masks of CPUs and lists of numbers
// have several spellings.
func (s *sysctl) Same(live, want Value) bool {
	if sameFields(live, want) {
		return true
	}
	if live.Absent != want.Absent {
		return false
	}
	switch s.name() {
	case "net.core.rps_default_mask", "net.core.flow_limit_cpu_bitmap":
		return sameMask(live.Text, want.Text)
	case "kernel.watchdog_cpumask", "net.ipv4.ip_local_reserved_ports":
		a, err1 := cpuset.Parse(strings.TrimSpace(live.Text))
		b, err2 := cpuset.Parse(strings.TrimSpace(want.Text))
		return err1 == nil && err2 == nil && a.Equals(b)
	}
	return false
}

// Device is the device that the key is of: net.ipv4.conf.DEVICE.rp_filter. "all" and
// "default" are the kernel's names for what is of none.
func (s *sysctl) Device() string {
	p := s.parts
	if len(p) < 5 || p[0] != "net" || p[2] != "conf" && p[2] != "neigh" || p[3] == "all" || p[3] == "default" {
		return ""
	}
	switch p[1] {
	case "ipv4", "ipv6", "mpls":
		return p[3]
	}
	return ""
}

func (s *sysctl) Inexact(live, want Value) string {
	switch name := s.name(); {
	case name == "vm.nr_hugepages", name == "vm.nr_hugepages_mempolicy":
		return hugepagesInexact
	case oneWay(name, want.Text):
		return "the kernel keeps the value until it reboots"
	case (name == "kernel.kexec_load_limit_panic" || name == "kernel.kexec_load_limit_reboot") && want.Text != "-1":
		return "the kernel lets it only be lowered"
	case strings.HasPrefix(name, "kernel.usermodehelper."):
		return "the kernel lets capabilities only be taken away"
	case name == "kernel.tainted":
		return "the kernel lets marks only be added"
	}
	return ""
}

// oneWay tells whether the kernel never lets go of this value of the key.
func oneWay(name, value string) bool {
	final, ok := map[string]string{
		"kernel.kexec_load_disabled":       "1",
		"kernel.modules_disabled":          "1",
		"kernel.unprivileged_bpf_disabled": "1", // 2 can be undone
		"kernel.yama.ptrace_scope":         "3",
	}[name]
	return ok && strings.TrimSpace(value) == final
}

func sameFields(live, want Value) bool {
	return live.Absent == want.Absent && slices.Equal(strings.Fields(live.Text), strings.Fields(want.Text))
}

// scope tells whether the key is one of the network namespace. Most below net.
// are. The others are known by their name alone, since a profile is checked
// where there is no machine; TestSysctlScope compares the list with the kernel.
func (s *sysctl) scope() Scope {
	if s.parts[0] != "net" {
		return Machine
	}
	name := s.name()
	if globalNetKeys()[name] {
		return Machine
	}
	if rest, ok := strings.CutPrefix(name, "net.ipv4.route."); ok {
		// One table of routes to clean for the machine; only these are apart.
		switch rest {
		case "flush", "min_adv_mss", "min_pmtu", "mtu_expires":
			return NetNS
		}
		return Machine
	}
	for _, dir := range []string{"net.ipv4.neigh.default.", "net.ipv6.neigh.default."} {
		// The neighbour tables' own parameters; each namespace's devices have
		// theirs.
		if strings.HasPrefix(name, dir) {
			return Machine
		}
	}
	return NetNS
}

// globalNetKeys are the keys below net. that Linux 6.18 either hides from every
// network namespace but the first, or shows read-only there because the value is
// the machine's.
func globalNetKeys() map[string]bool {
	keys := map[string]bool{}
	for dir, names := range map[string]string{
		"net.core.": "bpf_jit_enable bpf_jit_harden bpf_jit_kallsyms bpf_jit_limit busy_poll busy_read default_qdisc dev_weight " +
			"dev_weight_rx_bias dev_weight_tx_bias devconf_inherit_init_net fb_tunnels_only_for_init_net flow_limit_cpu_bitmap " +
			"flow_limit_table_len gro_normal_batch high_order_alloc_disable max_skb_frags mem_pcpu_rsv message_burst message_cost " +
			"netdev_budget netdev_budget_usecs netdev_max_backlog netdev_rss_key netdev_tstamp_prequeue netdev_unregister_timeout_secs " +
			"rmem_default rmem_max rps_sock_flow_entries skb_defer_max warnings wmem_default wmem_max",
		"net.ipv4.": "cipso_cache_bucket_size cipso_cache_enable cipso_rbm_optfmt cipso_rbm_strictvalid fib_sync_mem inet_peer_maxttl " +
			"inet_peer_minttl inet_peer_threshold ipfrag_secret_interval tcp_allowed_congestion_control tcp_available_ulp tcp_low_latency " +
			"tcp_max_orphans tcp_mem udp_mem",
		"net.ipv6.":      "calipso_cache_bucket_size calipso_cache_enable ip6frag_secret_interval mld_max_msf mld_qrv",
		"net.netfilter.": "nf_conntrack_buckets nf_conntrack_expect_max nf_conntrack_max nf_log_all_netns",
		"net.":           "nf_conntrack_max",
	} {
		for name := range strings.FieldsSeq(names) {
			keys[dir+name] = true
		}
	}
	return keys
}

func sysctlWanted(b profile.Block, t Target) ([]Wanted, hcl.Diagnostics) {
	m := kernelMap{
		noun: "kernel key", sample: "net.core.somaxconn", root: host.SysctlRoot,
		split: host.SplitSysctl, join: host.JoinSysctl,
	}
	if t.Host != nil {
		m.names = t.Host.SysctlNames
	}
	entries, diags := m.entries(b.Attrs["sysctl"])
	keys, more := m.keys(entries, t.Host)
	diags = append(diags, more...)

	persist := false
	if t.Host != nil && len(entries) > 0 {
		var err error
		if persist, err = t.Host.FirstNetNS(); err != nil {
			diags = append(diags, &hcl.Diagnostic{
				Severity: hcl.DiagWarning,
				Summary:  "Kernel keys are not kept in a file",
				Detail:   fmt.Sprintf("Whether %s is for us cannot be told: %v.", SysctlFile, err),
				Subject:  b.Range.Ptr(),
			})
		}
	}
	f := newSysctlFile(entries, keys)
	var ws []Wanted
	for _, k := range keys {
		s := &sysctl{k.parts}
		w := Wanted{
			Setting:     s,
			Want:        f.recorded(s, k.entry.wish),
			Range:       k.entry.rng(),
			OnError:     k.entry.class(Warn),
			Unsupported: s.unsupported,
			Scope:       s.scope(),
		}
		if persist {
			explicit := !k.entry.glob || s.Device() == ""
			w.Others = func(h *host.Host) []string { return slices.Concat(f.others(h, s, explicit), f.larger(h, s)) }
		}
		ws = append(ws, m.passing(w, k))
	}
	if persist {
		ws = append(ws, Wanted{
			Setting: file{SysctlFile},
			Want:    func(Value) (Value, error) { return f.value(t.Host), nil },
			Range:   b.Range,
			OnError: Warn,
		})
	}
	return ws, diags
}

// sysctlFile is what is to be in SysctlFile. It follows from the profile and from which
// keys there are, never from live values, which others may set: it would change with them.
type sysctlFile struct {
	lines []sysctlLine
	// fixed are the values by key that need no machine, answers what was asked for. The
	// settings are asked before the file, as its kind comes later.
	fixed, answers map[string]string
	// entries are those of the other files, once read.
	entries []host.SysctlEntry
	read    bool
}

// sysctlLine is a line of the file.
type sysctlLine struct {
	// key is a pattern where always and not of a device.
	key  string
	wish *wish
	// always: the line does not wait for an answer. That is so for a pattern, and for
	// keys of devices, which come and go: the file must not change with them.
	always bool
	// lenient: a failure to set it is no failure of the boot.
	lenient bool
	// out leaves the key out of the patterns.
	out bool
}

func newSysctlFile(entries []kernelEntry, keys []kernelKey) *sysctlFile {
	f := &sysctlFile{fixed: map[string]string{}, answers: map[string]string{}}
	patterns := slices.ContainsFunc(entries, func(e kernelEntry) bool { return e.glob && e.wish != nil && e.wish.least == nil })
	for i := range entries {
		e := &entries[i]
		s := &sysctl{e.parts}
		line := sysctlLine{key: s.name(), wish: e.wish, lenient: e.Value.BestEffort}
		switch {
		case e.null && patterns && !e.glob:
			f.lines = append(f.lines, sysctlLine{key: s.name(), out: true})
		case e.wish == nil:
		case e.glob || s.Device() != "":
			// at_least cannot be said of what is not there yet.
			if e.wish.least == nil {
				line.always, line.lenient = true, true
				f.lines = append(f.lines, line)
			}
		default:
			f.lines = append(f.lines, line)
		}
		for _, k := range keys {
			if k.entry != e {
				continue
			}
			s := &sysctl{k.parts}
			if e.wish.least == nil {
				f.fixed[s.name()] = e.wish.text
			}
			// A key that is written out in some other file beats our pattern.
			if e.glob && s.Device() == "" {
				f.lines = append(f.lines, sysctlLine{key: s.name(), wish: e.wish, lenient: e.Value.BestEffort})
			}
		}
	}
	return f
}

// recorded is the Want of a key of which the file has to know that it is there.
func (f *sysctlFile) recorded(s *sysctl, w *wish) func(Value) (Value, error) {
	want := w.want()
	return func(live Value) (Value, error) {
		v, err := want(live)
		if err == nil && !live.Absent {
			f.answers[s.name()] = v.Text
		}
		return v, err
	}
}

// value is the file's, absent where nothing is to be in it. A machine that does not run is
// not asked which keys it has.
func (f *sysctlFile) value(h *host.Host) Value {
	var b strings.Builder
	contested := func(l sysctlLine) bool { return l.always && f.contested(h, l.key) }
	for _, l := range f.lines {
		if l.out {
			// It takes a key out of the patterns, ours among them.
			if slices.ContainsFunc(f.lines, contested) {
				fmt.Fprintf(&b, "-%s\n", l.key)
			}
			continue
		}
		text := strings.Join(strings.Fields(l.wish.text), " ")
		if l.wish.least != nil {
			text = l.wish.least.String()
		}
		_, there := f.answers[l.key]
		switch {
		case !l.always && !there && h.Live():
		case l.always && !contested(l):
			// A device that appears is set by its own unit, which keeps what it had. Were it
			// by udev, from this file, nobody would know what a rollback leads to.
		case l.wish.least != nil && !f.lowered(h, l.key, l.wish.least):
			// Nothing would undo it, and a larger value may come from elsewhere.
		case oneWay(l.key, text):
			// Nothing can undo it, and early in the boot it would be too soon: no module
			// could be loaded any more.
		case l.lenient:
			fmt.Fprintf(&b, "-%s = %s\n", l.key, text)
		default:
			fmt.Fprintf(&b, "%s = %s\n", l.key, text)
		}
	}
	if b.Len() == 0 {
		return Value{Absent: true}
	}
	const head = "# Written by nodeprov from the node profile, so that sysctl --system keeps what\n" +
		"# it has applied. Changes here are lost: change the profile.\n"
	return fileValue(host.File{Mode: 0o644, Content: []byte(head + b.String())})
}

// contested tells whether the other files say something of a key, or of one that a
// pattern may stand for.
func (f *sysctlFile) contested(h *host.Host, key string) bool {
	parts, err := host.SplitSysctl(key)
	if err != nil {
		return false
	}
	f.elsewhere(h, parts) // reads them
	return slices.ContainsFunc(f.entries, func(e host.SysctlEntry) bool { return mayOverlap(e.Parts, parts) })
}

// mayOverlap tells whether two keys, which may be patterns, can stand for the same one.
// Of two patterns it is taken for granted.
func mayOverlap(a, b []string) bool {
	if len(a) != len(b) {
		return false
	}
	for i := range a {
		pattern := strings.ContainsAny(a[i], "*?[") && strings.ContainsAny(b[i], "*?[")
		if !pattern && !matchParts(a[i:i+1], b[i:i+1]) && !matchParts(b[i:i+1], a[i:i+1]) {
			return false
		}
	}
	return true
}

// lowered tells whether the other files give the key less than n.
func (f *sysctlFile) lowered(h *host.Host, key string, n *big.Int) bool {
	parts, err := host.SplitSysctl(key)
	if err != nil {
		return false
	}
	var last *host.SysctlEntry
	for _, e := range f.elsewhere(h, parts) {
		if last == nil || last.Glob || !e.Glob {
			last = &e
		}
	}
	if last == nil {
		return false
	}
	value, ok := new(big.Int).SetString(last.Value, 10)
	return !ok || value.Cmp(n) < 0
}

// elsewhere are the entries of the other files that are for the key.
func (f *sysctlFile) elsewhere(h *host.Host, parts []string) []host.SysctlEntry {
	if !f.read {
		f.read = true
		// A file that cannot be read is systemd's to complain about.
		entries, _ := h.SysctlEntries()
		f.entries = slices.DeleteFunc(entries, func(e host.SysctlEntry) bool { return e.File == SysctlFile })
	}
	var out []host.SysctlEntry
	for _, e := range f.entries {
		if matchParts(e.Parts, parts) {
			out = append(out, e)
		}
	}
	return out
}

// others are the lines of other files that give the key another value, with who wins.
// explicit tells whether the key is written out in ours.
func (f *sysctlFile) others(h *host.Host, s *sysctl, explicit bool) []string {
	want, ok := f.answer(s.name())
	var out []string
	for _, e := range f.elsewhere(h, s.parts) {
		if ok && sameFields(Value{Text: e.Value}, Value{Text: want}) {
			continue
		}
		wins := path.Base(e.File) > path.Base(SysctlFile)
		verdict := "loses against " + SysctlFile
		switch {
		case e.Glob && explicit:
			// Whatever the order of the files.
		case !e.Glob && !explicit:
			verdict = "wins at boot and when the device appears, until nodeprov applies: write the key out in the profile, or remove the line"
		case e.File == host.SysctlConf:
			verdict = "wins at sysctl --system, which reads this file last: remove the line"
		case wins:
			verdict = "wins at sysctl --system, as its name comes later than " + path.Base(SysctlFile) + ": remove the line"
		}
		out = append(out, fmt.Sprintf("%s:%d: %s = %s (%s)", e.File, e.Line, host.JoinSysctl(e.Parts), e.Value, verdict))
	}
	return out
}

func (f *sysctlFile) answer(name string) (string, bool) {
	if v, ok := f.answers[name]; ok {
		return v, true
	}
	v, ok := f.fixed[name]
	return v, ok
}

// larger names what keeps a key from its effect where the kernel takes the larger one
// of all's and the device's.
func (f *sysctlFile) larger(h *host.Host, s *sysctl) []string {
	p := s.parts
	if len(p) != 5 || host.JoinSysctl(p[:3]) != "net.ipv4.conf" || p[3] == "default" {
		return nil
	}
	switch p[4] {
	case "rp_filter", "arp_announce", "arp_ignore":
	default:
		return nil
	}
	number := func(s *sysctl) int {
		text, ok := f.answer(s.name())
		if !ok {
			// What cannot be read is larger than nothing.
			text, _ = h.ReadSysctl(s.name())
		}
		n, err := strconv.Atoi(strings.TrimSpace(text))
		if err != nil {
			return -1
		}
		return n
	}
	devices := []string{"all"}
	if p[3] == "all" {
		devices = h.SysctlNames(p[:3])
	}
	var out []string
	for _, d := range devices {
		other := &sysctl{[]string{p[0], p[1], p[2], d, p[4]}}
		if d == p[3] || d == "default" {
			continue
		}
		if n := number(other); n > number(s) {
			out = append(out, fmt.Sprintf("%s/%s: %d (the kernel takes the larger one of all's and the device's)", host.SysctlRoot, strings.Join(other.parts, "/"), n))
		}
	}
	return out
}

// kernelMap is a map of the kernel's keys in the language: sysctl and sysfs.
type kernelMap struct {
	// noun, sample and root are words for messages.
	noun, sample, root string
	split              func(string) ([]string, error)
	join               func([]string) string
	// names lists a directory; nil where the machine is unknown.
	names func(parts []string) []string
}

// kernelEntry is one element of the map.
type kernelEntry struct {
	profile.Entry
	parts []string
	glob  bool
	// wish is nil where the value is unknown or null.
	wish *wish
	null bool
}

func (e *kernelEntry) rng() hcl.Range { return hcl.RangeBetween(e.KeyRange, e.Value.Range) }

// class is the element's class where it is not tolerable.
func (e *kernelEntry) class(otherwise Class) Class {
	if e.Value.BestEffort {
		return Tolerate
	}
	return otherwise
}

// kernelKey is a key to be set, and the element that asks for it.
type kernelKey struct {
	parts []string
	entry *kernelEntry
}

func (m *kernelMap) secret() (what, where string) {
	return "A " + m.noun, "everybody can read " + m.root + ", and plan and journal hold the value"
}

// entries checks the elements of the map; wrong ones are left out.
func (m *kernelMap) entries(v profile.Value) ([]kernelEntry, hcl.Diagnostics) {
	if v.Value == cty.NilVal {
		return nil, nil
	}
	if raw, _ := v.Unmark(); raw.IsKnown() && raw.IsNull() {
		return nil, hcl.Diagnostics{wrongAt(v.Range, "Invalid map", "A map of %ss is needed, not null.", m.noun)}
	}
	if v.IsMarked() {
		what, where := m.secret()
		return nil, hcl.Diagnostics{sensitiveAt(v, what, where)}
	}
	var out []kernelEntry
	var diags hcl.Diagnostics
	first := map[string]profile.Entry{}
	for _, e := range v.Entries {
		parts, err := m.split(e.Key)
		if err == nil {
			err = checkPattern(parts)
		}
		if err != nil {
			diags = append(diags, wrongAt(e.KeyRange, "Invalid "+m.noun, "A %s looks like %s, and %v.", m.noun, m.sample, err))
		}
		wish, null, more := m.wish(e)
		diags = append(diags, more...)
		if err != nil {
			continue
		}
		name := m.join(parts)
		if prev, dup := first[name]; dup {
			diags = append(diags, wrongAt(e.KeyRange, "Key given twice",
				"%q is another spelling of %q, which is set at %s. Remove one of the two.", e.Key, prev.Key, place(prev.KeyRange)))
			continue
		}
		first[name] = e
		out = append(out, kernelEntry{e, parts, slices.ContainsFunc(parts, isPattern), wish, null})
	}
	return out, diags
}

// keys are what the elements stand for on this machine, in their order. Keys that are
// written out win against patterns.
func (m *kernelMap) keys(entries []kernelEntry, h *host.Host) ([]kernelKey, hcl.Diagnostics) {
	owner := map[string]*kernelEntry{}
	for i := range entries {
		if e := &entries[i]; !e.glob {
			owner[m.join(e.parts)] = e
		}
	}
	var keys []kernelKey
	var diags hcl.Diagnostics
	for i := range entries {
		e := &entries[i]
		if !e.glob {
			if e.wish != nil {
				keys = append(keys, kernelKey{e.parts, e})
			}
			continue
		}
		if m.names == nil || e.wish == nil {
			continue
		}
		found := expand(m.names, e.parts)
		if len(found) == 0 && h.Live() {
			diags = append(diags, &hcl.Diagnostic{
				Severity: hcl.DiagWarning,
				Summary:  "Nothing matches",
				Detail: fmt.Sprintf("This machine has no %s like %s now, so nothing is set. Is it misspelt? If a module brings it: load that "+
					"by modules in the kernel block, and apply once more.", m.noun, e.Key),
				Subject: e.KeyRange.Ptr(),
			})
		}
		for _, parts := range found {
			name := m.join(parts)
			prev := owner[name]
			switch {
			case prev == nil:
				owner[name] = e
				keys = append(keys, kernelKey{parts, e})
			case prev.glob && !prev.wish.equal(e.wish):
				diags = append(diags, wrongAt(e.KeyRange, "Two patterns for one key",
					"%s is matched by %s here and by %s at %s, with different values. Write it out, or make the patterns narrower.",
					name, e.Key, prev.Key, place(prev.KeyRange)))
			}
		}
	}
	return keys, diags
}

// passing is the setting of a key that a pattern has found. A device may go before the
// key is read: then nothing is wanted of it.
func (m *kernelMap) passing(w Wanted, k kernelKey) Wanted {
	if !k.entry.glob {
		return w
	}
	want, unsupported := w.Want, w.Unsupported
	w.Want = func(live Value) (Value, error) {
		if live.Absent {
			return live, nil
		}
		return want(live)
	}
	w.Unsupported = func(h *host.Host) error {
		if len(m.names(k.parts[:len(k.parts)-1])) == 0 {
			return nil
		}
		return unsupported(h)
	}
	return w
}

func isPattern(part string) bool { return strings.ContainsAny(part, "*?[") }

func checkPattern(parts []string) error {
	for _, p := range parts {
		if _, err := path.Match(p, ""); err != nil {
			return fmt.Errorf("%q is no pattern: a bracket is not closed, or empty", p)
		}
	}
	return nil
}

// matchParts tells whether the pattern is for the key.
func matchParts(pattern, parts []string) bool {
	return slices.EqualFunc(pattern, parts, func(pattern, part string) bool {
		ok, err := path.Match(pattern, part)
		return err == nil && ok
	})
}

// expand returns the keys that the pattern stands for, "all" and "default" first: some of
// them write to all devices. If only the last part of a key is nowhere, it returns the
// first such key, for which the kernel's answer is to be told.
func expand(names func([]string) []string, pattern []string) [][]string {
	var found [][]string
	var missing []string
	var walk func(dir []string)
	walk = func(dir []string) {
		part, last := pattern[len(dir)], len(dir)+1 == len(pattern)
		next := func(name string) []string { return slices.Concat(dir, []string{name}) }
		if !isPattern(part) {
			switch {
			case !last:
				walk(next(part))
			case slices.Contains(names(dir), part):
				found = append(found, next(part))
			case missing == nil && len(names(dir)) > 0:
				missing = next(part)
			}
			return
		}
		rank := func(name string) int { return slices.Index([]string{"default", "all"}, name) }
		here := names(dir)
		slices.SortStableFunc(here, func(a, b string) int { return rank(b) - rank(a) })
		for _, name := range here {
			ok, err := path.Match(part, name)
			switch {
			case err != nil || !ok:
			case !last:
				walk(next(name))
			case len(names(next(name))) == 0: // no directory
				found = append(found, next(name))
			}
		}
	}
	walk(nil)
	if len(found) == 0 && missing != nil {
		return [][]string{missing}
	}
	return found
}

// wish is the value that a profile asks for: a text, or at least a number.
type wish struct {
	text  string
	least *big.Int
}

func (w *wish) equal(o *wish) bool {
	if w.least != nil && o.least != nil {
		return w.least.Cmp(o.least) == 0
	}
	return w.least == nil && o.least == nil && w.text == o.text
}

func (w *wish) want() func(Value) (Value, error) {
	if w.least != nil {
		return raiseTo(w.least)
	}
	return func(Value) (Value, error) { return Value{Text: w.text}, nil }
}

// wish checks a value. It is nil for one that is wrong, unknown or null; null is as if
// the key were left out.
func (m *kernelMap) wish(e profile.Entry) (w *wish, null bool, diags hcl.Diagnostics) {
	v := e.Value
	wrong := func(format string, args ...any) (*wish, bool, hcl.Diagnostics) {
		return nil, false, hcl.Diagnostics{wrongAt(v.Range, "Invalid value of a "+m.noun, "%s: %s.", e.Key, fmt.Sprintf(format, args...))}
	}
	if v.Value == cty.NilVal {
		return nil, false, nil
	}
	what, where := m.secret()
	if v.ContainsMarked() {
		return nil, false, hcl.Diagnostics{sensitiveAt(v, what, where)}
	}
	if n, ok := profile.AtLeast(v.Value); ok {
		if n.IsMarked() {
			return nil, false, hcl.Diagnostics{sensitiveAt(v, what, where)}
		}
		if !n.IsKnown() {
			return nil, false, nil
		}
		least, err := wholeNumber(n)
		if err != nil {
			return wrong("at_least: %v", err)
		}
		return &wish{least: least}, false, nil
	}
	switch t := v.Type(); {
	case !v.IsKnown():
		if t != cty.DynamicPseudoType && !t.IsPrimitiveType() {
			return wrong("a string, a number, a bool or at_least(n) is needed, not a value of type %s", t.FriendlyName())
		}
		return nil, false, nil
	case v.IsNull():
		return nil, true, nil
	case t == cty.Bool:
		if v.True() {
			return &wish{text: "1"}, false, nil
		}
		return &wish{text: "0"}, false, nil
	case t == cty.Number:
		n, err := wholeNumber(v.Value)
		if err != nil {
			return wrong("%v", err)
		}
		return &wish{text: n.String()}, false, nil
	case t == cty.String:
		text := v.AsString()
		if i := strings.IndexAny(text, "\n\r\x00"); i >= 0 {
			return wrong("the string holds %q, where the kernel stops reading (several numbers are separated by blanks; a heredoc ends in a newline: use <<- with trimspace(), or a quoted string)", text[i])
		}
		return &wish{text: text}, false, nil
	default:
		return wrong("a string, a number, a bool or at_least(n) is needed, not a value of type %s (several numbers are one string: \"4096 131072 16777216\")", t.FriendlyName())
	}
}

// wholeNumber turns a known number into what the kernel reads: it knows no
// fractions, and nothing wider than 64 bits.
func wholeNumber(v cty.Value) (*big.Int, error) {
	f := v.AsBigFloat()
	if f.IsInf() {
		return nil, errors.New("infinity is no kernel value")
	}
	n, acc := f.Int(nil)
	if acc != big.Exact {
		return nil, fmt.Errorf("%s is no whole number, which kernel keys are (use floor() or ceil(), or a string for a key that is a text)", f.Text('g', 10))
	}
	if !n.IsInt64() && !n.IsUint64() {
		return nil, fmt.Errorf("%s does not fit in 64 bits", f.Text('g', 10))
	}
	return n, nil
}

// raiseTo wants the larger one of least and the live value. A live value that is
// large enough stays as the kernel writes it.
func raiseTo(least *big.Int) func(Value) (Value, error) {
	return func(live Value) (Value, error) {
		if live.Absent {
			return Value{Text: least.String()}, nil
		}
		n, ok := new(big.Int).SetString(strings.TrimSpace(live.Text), 10)
		if !ok {
			return Value{}, fmt.Errorf("at_least(%s) needs a key that holds one number, and this one holds %q (write the whole value as a string)", least, live.Text)
		}
		if n.Cmp(least) >= 0 {
			return live, nil
		}
		return Value{Text: least.String()}, nil
	}
}

// unsupported says why the key may not be there.
func (s *sysctl) unsupported(h *host.Host) error {
	name := s.name()
	if d := s.Device(); d != "" && !slices.Contains(h.SysctlNames(s.parts[:3]), d) {
		return fmt.Errorf("sysctl %s: there is no device %s (it may come later; net.%s.%s.default is what new devices get)", name, d, s.parts[1], s.parts[2])
	}
	if near := nearest(h.SysctlNames, s.parts); near != nil {
		return fmt.Errorf("sysctl %s: the kernel has no such key (did you mean %s?)", name, host.JoinSysctl(near))
	}
	if module := s.module(); module != "" {
		// What cannot be told about the module is told when it is asked for itself.
		if m, err := h.Module(module); err != nil || !m.Loaded {
			return fmt.Errorf("sysctl %s: the kernel has no such key, as module %s is not loaded (add %[2]q to modules in the kernel block)", name, module)
		}
	}
	if s.parts[0] == "net" && s.scope() == Machine {
		return fmt.Errorf("sysctl %s: the kernel has no such key (it is the whole machine's, and other network namespaces do not show it: run in the first one)", name)
	}
	return fmt.Errorf("sysctl %s: the kernel has no such key (is it misspelt, of another kernel version, or of a module or device that is not there yet?)", name)
}

// module is the module that brings the key; empty for a key that all kernels have, or
// that of a module that is not known here.
func (s *sysctl) module() string {
	name := s.name() + "."
	for _, m := range []struct{ prefix, module string }{
		{"net.netfilter.nf_conntrack_", "nf_conntrack"},
		{"net.netfilter.nf_flowtable_", "nf_conntrack"},
		{"net.netfilter.nf_hooks_lwtunnel", "nf_conntrack"},
		{"net.nf_conntrack_", "nf_conntrack"},
		{"net.bridge.", "br_netfilter"},
		{"net.ipv4.vs.", "ip_vs"},
		{"net.ipv6.", "ipv6"},
		{"net.mpls.", "mpls_router"},
		{"net.sctp.", "sctp"},
		{"net.smc.", "smc"},
		{"net.rds.", "rds"},
		{"net.rxrpc.", "rxrpc"},
		{"sunrpc.", "sunrpc"},
		{"fs.nfs.nlm_", "lockd"},
		{"fs.nfs.nsm_", "lockd"},
		{"fs.nfs.", "nfs"},
		{"fs.xfs.", "xfs"},
		{"dev.raid.", "md_mod"},
		{"dev.scsi.", "scsi_mod"},
		{"dev.cdrom.", "cdrom"},
	} {
		if strings.HasPrefix(name, m.prefix) {
			return m.module
		}
	}
	return ""
}

// nearest returns a key that is there and differs in one part by a few letters, or
// nothing.
func nearest(names func([]string) []string, parts []string) []string {
	for i, part := range parts {
		here := names(parts[:i])
		if slices.Contains(here, part) {
			continue
		}
		best := nearestWord(part, here)
		if best == "" {
			return nil
		}
		near := slices.Concat(parts[:i], []string{best}, parts[i+1:])
		if i+1 == len(parts) || slices.Contains(names(near[:len(near)-1]), near[len(near)-1]) {
			return near
		}
		return nil
	}
	return nil
}

// nearestWord is the word that differs by a few letters, or nothing.
func nearestWord(word string, words []string) string {
	// A third of the letters is as much as a slip of the fingers changes.
	best, least := "", len(word)/3+1
	for _, w := range words {
		if d := levenshtein.Distance(word, w, nil); d < least {
			best, least = w, d
		}
	}
	return best
}
