package provision

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"net"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/agext/levenshtein"
	"github.com/hashicorp/hcl/v2"
	"github.com/zclconf/go-cty/cty"

	"github.com/nodeprov/nodeprov/provision/host"
	"github.com/nodeprov/nodeprov/provision/profile"
)

// nicKind sets network devices, as links. What a device's queues and its queueing
// disciplines have are kinds of their own (queueKind, qdiscKind), though the same
// construct asks for them: an apply reads a kind before it writes any of it, and
// other channels are other queues, so those must be read after channels were
// written.
func nicKind() Kind {
	object := func(name, doc string) profile.Attr {
		return profile.Attr{Name: name, Type: cty.DynamicPseudoType, BestEffort: true, Doc: doc}
	}
	return Kind{
		Name: "nic",
		Schema: &profile.Schema{
			Type:    "nic",
			Label:   "label",
			ForEach: true,
			Doc: "Settings of the network devices that match: exactly one of name, driver, mac and pci is needed. The label is for you: it " +
				"names the block and matches nothing. What is left out is left alone. Settings are made in the order that they have here, " +
				"as channels decide what queues there are. Where best_effort(v) stands for a value, a device, driver or kernel that cannot have it is reported and " +
				"is no failure.",
			Attrs: []profile.Attr{
				{Name: "name", Type: cty.String, Doc: `Name of the device, as in "eth0", or of several, as in "ens*"; the star is the only wildcard.`},
				{Name: "driver", Type: cty.String, Doc: "Driver of the devices, as in virtio_net; nodeprov facts shows it."},
				{Name: "mac", Type: cty.String, Doc: "Hardware address of the device. VLANs, bonds and bridges that have the same one are not meant, unless no hardware has it."},
				{Name: "pci", Type: cty.String, Doc: `PCI address of the device, as in "0000:00:03.0"; for virtio, of what it sits on.`},
				{Name: "on_missing", Type: cty.String, Default: cty.StringVal("fail"), Doc: `What to do when no device matches: "fail" refuses the profile, "skip" goes on with a warning.`},
				{Name: "on_error", Type: cty.String, Default: cty.StringVal("warn"), Doc: `What a failure to set something does: "warn" goes on and the profile counts as partly applied, "fail" stops.`},
				object("channels", `Numbers of queues: { combined = N }, or { rx = N, tx = N }; "max" is as many as the device has. A device that counts the other way gets what comes to the same. Most drivers reset the device.`),
				object("rings", `Entries of the rings of each queue: { rx = N, tx = N }; "max" is as many as the device has. Many drivers take powers of two only, and reset the device.`),
				object("coalesce", "Interrupt moderation by ethtool's names, with underscores: adaptive_rx and adaptive_tx (true or false), rx_usecs, tx_usecs (microseconds), "+
					"rx_frames, tx_frames, and the others. Elements may be best_effort(). With adaptive moderation, many drivers choose the times themselves: do not set both."),
				object("features", `Features (offloads) to switch, by the kernel's names: { "rx-gro" = true, "rx-gro-hw" = best_effort(true) }; ethtool -k shows them.`),
				{Name: "mtu", Type: cty.Number, BestEffort: true, Doc: "MTU in bytes, 68 to 65535, and within what the device takes. Setting it interrupts the link on most drivers."},
				{Name: "txqueuelen", Type: cty.Number, BestEffort: true, Doc: "Length of the transmit queue in packets, 0 to 1000000, for queueing disciplines without a limit of their own."},
				object("big_tcp", "Packets larger than 64 KiB inside of the host (BIG TCP), in bytes, 65536 (none) to 524280: { ipv6 = N, ipv4 = N, clamp = true }. "+
					"196608 is usual. IPv6 needs Linux 5.19, IPv4 6.3, and the device must segment as much; with clamp, a device that segments less gets what it can. The MTU stays as it is."),
				{Name: "gro_flush_timeout", Type: cty.Number, BestEffort: true, Doc: "Nanoseconds that received packets may wait to be merged with others; 0 for none."},
				{Name: "napi_defer_hard_irqs", Type: cty.Number, BestEffort: true, Doc: "How often a queue is polled in vain, each time after gro_flush_timeout, before its interrupt is let in again; 0 for never."},
				object("rss", "Which queues the device's hash spreads received packets to: { queues = N } is equally to the first N, { weights = [3, 1] } in these proportions to the first ones."),
				object("irq", `CPUs for the interrupts of the queues: { policy = "spread", cpus = CPULIST, numa = "local" }. Policy "spread" gives each queue one CPU, those of the device's NUMA node first and `+
					`second threads of a core last; "list" goes through the list as it is written; "single" takes one CPU for all. cpus are all that are online and not isolated (isolcpus=, nohz_full=), if left out. With numa = "local" (the default) only CPUs of the device's node `+
					`are taken, if cpus has some; with "any" those come first. Some drivers leave this to the kernel, which then refuses.`),
				{Name: "xps", Type: cty.String, BestEffort: true, Doc: `Which CPUs send through which transmit queue: "per-queue" deals them out, beginning with those that irq gives the queues, "off" leaves it to a hash, and a cpulist has all its CPUs use every queue. A device with one queue has nothing to choose.`},
				{Name: "rps", Type: cty.String, BestEffort: true, Doc: `Which CPUs go on with received packets, by a hash: "off", "local" (the device's NUMA node), "all", or a cpulist. Isolated CPUs do not. Useful where a device has fewer queues than there are CPUs.`},
				{Name: "rfs", Type: cty.Number, BestEffort: true, Doc: "Flows that each receive queue steers to the CPU where they are read, a power of two to 1048576, or 0. The sysctl net.core.rps_sock_flow_entries has to be at least the sum."},
			},
			Blocks: []profile.Schema{qdiscSchema()},
		},
		Wanted:   nicWanted,
		Open:     openNIC,
		Scope:    NetNS,
		Lifetime: Runtime,
		Effect:   "now",
		Device:   true,
	}
}

