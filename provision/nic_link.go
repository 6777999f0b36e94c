package provision

import (
	"errors"
	"fmt"
	"regexp"
	"strconv"
	"strings"

	"github.com/hashicorp/hcl/v2"
	"github.com/zclconf/go-cty/cty"

	"github.com/nodeprov/nodeprov/provision/host"
	"github.com/nodeprov/nodeprov/provision/profile"
)

// minMTU is the smallest MTU in bytes that IPv4 works with (RFC 791).
const minMTU = 68

// Packet sizes in bytes: what every kernel has, and the most that BIG TCP takes
// (Linux's GSO_LEGACY_MAX_SIZE and GSO_MAX_SIZE).
const (
	legacySegment = 65536
	maxSegment    = 8 * 65535
)

// hardware is what settings ask of a device that only real ones have; tests put
// another in its place.
type hardware interface {
	Rings(nic string) (host.RingFacts, error)
	SetRings(nic string, r host.RingFacts) error
	Coalesce(nic string) (host.Coalesce, error)
	SetCoalesce(nic string, c host.Coalesce) error
	Channels(nic string) (host.ChannelFacts, error)
	RSS(nic string) ([]uint32, error)
	SetRSS(nic string, table []uint32) error
}

func liveHardware(h *host.Host) hardware { return h }

// counts are numbers with names in front, "rx 4 tx 4".
func parseCounts(what, text string) (map[string]int, error) {
	f := strings.Fields(text)
	counts := map[string]int{}
	for i := 0; i+1 < len(f); i += 2 {
		n, err := strconv.Atoi(f[i+1])
		if err != nil {
			return nil, fmt.Errorf("%s %q: %w", what, text, err)
		}
		counts[f[i]] = n
	}
	if len(f) == 0 || len(f) != 2*len(counts) {
		return nil, fmt.Errorf("%s %q: it has another form, as \"rx 4 tx 4\" has", what, text)
	}
	return counts, nil
}

// nicChannels are a device's numbers of queues: "combined 4", or "rx 4 tx 4" for one
// that counts them apart, or "combined 4 rx 0 tx 0" for one that can have both.
func nicChannels(nic string) *nicSetting {
	return &nicSetting{
		kind: "nic", nic: nic, name: "channels",
		read: func(h *host.Host) (string, error) {
			c, err := h.Channels(nic)
			if err != nil {
				return "", err
			}
			return channelsText(c), nil
		},
		write: func(h *host.Host, text string) error {
			n, err := parseCounts("channels", text)
			if err != nil {
				return err
			}
			return h.SetChannels(nic, host.ChannelFacts{Combined: n["combined"], RX: n["rx"], TX: n["tx"]})
		},
		inexact: func(live, want Value) string {
			l, err1 := parseCounts("", live.Text)
			w, err2 := parseCounts("", want.Text)
			if err1 == nil && err2 == nil && (w["combined"] < l["combined"] || w["rx"] < l["rx"] || w["tx"] < l["tx"]) {
				return "what XPS, RPS, RSS and queueing disciplines the queues have that go now is not put back"
			}
			return ""
		},
	}
}

func channelsText(c host.ChannelFacts) string {
	var parts []string
	if c.MaxCombined > 0 || c.Combined > 0 {
		parts = append(parts, fmt.Sprintf("combined %d", c.Combined))
	}
	if c.MaxRX > 0 || c.MaxTX > 0 || len(parts) == 0 {
		parts = append(parts, fmt.Sprintf("rx %d tx %d", c.RX, c.TX))
	}
	return strings.Join(parts, " ")
}

func (x *nicBlock) channels() {
	elements, v, ok := x.object("channels", "combined", "rx", "tx")
	if !ok || len(elements) == 0 {
		return
	}
	bestEffort := x.together("channels", v, elements)
	asked := map[string]int{}
	for _, k := range sortedKeys(elements) {
		if asked[k], ok = x.count("channels."+k, elements[k]); !ok {
			return
		}
	}
	if _, combined := asked["combined"]; combined && len(asked) > 1 {
		x.wrong(elements["combined"].Range, "Both ways to count channels", "combined channels receive and send, and rx and tx only do one: write combined, or rx and tx.")
		return
	}
	x.step(func(n host.NICFacts) {
		want, limits := wantChannels(asked, n.Channels)
		for _, k := range sortedKeys(limits) {
			if asked[k] > limits[k] && n.Channels != (host.ChannelFacts{}) && !bestEffort {
				x.wrong(elements[k].Range, "More channels than the device has", `%s has at most %d, not %d. Write that, or "max".`, nicText(n), limits[k], asked[k])
				return
			}
		}
		x.want(nicChannels(n.Name), v.Range, bestEffort, want)
	})
}

