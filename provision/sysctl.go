package provision

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"math/big"
	"slices"
	"strings"

	"github.com/agext/levenshtein"
	"github.com/hashicorp/hcl/v2"
	"github.com/zclconf/go-cty/cty"

	"github.com/nodeprov/nodeprov/provision/host"
	"github.com/nodeprov/nodeprov/provision/profile"
)

// sysctlKind sets kernel keys below /proc/sys.
func sysctlKind() Kind {
	return Kind{
		Name: "sysctl",
		Schema: &profile.Schema{
			Type: "sysctl",
			Map:  true,
			Doc: "Kernel keys below /proc/sys and their values: a string, a whole number, a bool (1 or 0), or at_least(n), which raises a key " +
				"that holds one number and never lowers it. Keys are spelled as for sysctl(8): dots separate, and a slash stands for a dot " +
				"within a part (net.ipv4.conf.eth0/100.rp_filter).",
		},
		Wanted:   sysctlWanted,
		Open:     func(name string) (Setting, error) { return openSysctl(name) },
		Scope:    Machine,
		Lifetime: Runtime,
		Effect:   "now",
		Early:    true,
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
	return h.WriteSysctl(s.name(), v.Text)
}

// Same compares as the kernel reads: runs of blanks separate, whatever their
// length. It prints tabs where people write spaces.
func (s *sysctl) Same(live, want Value) bool { return sameFields(live, want) }

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

func sysctlWanted(b profile.Block, _ Target) ([]Wanted, hcl.Diagnostics) {
	var ws []Wanted
	var diags hcl.Diagnostics
	m, ok := b.Attrs["sysctl"]
	if !ok || m.Value == cty.NilVal {
		return nil, nil
	}
	if raw, _ := m.Unmark(); raw.IsKnown() && raw.IsNull() {
		return nil, hcl.Diagnostics{wrongAt(m.Range, "Invalid sysctl", "A map of kernel keys is needed, not null.")}
	}
	if m.IsMarked() {
		return nil, hcl.Diagnostics{sensitiveAt(m, "A kernel key", "everybody can read /proc/sys, and plan and journal hold the value")}
	}
	first := map[string]profile.Entry{}
	for _, e := range m.Entries {
		s, want, ds := sysctlEntry(e)
		diags = append(diags, ds...)
		if s == nil {
			continue
		}
		if prev, dup := first[s.name()]; dup {
			diags = append(diags, wrongAt(e.KeyRange, "Kernel key given twice",
				"%q is another spelling of %q, which is set at %s:%d:%d. Remove one of the two.",
				e.Key, prev.Key, prev.KeyRange.Filename, prev.KeyRange.Start.Line, prev.KeyRange.Start.Column))
			continue
		}
		first[s.name()] = e
		if want == nil {
			continue // unknown, or wrong
		}
		ws = append(ws, Wanted{
			Setting:     s,
			Want:        want,
			Range:       hcl.RangeBetween(e.KeyRange, e.Value.Range),
			OnError:     Warn,
			Unsupported: s.unsupported,
			Scope:       s.scope(),
		})
	}
	return ws, diags
}

// sysctlEntry checks one element. The setting is nil for a key that is wrong,
// want for a value that is wrong or unknown.
func sysctlEntry(e profile.Entry) (s *sysctl, want func(Value) (Value, error), diags hcl.Diagnostics) {
	if strings.ContainsAny(e.Key, "*?[") {
		diags = append(diags, wrongAt(e.KeyRange, "Wildcard in a kernel key",
			"%q would match several keys, which this version cannot do. Write each key; a for expression can make them: "+
				`{ for n in ["eth0", "eth1"] : "net.ipv4.conf.${n}.rp_filter" => 2 }.`, e.Key))
	} else if parts, err := host.SplitSysctl(e.Key); err != nil {
		diags = append(diags, wrongAt(e.KeyRange, "Invalid kernel key", "Kernel keys look like net.core.somaxconn, and %v.", err))
	} else {
		s = &sysctl{parts}
	}
	want, more := sysctlValue(e)
	return s, want, append(diags, more...)
}

func sysctlValue(e profile.Entry) (func(Value) (Value, error), hcl.Diagnostics) {
	v := e.Value
	wrong := func(format string, args ...any) (func(Value) (Value, error), hcl.Diagnostics) {
		return nil, hcl.Diagnostics{wrongAt(v.Range, "Invalid value of a kernel key", "%s: %s.", e.Key, fmt.Sprintf(format, args...))}
	}
	fixed := func(text string) (func(Value) (Value, error), hcl.Diagnostics) {
		return func(Value) (Value, error) { return Value{Text: text}, nil }, nil
	}
	if v.Value == cty.NilVal {
		return nil, nil
	}
	if v.ContainsMarked() {
		return nil, hcl.Diagnostics{sensitiveAt(v, "A kernel key", "everybody can read /proc/sys, and plan and journal hold the value")}
	}
	if n, ok := profile.AtLeast(v.Value); ok {
		if n.IsMarked() {
			return nil, hcl.Diagnostics{sensitiveAt(v, "A kernel key", "everybody can read /proc/sys, and plan and journal hold the value")}
		}
		if !n.IsKnown() {
			return nil, nil
		}
		least, err := wholeNumber(n)
		if err != nil {
			return wrong("at_least: %v", err)
		}
		return raiseTo(least), nil
	}
	switch t := v.Type(); {
	case !v.IsKnown():
		if t != cty.DynamicPseudoType && !t.IsPrimitiveType() {
			return wrong("a string, a number, a bool or at_least(n) is needed, not a value of type %s", t.FriendlyName())
		}
		return nil, nil
	case v.IsNull():
		return nil, nil // as if the key were left out
	case t == cty.Bool:
		if v.True() {
			return fixed("1")
		}
		return fixed("0")
	case t == cty.Number:
		n, err := wholeNumber(v.Value)
		if err != nil {
			return wrong("%v", err)
		}
		return fixed(n.String())
	case t == cty.String:
		text := v.AsString()
		if i := strings.IndexAny(text, "\n\r\x00"); i >= 0 {
			return wrong("the string holds %q, where the kernel stops reading (several numbers are separated by blanks; a heredoc ends in a newline: use <<- with trimspace(), or a quoted string)", text[i])
		}
		return fixed(text)
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
	if near := s.nearest(h); near != "" {
		return fmt.Errorf("sysctl %s: the kernel has no such key (did you mean %s?)", name, near)
	}
	for prefix, module := range map[string]string{
		"net.netfilter.nf_conntrack_": "nf_conntrack",
		"net.nf_conntrack_":           "nf_conntrack",
		"net.bridge.":                 "br_netfilter",
		"net.ipv4.vs.":                "ip_vs",
	} {
		if strings.HasPrefix(name, prefix) {
			return fmt.Errorf("sysctl %s: the kernel has no such key, as module %[2]s is not loaded (echo %[2]s >/etc/modules-load.d/%[2]s.conf; modprobe %[2]s)", name, module)
		}
	}
	if s.parts[0] == "net" && s.scope() == Machine {
		return fmt.Errorf("sysctl %s: the kernel has no such key (it is the whole machine's, and other network namespaces do not show it: run in the first one)", name)
	}
	return fmt.Errorf("sysctl %s: the kernel has no such key (is it misspelt, of another kernel version, or of a module or device that is not there yet?)", name)
}

// nearest returns a key that is there and differs from s in one part by a few
// letters, or nothing.
func (s *sysctl) nearest(h *host.Host) string {
	for i, part := range s.parts {
		names := h.SysctlNames(s.parts[:i])
		if slices.Contains(names, part) {
			continue
		}
		// A third of the letters is as much as a slip of the fingers changes.
		best, least := "", len(part)/3+1
		for _, n := range names {
			if d := levenshtein.Distance(part, n, nil); d < least {
				best, least = n, d
			}
		}
		if best == "" {
			return ""
		}
		near := &sysctl{slices.Concat(s.parts[:i], []string{best}, s.parts[i+1:])}
		if i+1 == len(s.parts) || slices.Contains(h.SysctlNames(near.parts[:len(near.parts)-1]), near.parts[len(near.parts)-1]) {
			return near.name()
		}
		return ""
	}
	return ""
}