// nicSetting is one property of a network device. It is absent for a device that
// is not there, and for a property that this device, driver or kernel does not
// have.
type nicSetting struct {
	// kind and name make the key "KIND/DEVICE/NAME"; without a name "KIND/DEVICE".
	kind, nic, name string
	// read and write have the text of the value. Their errors are fs.ErrNotExist
	// and errors.ErrUnsupported for what is absent.
	read  func(*host.Host) (string, error)
	write func(*host.Host, string) error
	// same is Comparer's, of texts that differ; nil where those never are the same.
	same func(live, want string) bool
	// inexact is Inexacter's; nil for what can always be restored.
	inexact func(live, want Value) string
}

func (s *nicSetting) Key() string {
	if s.name == "" {
		return s.kind + "/" + s.nic
	}
	return s.kind + "/" + s.nic + "/" + s.name
}

func (s *nicSetting) Device() string { return s.nic }

func (s *nicSetting) Read(_ context.Context, h *host.Host) (Value, error) {
	text, err := s.read(h)
	switch {
	case errors.Is(err, fs.ErrNotExist), errors.Is(err, errors.ErrUnsupported):
		return Value{Absent: true}, nil
	case err != nil:
		return Value{}, err
	}
	return Value{Text: text}, nil
}

func (s *nicSetting) Write(_ context.Context, h *host.Host, v Value) error {
	if v.Absent {
		return fmt.Errorf("link %s: its %s cannot be absent (nodeprov removes no device)", s.nic, s.what())
	}
	return s.write(h, v.Text)
}

// Same: what is put back may have been there when the device had other queues, and
// is compared as far as it goes.
func (s *nicSetting) Same(live, want Value) bool {
	return live == want || !live.Absent && !want.Absent && s.same != nil && s.same(live.Text, want.Text)
}

func (s *nicSetting) Inexact(live, want Value) string {
	if s.inexact == nil {
		return ""
	}
	return s.inexact(live, want)
}

func (s *nicSetting) what() string {
	if s.name == "" {
		return s.kind
	}
	return s.name
}