// wantChannels fits what is asked for (-1 is the most) to the way in which the
// device counts, and tells the most of each.
func wantChannels(asked map[string]int, has host.ChannelFacts) (want func(Value) (Value, error), limits map[string]int) {
	separate := has.MaxRX > 0 || has.MaxTX > 0
	limits = map[string]int{}
	for k := range asked {
		switch {
		case k == "rx" && separate:
			limits[k] = has.MaxRX
		case k == "tx" && separate:
			limits[k] = has.MaxTX
		case k == "combined" && has.MaxCombined == 0:
			limits[k] = max(has.MaxRX, has.MaxTX)
		default:
			limits[k] = has.MaxCombined
		}
	}
	number := func(k string, most int) int {
		if asked[k] < 0 || asked[k] > most && k == "combined" && has.MaxCombined == 0 {
			return most
		}
		return asked[k]
	}
	return func(live Value) (Value, error) {
		c := has
		if n, err := parseCounts("channels", live.Text); err == nil {
			c.Combined, c.RX, c.TX = n["combined"], n["rx"], n["tx"]
		}
		_, combined := asked["combined"]
		switch {
		case combined && has.MaxCombined > 0:
			c.Combined, c.RX, c.TX = number("combined", has.MaxCombined), 0, 0
		case combined:
			c.RX, c.TX = number("combined", has.MaxRX), number("combined", has.MaxTX)
		case separate:
			c.Combined = 0
			if _, ok := asked["rx"]; ok {
				c.RX = number("rx", has.MaxRX)
			}
			if _, ok := asked["tx"]; ok {
				c.TX = number("tx", has.MaxTX)
			}
		default:
			c.Combined = max(number("rx", has.MaxCombined), number("tx", has.MaxCombined))
		}
		return Value{Text: channelsText(c)}, nil
	}, limits
}

// nicRings are the entries of a device's rings, "rx 1024 tx 1024".
func nicRings(nic string, hw func(*host.Host) hardware) *nicSetting {
	return &nicSetting{
		kind: "nic", nic: nic, name: "rings",
		read: func(h *host.Host) (string, error) {
			r, err := hw(h).Rings(nic)
			if err != nil {
				return "", err
			}
			// Software devices may answer with nothing but zeros.
			if r.MaxRX == 0 && r.MaxTX == 0 {
				return "", notHeref("rings of %s: the driver has none", nic)
			}
			return ringsText(r), nil
		},
		write: func(h *host.Host, text string) error {
			n, err := parseCounts("rings", text)
			if err != nil {
				return err
			}
			return hw(h).SetRings(nic, host.RingFacts{RX: n["rx"], TX: n["tx"]})
		},
	}
}

func ringsText(r host.RingFacts) string { return fmt.Sprintf("rx %d tx %d", r.RX, r.TX) }

func (x *nicBlock) rings() {
	elements, v, ok := x.object("rings", "rx", "tx")
	if !ok || len(elements) == 0 {
		return
	}
	bestEffort := x.together("rings", v, elements)
	asked := map[string]int{}
	for _, k := range sortedKeys(elements) {
		if asked[k], ok = x.count("rings."+k, elements[k]); !ok {
			return
		}
	}
	x.step(func(n host.NICFacts) {
		most := map[string]int{"rx": n.Rings.MaxRX, "tx": n.Rings.MaxTX}
		for _, k := range sortedKeys(asked) {
			if asked[k] > most[k] && n.Rings != (host.RingFacts{}) && !bestEffort {
				x.wrong(elements[k].Range, "Larger rings than the device has", `%s has at most %d entries, not %d. Write that, or "max".`, nicText(n), most[k], asked[k])
				return
			}
		}
		x.want(nicRings(n.Name, liveHardware), v.Range, bestEffort, func(live Value) (Value, error) {
			r := n.Rings
			if c, err := parseCounts("rings", live.Text); err == nil {
				r.RX, r.TX = c["rx"], c["tx"]
			}
			for k, to := range map[string]*int{"rx": &r.RX, "tx": &r.TX} {
				if a, ok := asked[k]; ok && a < 0 {
					*to = most[k]
				} else if ok {
					*to = a
				}
			}
			return Value{Text: ringsText(r)}, nil
		})
	})
}