// unsupported is the reason for an absent value.
func (s *nicSetting) unsupported(h *host.Host) error {
	_, err := s.read(h)
	if errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("link %s: the device has vanished (plug it in, or say on_missing = \"skip\")", s.nic)
	}
	return err // nil: it has come back
}

// notHere is the error of a property that this device, driver or kernel does not
// have.
type notHere string

func (e notHere) Error() string        { return string(e) }
func (e notHere) Is(target error) bool { return target == errors.ErrUnsupported }

func notHeref(format string, args ...any) error { return notHere(fmt.Sprintf(format, args...)) }

func openNIC(name string) (Setting, error) {
	nic, property, _ := strings.Cut(name, "/")
	if err := checkNICName(nic); err != nil {
		return nil, fmt.Errorf("nic: %q: the device's name %w", name, err)
	}
	var s *nicSetting
	group, element, nested := strings.Cut(property, "/")
	switch {
	case property == "channels":
		s = nicChannels(nic)
	case property == "rings":
		s = nicRings(nic, liveHardware)
	case group == "coalesce" && nested && coalesceField(&host.Coalesce{}, element) != nil:
		s = nicCoalesce(nic, element, liveHardware)
	case group == "feature" && nested && featureName.MatchString(element):
		s = nicFeature(nic, element)
	case property == "mtu":
		s = nicMTU(nic)
	case property == "txqueuelen":
		s = nicTxQueueLen(nic)
	case property == "big_tcp/ipv6":
		s = nicBigTCP(nic, 6)
	case property == "big_tcp/ipv4":
		s = nicBigTCP(nic, 4)
	case property == "gro_flush_timeout", property == "napi_defer_hard_irqs":
		s = nicAttr(nic, property)
	default:
		return nil, fmt.Errorf("nic: %q is no setting of a device (as NAME/mtu is)", name)
	}
	return s, nil
}

func nicWanted(b profile.Block, t Target) ([]Wanted, hcl.Diagnostics) {
	x := &nicBlock{b: b, t: t}
	onError, diags := oneOf(b, "on_error", "warn", "fail")
	onMissing, more := oneOf(b, "on_missing", "fail", "skip")
	x.onError, x.diags = Class(onError), slices.Concat(diags, more)

	// In the order in which a device's settings are made. Other kinds' are sorted
	// behind the link's by their keys.
	x.channels()
	x.rings()
	x.coalesce()
	x.features()
	x.mtu()
	x.number("txqueuelen", 0, 1e6, nicTxQueueLen)
	x.bigTCP()
	x.number("gro_flush_timeout", 0, 1<<53, func(nic string) *nicSetting { return nicAttr(nic, "gro_flush_timeout") })
	x.number("napi_defer_hard_irqs", 0, 1<<31-1, func(nic string) *nicSetting { return nicAttr(nic, "napi_defer_hard_irqs") })
	x.rss()
	x.irq()
	x.xps()
	x.rps()
	x.rfs()
	x.qdisc()

	match, what := x.match()
	if x.diags.HasErrors() || match == nil || t.Facts == nil {
		return nil, x.diags
	}
	nics := match(t.Facts.NICs)
	if len(nics) == 0 {
		d := wrongAt(what.rng, "No such network device", "No device has %s. %s", what.text, nicList(t.Facts))
		loopback := what.text == `the name "lo"`
		if loopback {
			d = wrongAt(what.rng, "Loopback is left alone", "nodeprov sets no loopback device. %s", nicList(t.Facts))
		}
		switch {
		case onMissing == "skip":
			d.Severity = hcl.DiagWarning
			d.Detail += ` The block is skipped, as its on_missing says.`
		case t.Booting && !loopback:
			d.Severity = hcl.DiagWarning
			d.Detail += ` The machine comes up: it is set when it appears.`
		default:
			d.Detail += ` Correct it, or say on_missing = "skip" to go on without.`
		}
		return nil, append(x.diags, d)
	}
	for _, n := range nics {
		for _, step := range x.steps {
			step(n)
		}
	}
	return x.ws, x.diags
}

// nicBlock is one nic block on its way to settings. Its methods, one for each
// attribute, check what needs no device, and add a step that makes the settings of
// one device.
type nicBlock struct {
	b       profile.Block
	t       Target
	onError Class
	diags   hcl.Diagnostics
	steps   []func(host.NICFacts)
	ws      []Wanted
	// irqOrder are the CPUs that a device's queues get, in turn; nil where irq is
	// left out.
	irqOrder func(host.NICFacts) []int
}

func (x *nicBlock) wrong(rng hcl.Range, summary, format string, args ...any) {
	x.diags = append(x.diags, wrongAt(rng, summary, format, args...))
}

// step is skipped for a block that is wrong, or whose devices are unknown.
func (x *nicBlock) step(f func(host.NICFacts)) { x.steps = append(x.steps, f) }

// want asks for a setting; v is where the profile does.
func (x *nicBlock) want(s *nicSetting, rng hcl.Range, bestEffort bool, want func(Value) (Value, error)) {
	w := Wanted{Setting: s, Want: want, Range: rng, OnError: x.onError, Unsupported: s.unsupported}
	if bestEffort {
		w.OnError = Tolerate
	} else {
		w.Unsupported = func(h *host.Host) error {
			err := s.unsupported(h)
			if errors.Is(err, errors.ErrUnsupported) {
				return fmt.Errorf("%w; leave it out for this device, or write best_effort()", err)
			}
			return err
		}
	}
	x.ws = append(x.ws, w)
}

// value returns an attribute that is given, known and not secret.
func (x *nicBlock) value(name string) (profile.Value, bool) {
	v, ok := given(x.b, name)
	if !ok || !x.usable(name, v) {
		return v, false
	}
	return v, true
}

func (x *nicBlock) usable(what string, v profile.Value) bool {
	if v.Value == cty.NilVal {
		return false
	}
	if v.ContainsMarked() {
		x.diags = append(x.diags, sensitiveAt(v, what, "everybody can read it from the device, and plan and journal hold it"))
		return false
	}
	return v.IsKnown() && !v.IsNull()
}

// object returns the elements, but those that are null, of an attribute that is an
// object with these elements at most. It is not ok where one is wrong or unknown.
func (x *nicBlock) object(name string, known ...string) (elements map[string]profile.Value, v profile.Value, ok bool) {
	v, ok = given(x.b, name)
	if !ok || !x.usable(name, v) {
		return nil, v, false
	}
	if ty := v.Type(); !ty.IsObjectType() && !ty.IsMapType() {
		x.wrong(v.Range, "Invalid "+name, "An object is needed, as in %s = { %s = … }, not a value of type %s.", name, known[0], ty.FriendlyName())
		return nil, v, false
	}
	elements = map[string]profile.Value{}
	ok = true
	for _, e := range v.Entries {
		if !slices.Contains(known, e.Key) {
			hint := " Known are " + strings.Join(known, ", ") + "."
			if near := nearestName(e.Key, known); near != "" {
				hint = fmt.Sprintf(" Did you mean %q?", near)
			}
			x.wrong(e.KeyRange, "Unknown element of "+name, "%s has no %q.%s", name, e.Key, hint)
			ok = false
			continue
		}
		if e.Value.Value == cty.NilVal || e.Value.IsKnown() && !e.Value.IsMarked() && e.Value.IsNull() {
			continue
		}
		if !x.usable(name+"."+e.Key, e.Value) {
			ok = false
			continue
		}
		elements[e.Key] = e.Value
	}
	return elements, v, ok
}

// whole reads a whole number.
func (x *nicBlock) whole(what string, v profile.Value, least, most int) (int, bool) {
	if v.Type() == cty.Number {
		if n, acc := v.AsBigFloat().Int64(); acc == 0 && n >= int64(least) && n <= int64(most) {
			return int(n), true
		}
		x.wrong(v.Range, "Invalid "+what, "A whole number from %d to %d is needed, and %s is not.", least, most, v.AsBigFloat().Text('f', -1))
		return 0, false
	}
	x.wrong(v.Range, "Invalid "+what, "A whole number from %d to %d is needed, not a value of type %s.", least, most, v.Type().FriendlyName())
	return 0, false
}