// nicCoalesce is one parameter of a device's interrupt moderation: a number, or "on"
// or "off" for the adaptive ones. A driver tells 0 for those that it does not have.
func nicCoalesce(nic, name string, hw func(*host.Host) hardware) *nicSetting {
	flag := strings.HasPrefix(name, "adaptive_")
	return &nicSetting{
		kind: "nic", nic: nic, name: "coalesce/" + name,
		read: func(h *host.Host) (string, error) {
			c, err := hw(h).Coalesce(nic)
			if err != nil {
				return "", err
			}
			n := *coalesceField(&c, name)
			if flag {
				return onOff(n != 0), nil
			}
			return strconv.FormatUint(uint64(n), 10), nil
		},
		write: func(h *host.Host, text string) error {
			c, err := hw(h).Coalesce(nic)
			if err != nil {
				return err
			}
			var n uint64
			if flag {
				n = map[string]uint64{"on": 1}[text]
			} else if n, err = strconv.ParseUint(text, 10, 32); err != nil {
				return fmt.Errorf("coalesce %s of %s: %w", name, nic, err)
			}
			*coalesceField(&c, name) = uint32(n)
			err = hw(h).SetCoalesce(nic, c)
			if errors.Is(err, errors.ErrUnsupported) {
				return fmt.Errorf("%w; it has others, but not %s", err, name)
			}
			return err
		},
	}
}

// coalesceField is nil for a name that there is not.
func coalesceField(c *host.Coalesce, name string) *uint32 { return host.CoalesceFields(c)[name] }

func onOff(on bool) string {
	if on {
		return "on"
	}
	return "off"
}

func (x *nicBlock) coalesce() {
	// Each element is a setting of its own, whatever is wrong with others.
	elements, v, _ := x.object("coalesce", sortedKeys(host.CoalesceFields(&host.Coalesce{}))...)
	for _, k := range sortedKeys(elements) {
		e := elements[k]
		var text string
		if strings.HasPrefix(k, "adaptive_") {
			on, ok := x.boolean("coalesce."+k, e)
			if !ok {
				continue
			}
			text = onOff(on)
		} else {
			n, ok := x.whole("coalesce."+k, e, 0, 1<<31-1)
			if !ok {
				continue
			}
			text = strconv.Itoa(n)
		}
		x.step(func(n host.NICFacts) {
			x.want(nicCoalesce(n.Name, k, liveHardware), e.Range, v.BestEffort || e.BestEffort, fixed(Value{Text: text}))
		})
	}
}

// featureName is what all of the kernel's names look like.
var featureName = regexp.MustCompile(`^[a-z][a-z0-9-]{1,31}$`)

// nicFeature is one of a device's features: "on" or "off".
func nicFeature(nic, name string) *nicSetting {
	return &nicSetting{
		kind: "nic", nic: nic, name: "feature/" + name,
		read: func(h *host.Host) (string, error) {
			f, err := readFeature(h, nic, name)
			return onOff(f.On), err
		},
		write: func(h *host.Host, text string) error { return h.SetFeature(nic, name, text == "on") },
	}
}

// wantFeature is a nicFeature that is absent where the device has it fixed the other
// way: so what is impossible is known before anything is written.
func wantFeature(nic, name string, on bool) *nicSetting {
	s := nicFeature(nic, name)
	s.read = func(h *host.Host) (string, error) {
		f, err := readFeature(h, nic, name)
		if err == nil && f.Fixed && f.On != on {
			err = notHeref("feature %s of %s: it is %s and fixed on this device", name, nic, onOff(f.On))
		}
		return onOff(f.On), err
	}
	return s
}

func readFeature(h *host.Host, nic, name string) (host.Feature, error) {
	fs, err := h.Features(nic)
	if err != nil {
		return host.Feature{}, err
	}
	f, ok := fs[name]
	if !ok {
		hint := ""
		if near := nearestName(name, sortedKeys(fs)); near != "" {
			hint = fmt.Sprintf(" (did you mean %s?)", near)
		}
		return host.Feature{}, notHeref("feature %s of %s: this kernel has no such feature%s", name, nic, hint)
	}
	return f, nil
}

// featureAliases are the names that ethtool(8) has for one or several of the kernel's
// features.
func featureAliases() map[string]string {
	m := map[string]string{}
	for kernel, names := range map[string]string{
		"rx-checksum":             "rx rx-checksumming",
		"tx-checksum-ip-generic":  "tx tx-checksumming",
		"tx-scatter-gather":       "sg scatter-gather",
		"tx-tcp-segmentation":     "tso tcp-segmentation-offload",
		"tx-generic-segmentation": "gso generic-segmentation-offload",
		"rx-gro":                  "gro generic-receive-offload",
		"rx-lro":                  "lro large-receive-offload",
		"rx-vlan-hw-parse":        "rxvlan rx-vlan-offload",
		"tx-vlan-hw-insert":       "txvlan tx-vlan-offload",
		"rx-ntuple-filter":        "ntuple ntuple-filters",
		"rx-hashing":              "rxhash receive-hashing",
	} {
		for n := range strings.FieldsSeq(names) {
			m[n] = kernel
		}
	}
	return m
}