// count is a number of at least 1, or -1 for "max".
func (x *nicBlock) count(what string, v profile.Value) (int, bool) {
	if v.Type() == cty.String {
		if v.AsString() == "max" {
			return -1, true
		}
		x.wrong(v.Range, "Invalid "+what, `A whole number or "max" is needed, and %q is neither.`, v.AsString())
		return 0, false
	}
	return x.whole(what, v, 1, 1<<20)
}

func (x *nicBlock) boolean(what string, v profile.Value) (bool, bool) {
	if v.Type() != cty.Bool {
		x.wrong(v.Range, "Invalid "+what, "true or false is needed, not a value of type %s.", v.Type().FriendlyName())
		return false, false
	}
	return v.True(), true
}

// number is an attribute that is a whole number and a setting of its own.
func (x *nicBlock) number(name string, least, most int, open func(nic string) *nicSetting) {
	v, ok := x.value(name)
	if !ok {
		return
	}
	n, ok := x.whole(name, v, least, most)
	if !ok {
		return
	}
	x.step(func(nic host.NICFacts) {
		x.want(open(nic.Name), v.Range, v.BestEffort, fixed(Value{Text: strconv.Itoa(n)}))
	})
}

// together tells whether an object that is one setting is of best effort: as a
// whole, or in all its elements.
func (x *nicBlock) together(name string, v profile.Value, elements map[string]profile.Value) bool {
	n := 0
	for _, e := range elements {
		if e.BestEffort {
			n++
		}
	}
	if n > 0 && n < len(elements) && !v.BestEffort {
		x.wrong(v.Range, "Best effort for a part", "The elements of %s are set together, so best_effort() is for all of them: %[1]s = best_effort({ … }).", name)
	}
	return v.BestEffort || n > 0
}

// nearestName is the name that a misspelt one is likely to mean, or empty.
func nearestName(given string, known []string) string {
	// A third of the letters is as much as a slip of the fingers changes.
	best, least := "", len(given)/3+1
	for _, n := range known {
		if d := levenshtein.Distance(given, n, nil); d < least {
			best, least = n, d
		}
	}
	return best
}

// criterion is what a nic block matches by, in words, and its place.
type criterion struct {
	text string
	rng  hcl.Range
}