func (x *nicBlock) features() {
	v, ok := given(x.b, "features")
	if !ok || !x.usable("features", v) {
		return
	}
	if ty := v.Type(); !ty.IsObjectType() && !ty.IsMapType() {
		x.wrong(v.Range, "Invalid features", `An object is needed, as in features = { "rx-gro" = true }, not a value of type %s.`, ty.FriendlyName())
		return
	}
	aliases := featureAliases()
	for _, e := range v.Entries {
		if kernel, ok := aliases[e.Key]; ok {
			x.wrong(e.KeyRange, "Unknown feature", "%q is ethtool's name for one or several features. The kernel's is %q; `ethtool -k` shows them all.", e.Key, kernel)
			continue
		}
		if !featureName.MatchString(e.Key) {
			x.wrong(e.KeyRange, "Unknown feature", "%q is no name of a feature. They look like \"rx-gro\"; `ethtool -k` shows them.", e.Key)
			continue
		}
		if !x.usable("features."+e.Key, e.Value) {
			continue
		}
		on, ok := x.boolean("feature "+e.Key, e.Value)
		if !ok {
			continue
		}
		bestEffort := v.BestEffort || e.Value.BestEffort
		x.step(func(n host.NICFacts) {
			if x.t.Host != nil && x.t.Host.Live() && !bestEffort {
				fs, err := x.t.Host.Features(n.Name)
				if _, known := fs[e.Key]; err == nil && !known {
					x.unknownFeature(e, sortedKeys(fs))
					return
				}
			}
			x.want(wantFeature(n.Name, e.Key, on), hcl.RangeBetween(e.KeyRange, e.Value.Range), bestEffort, fixed(Value{Text: onOff(on)}))
		})
	}
}

func (x *nicBlock) unknownFeature(e profile.Entry, known []string) {
	hint := "`ethtool -k` shows what there is; best_effort() tolerates that a kernel has not."
	if near := nearestName(e.Key, known); near != "" {
		hint = fmt.Sprintf("Did you mean %q?", near)
	}
	x.wrong(e.KeyRange, "Unknown feature", "This kernel has no feature %q. %s", e.Key, hint)
}

// nicMTU is the MTU of a device. Its value is the number of bytes in decimal.
func nicMTU(nic string) *nicSetting {
	return linkSetting(nic, "mtu", func(l host.Link) int { return l.MTU }, (*host.Host).SetMTU)
}

func nicTxQueueLen(nic string) *nicSetting {
	return linkSetting(nic, "txqueuelen", func(l host.Link) int { return l.TxQueueLen }, (*host.Host).SetTxQueueLen)
}

func linkSetting(nic, name string, get func(host.Link) int, set func(*host.Host, string, int) error) *nicSetting {
	return &nicSetting{
		kind: "nic", nic: nic, name: name,
		read: func(h *host.Host) (string, error) {
			l, err := h.Link(nic)
			return strconv.Itoa(get(l)), err
		},
		write: func(h *host.Host, text string) error {
			n, err := strconv.Atoi(text)
			if err != nil {
				return fmt.Errorf("link %s: %s: %w", nic, name, err)
			}
			return set(h, nic, n)
		},
	}
}

// nicAttr is a number in a file of the device's directory in /sys.
func nicAttr(nic, name string) *nicSetting {
	return &nicSetting{
		kind: "nic", nic: nic, name: name,
		read:  func(h *host.Host) (string, error) { return h.LinkAttr(nic, name) },
		write: func(h *host.Host, text string) error { return h.SetLinkAttr(nic, name, text) },
	}
}

func (x *nicBlock) mtu() {
	v, ok := x.value("mtu")
	if !ok {
		return
	}
	if v.Type() != cty.Number {
		x.wrong(v.Range, "Invalid mtu", "A number of bytes is needed, not a value of type %s.", v.Type().FriendlyName())
		return
	}
	n, acc := v.AsBigFloat().Int64()
	if acc != 0 || n < minMTU || n > host.MaxMTU {
		x.wrong(v.Range, "Invalid mtu", "An MTU is a whole number of bytes from %d to %d, and %s is not.", minMTU, host.MaxMTU, v.AsBigFloat().Text('g', 12))
		return
	}
	mtu := int(n)
	x.step(func(n host.NICFacts) {
		if (mtu < n.MinMTU || mtu > n.MaxMTU) && !v.BestEffort {
			x.wrong(v.Range, "MTU out of the device's range", "%s takes an MTU of %d to %d, not %d.", nicText(n), n.MinMTU, n.MaxMTU, mtu)
			return
		}
		x.want(nicMTU(n.Name), v.Range, v.BestEffort, fixed(Value{Text: strconv.Itoa(mtu)}))
	})
}