// match returns the devices that the block is about; the func is nil where that is
// unknown or wrong.
func (x *nicBlock) match() (func([]host.NICFacts) []host.NICFacts, criterion) {
	attrs := []string{"name", "driver", "mac", "pci"}
	var by []string
	for _, a := range attrs {
		if _, ok := given(x.b, a); ok {
			by = append(by, a)
		}
	}
	if len(by) == 0 {
		x.wrong(x.b.Range, "No device named", `A nic block needs what it matches by, one of name = "eth0", driver = "virtio_net", mac = "52:54:00:12:34:56" and pci = "0000:00:03.0".`)
		return nil, criterion{}
	}
	if len(by) > 1 {
		x.wrong(x.b.Attrs[by[1]].Range, "Both "+by[0]+" and "+by[1], "A nic block matches by one of name, driver, mac and pci, and this one has %s. Keep one of them.", strings.Join(by, " and "))
		return nil, criterion{}
	}
	attr := by[0]
	v := x.b.Attrs[attr]
	if v.ContainsMarked() {
		x.diags = append(x.diags, sensitiveAt(v, "What a nic block matches by", "keys of settings are made of it, and plan and journal hold them"))
		return nil, criterion{}
	}
	if !v.IsKnown() {
		return nil, criterion{}
	}
	if v.Type() != cty.String {
		x.wrong(v.Range, "Invalid "+attr, "A string is needed, not a value of type %s.", v.Type().FriendlyName())
		return nil, criterion{}
	}
	text := v.AsString()
	keep := func(f func(host.NICFacts) bool) func([]host.NICFacts) []host.NICFacts {
		return func(all []host.NICFacts) (nics []host.NICFacts) {
			for _, n := range all {
				if f(n) {
					nics = append(nics, n)
				}
			}
			return nics
		}
	}
	switch attr {
	case "driver":
		if text == "" {
			x.wrong(v.Range, "Invalid driver", "The driver is empty. nodeprov facts shows the drivers of this machine's devices.")
			return nil, criterion{}
		}
		return keep(func(n host.NICFacts) bool { return n.Driver == text }), criterion{fmt.Sprintf("the driver %q", text), v.Range}
	case "mac":
		mac, err := net.ParseMAC(text)
		if err != nil {
			x.wrong(v.Range, "Invalid mac", `%q is no hardware address, as "52:54:00:12:34:56" is.`, text)
			return nil, criterion{}
		}
		same := keep(func(n host.NICFacts) bool { return n.MAC == mac.String() })
		return func(all []host.NICFacts) []host.NICFacts {
			nics := same(all)
			hardware := slices.DeleteFunc(slices.Clone(nics), func(n host.NICFacts) bool { return n.Virtual })
			if len(hardware) > 0 {
				return hardware
			}
			return nics
		}, criterion{"the hardware address " + mac.String(), v.Range}
	case "pci":
		pci := strings.ToLower(text)
		if strings.Count(pci, ":") == 1 {
			pci = "0000:" + pci
		}
		if !regexp.MustCompile(`^[0-9a-f]{4,}:[0-9a-f]{2}:[0-9a-f]{2}\.[0-7]$`).MatchString(pci) {
			x.wrong(v.Range, "Invalid pci", `%q is no PCI address, as "0000:00:03.0" is.`, text)
			return nil, criterion{}
		}
		return keep(func(n host.NICFacts) bool { return n.PCI == pci }), criterion{"the PCI address " + pci, v.Range}
	}
	// A pattern may be longer than the names that it stands for, but what is
	// between its stars may not.
	for part := range strings.SplitSeq(text, "*") {
		if part == "" && text != "" {
			continue
		}
		if err := checkNICName(part); err != nil {
			x.wrong(v.Range, "Invalid name of a device", "%q %v.", text, err)
			return nil, criterion{}
		}
	}
	if !strings.Contains(text, "*") {
		return keep(func(n host.NICFacts) bool { return n.Name == text }), criterion{fmt.Sprintf("the name %q", text), v.Range}
	}
	pattern := regexp.MustCompile("^" + strings.ReplaceAll(regexp.QuoteMeta(text), `\*`, ".*") + "$")
	return keep(func(n host.NICFacts) bool { return pattern.MatchString(n.Name) }), criterion{fmt.Sprintf("a name like %q", text), v.Range}
}

// checkNICName applies the kernel's rule (dev_valid_name).
func checkNICName(name string) error {
	switch {
	case name == "":
		return errors.New("is empty")
	case len(name) > 15:
		return errors.New("is longer than 15 bytes, which no device's name is")
	case name == "." || name == ".." || strings.ContainsAny(name, "/:\x00 \t\n\v\f\r"):
		return errors.New("is no name that a device can have")
	}
	return nil
}

func nicText(n host.NICFacts) string {
	if n.Driver == "" {
		return n.Name
	}
	return n.Name + " (" + n.Driver + ")"
}

// nicList is a sentence that names the devices that are there; a node has hundreds of
// virtual ones, one for each pod.
func nicList(f *host.Facts) string {
	if len(f.NICs) == 0 {
		return "This machine has no network device but loopback."
	}
	var names []string
	rest := 0
	for _, hardware := range []bool{true, false} {
		for _, n := range f.NICs {
			switch {
			case n.Virtual == hardware:
			case len(names) < 12:
				names = append(names, nicText(n))
			default:
				rest++
			}
		}
	}
	if rest > 0 {
		return fmt.Sprintf("There are: %s, and %d more.", strings.Join(names, ", "), rest)
	}
	return "There are: " + strings.Join(names, ", ") + "."
}

// sortedKeys are a map's keys; messages and settings do not depend on Go's order.
func sortedKeys[V any](m map[string]V) []string { return slices.Sorted(maps.Keys(m)) }