// nicBigTCP is how large packets of an IP version may be inside of the host, made
// (gso) and merged (gro): "gso 196608 gro 196608".
func nicBigTCP(nic string, version int) *nicSetting {
	return &nicSetting{
		kind: "nic", nic: nic, name: "big_tcp/ipv" + strconv.Itoa(version),
		read: func(h *host.Host) (string, error) {
			l, err := h.Link(nic)
			if err != nil {
				return "", err
			}
			gso, gro, since := l.GSO, l.GRO, "5.19"
			if version == 4 {
				gso, gro, since = l.GSOv4, l.GROv4, "6.3"
			}
			if l.TSOMax == 0 || gso == 0 {
				return "", notHeref("BIG TCP for IPv%d on %s: the kernel is too old (Linux %s has it)", version, nic, since)
			}
			return bigTCPText(gso, gro), nil
		},
		write: func(h *host.Host, text string) error {
			n, err := parseCounts("packet sizes", text)
			if err != nil {
				return err
			}
			if version == 4 {
				return h.SetSegments(nic, host.Segments{GSOv4: n["gso"], GROv4: n["gro"]})
			}
			return h.SetSegments(nic, host.Segments{GSO: n["gso"], GRO: n["gro"]}) // IPv4's keep their values
		},
	}
}

func bigTCPText(gso, gro int) string { return fmt.Sprintf("gso %d gro %d", gso, gro) }

func (x *nicBlock) bigTCP() {
	elements, v, ok := x.object("big_tcp", "ipv6", "ipv4", "clamp")
	if !ok {
		return
	}
	clamp := false
	if e, ok := elements["clamp"]; ok {
		if clamp, ok = x.boolean("big_tcp.clamp", e); !ok {
			return
		}
	}
	for _, family := range []struct {
		version int
		since   [2]int
	}{{6, [2]int{5, 19}}, {4, [2]int{6, 3}}} {
		name := fmt.Sprintf("ipv%d", family.version)
		e, ok := elements[name]
		if !ok {
			continue
		}
		asked, ok := x.whole("big_tcp."+name, e, legacySegment, maxSegment)
		if !ok {
			continue
		}
		bestEffort := v.BestEffort || e.BestEffort
		if x.t.Facts != nil && kernelBefore(x.t.Facts.Kernel.Version, family.since) && !bestEffort {
			x.wrong(e.Range, "Kernel too old", "BIG TCP for IPv%d needs Linux %d.%d, and this is %s. Leave it out, or write best_effort(%d).",
				family.version, family.since[0], family.since[1], x.t.Facts.Kernel.Release, asked)
			continue
		}
		x.step(func(n host.NICFacts) {
			size := asked
			switch {
			case n.TSOMaxSize == 0 || asked <= n.TSOMaxSize:
			case clamp:
				if size = n.TSOMaxSize; size <= legacySegment && family.version == firstBigTCP(elements) {
					x.diags = append(x.diags, &hcl.Diagnostic{
						Severity: hcl.DiagWarning,
						Summary:  "No BIG TCP on this device",
						Detail:   fmt.Sprintf("%s segments packets of at most %d bytes, so big_tcp is clamped to none.", nicText(n), size),
						Subject:  e.Range.Ptr(),
					})
				}
			case !bestEffort:
				x.wrong(e.Range, "Larger packets than the device segments", "%s segments packets of at most %d bytes, not %d. Write clamp = true to have what it can, or best_effort(%[3]d).",
					nicText(n), n.TSOMaxSize, asked)
				return
			}
			x.want(nicBigTCP(n.Name, family.version), e.Range, bestEffort,
				// Merging more than 64 KiB would only have it cut again; less is nobody's wish.
				fixed(Value{Text: bigTCPText(size, max(size, legacySegment))}))
		})
	}
}

// firstBigTCP is the IP version whose element tells what is said once for both.
func firstBigTCP(elements map[string]profile.Value) int {
	if _, ok := elements["ipv6"]; ok {
		return 6
	}
	return 4
}

// kernelBefore compares a version as "6.1.0"; one that is unknown is no older.
func kernelBefore(version string, than [2]int) bool {
	var major, minor int
	if _, err := fmt.Sscanf(version, "%d.%d", &major, &minor); err != nil {
		return false
	}
	return major < than[0] || major == than[0] && minor < than[1]
}
