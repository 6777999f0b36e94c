package provision

import (
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"maps"
	"math"
	"slices"
	"strconv"
	"strings"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"github.com/zclconf/go-cty/cty"
	"golang.org/x/sys/unix"

	"github.com/nodeprov/nodeprov/provision/host"
	"github.com/nodeprov/nodeprov/provision/profile"
)

// qdiscKind sets the queueing disciplines that network devices send through. The
// nic construct asks for it; it is a kind of its own so that the leaves are read
// after the channels, and their options after the MTU was set.
func qdiscKind() Kind {
	return Kind{
		Name: "qdisc",
		Open: func(name string) (Setting, error) {
			if err := checkNICName(name); err != nil {
				return nil, fmt.Errorf("qdisc: %q: the device's name %w", name, err)
			}
			return nicQdisc(name), nil
		},
		Scope:    NetNS,
		Lifetime: Runtime,
		Effect:   "now",
	}
}

func qdiscSchema() profile.Schema {
	return profile.Schema{
		Type:      "qdisc",
		Label:     "discipline",
		Singleton: true,
		Doc: "The queueing discipline that the devices send through: fq, fq_codel, pfifo, bfifo, pfifo_fast or noqueue. Each transmit queue of a device gets one. " +
			"Packets that wait in the old one are lost.",
		Attrs: []profile.Attr{
			{Name: "on", Type: cty.String, Default: cty.StringVal("leaves"), Doc: `Where it goes: "leaves" puts one below mq on each transmit queue, and on a device with one queue at the root; "root" puts one at the root, for all queues together. noqueue always goes to the root.`},
			{Name: "options", Type: cty.DynamicPseudoType, Doc: "Options by tc's names, as in { limit = 20000, flow_limit = 200 }; what is left out has the kernel's value. " +
				"Rates are in bit/s, sizes in bytes, times in microseconds (fq's timer_slack: nanoseconds); pacing, ecn and horizon_drop are true or false. " + qdiscReference()},
			{Name: "on_missing", Type: cty.String, Default: cty.StringVal("fail"), Doc: `What it means that the kernel has no such discipline: "fail" leaves it to on_error of the nic, "skip" reports it and goes on.`},
		},
	}
}

// qdiscReference lists the options for the reference.
func qdiscReference() string {
	var parts []string
	for _, k := range slices.Sorted(maps.Keys(disciplines())) {
		if o := disciplines()[k]; len(o) > 0 {
			parts = append(parts, k+": "+strings.Join(optionNames(o), ", "))
		}
	}
	return strings.Join(parts, "; ") + "."
}

func optionNames(options []qdiscOption) []string {
	names := make([]string, len(options))
	for i, o := range options {
		names[i] = o.name
	}
	return names
}

// qdiscOption is an option of a discipline: one attribute of the kernel's.
type qdiscOption struct {
	name string
	// attr is the attribute's number in linux/pkt_sched.h; 0 for a discipline whose
	// options are a struct with this number alone.
	attr uint16
	form optionForm
	// value is what the kernel takes for an option that is left out.
	value uint64
	// mtus, if not 0, says that the kernel takes that many times the length of
	// the longest frame instead.
	mtus uint64
	// queue says that it takes the transmit queue's length, in packets or, with
	// mtus, in frames.
	queue bool
	// least and most are what the kernel takes, or makes nothing else of; most is 0
	// for all that its form has room for.
	least, most int
	// step, if not 0, is what it has to be a multiple of: the kernel rounds others.
	step int
}

// optionForm says how an option is written.
type optionForm int

const (
	optionNumber optionForm = iota // 32 bits
	optionFlag                     // 32 bits, 0 or 1
	optionByte                     // 8 bits, 0 or 1
	// optionRate is in bit/s, and in byte/s with 32 bits for the kernel; all bits
	// set is no limit.
	optionRate
	// optionCodel times are in microseconds, and kept by the kernel in units of
	// 1024 ns.
	optionCodel
)

// disciplines are those that a profile can ask for, with their options and what
// the kernel takes for them (fq_init, fq_codel_init, fifo_init of Linux 5.15 to
// 6.18). Options of newer kernels are neither shown nor set.
func disciplines() map[string][]qdiscOption {
	return map[string][]qdiscOption{
		"fq": {
			{name: "limit", attr: 1, value: 10000},
			{name: "flow_limit", attr: 2, value: 100},
			{name: "quantum", attr: 3, mtus: 2, least: 1, most: 1 << 20},
			{name: "initial_quantum", attr: 4, mtus: 10, most: math.MaxInt32},
			{name: "pacing", attr: 5, form: optionFlag, value: 1},
			{name: "maxrate", attr: 7, form: optionRate, value: math.MaxUint32},
			{name: "buckets_log", attr: 8, value: 10, least: 1, most: 18},
			// Kept in ticks, and told in microseconds: 100, 250, 300 or 1000 a second.
			{name: "refill_delay", attr: 9, value: 40_000, step: 20_000},
			{name: "orphan_mask", attr: 10, value: 1023},
			{name: "low_rate_threshold", attr: 11, form: optionRate, value: 550_000 / 8},
			{name: "ce_threshold", attr: 12, value: math.MaxUint32},
			{name: "timer_slack", attr: 13, value: 10_000},
			{name: "horizon", attr: 14, value: 10_000_000},
			{name: "horizon_drop", attr: 15, form: optionByte, value: 1},
		},
		"fq_codel": {
			{name: "target", attr: 1, form: optionCodel, value: 5_000},
			{name: "limit", attr: 2, value: 10 << 10},
			{name: "interval", attr: 3, form: optionCodel, value: 100_000},
			{name: "ecn", attr: 4, form: optionFlag, value: 1},
			{name: "flows", attr: 5, value: 1024, least: 1, most: 1 << 16},
			{name: "quantum", attr: 6, mtus: 1, least: 256, most: 1 << 20},
			{name: "ce_threshold", attr: 7, form: optionCodel, value: math.MaxUint32}, // not told
			{name: "drop_batch", attr: 8, value: 64, least: 1},
			{name: "memory_limit", attr: 9, value: 32 << 20, most: 1 << 31},
		},
		"pfifo":      {{name: "limit", queue: true}},
		"bfifo":      {{name: "limit", queue: true, mtus: 1}},
		"pfifo_fast": nil,
		"noqueue":    nil,
	}
}

// isDefault tells whether the kernel takes n (as it has it) if the option is left
// out, on this device as it is now.
func (o qdiscOption) isDefault(n uint64, l host.Link) bool {
	switch {
	case o.queue && o.mtus == 0:
		return n == uint64(max(l.TxQueueLen, 1)) || n == uint64(l.TxQueueLen)
	case o.mtus > 0:
		// The length of a frame's header is not told: it is 14 for Ethernet, and
		// up to some 80 bytes for tunnels. What is near enough is taken for it.
		k := o.mtus
		if o.queue {
			k *= uint64(l.TxQueueLen)
		}
		if k == 0 {
			return n == 0
		}
		header := n/k - uint64(l.MTU)
		return n%k == 0 && header <= 128
	case o.form == optionCodel:
		return n == codelTime(o.value)
	}
	return n == o.value
}

// codelTime is what the kernel makes of microseconds and tells afterwards, as the
// least number that it makes the same of.
func codelTime(us uint64) uint64 {
	return codelMicroseconds(us * 1000 >> 10)
}

func codelMicroseconds(units uint64) uint64 { return (units<<10 + 999) / 1000 }

// parse reads the option as a profile or a value has it.
func (o qdiscOption) parse(text string) (uint64, error) {
	if o.form == optionFlag || o.form == optionByte {
		switch text {
		case "on":
			return 1, nil
		case "off":
			return 0, nil
		}
		return 0, fmt.Errorf("%s is on or off, not %q", o.name, text)
	}
	n, err := strconv.ParseUint(text, 10, 64)
	if err != nil {
		return 0, fmt.Errorf("%s: %w", o.name, err)
	}
	if o.form == optionRate {
		n /= 8
	}
	if n > math.MaxUint32 {
		return 0, fmt.Errorf("%s: %s does not fit in 32 bits", o.name, text)
	}
	if o.form == optionCodel {
		n = codelTime(n)
	}
	return n, nil
}

func (o qdiscOption) text(n uint64) string {
	switch o.form {
	case optionFlag, optionByte:
		return onOff(n != 0)
	case optionRate:
		n *= 8
	}
	return strconv.FormatUint(n, 10)
}

// leaf is a discipline of some kind with options.
type leaf struct {
	kind   string
	values map[string]uint64
	// raw are the options, as the kernel has them, of a discipline that nodeprov
	// cannot ask for: they may be good enough to put it back.
	raw []byte
}

// leafOf reads what the kernel tells.
func leafOf(q host.Qdisc) (leaf, error) {
	options, known := disciplines()[q.Kind]
	if !known && q.Kind != "mq" {
		return leaf{kind: q.Kind, raw: q.Options}, nil
	}
	values, err := qdiscValues(options, q.Options)
	if err != nil {
		return leaf{}, fmt.Errorf("qdisc %s: %w", q.Kind, err)
	}
	return leaf{kind: q.Kind, values: values}, nil
}

// text has the options that are not as the kernel makes them on the device l: "fq
// limit=20000".
func (f leaf) text(l host.Link) string {
	text := f.kind
	for _, o := range disciplines()[f.kind] {
		if n, ok := f.values[o.name]; ok && !o.isDefault(n, l) {
			text += " " + o.name + "=" + o.text(n)
		}
	}
	if len(f.raw) > 0 {
		text += " raw=" + hex.EncodeToString(f.raw)
	}
	return text
}

// parseLeaf reads a text.
func parseLeaf(text string) (leaf, error) {
	words := strings.Fields(text)
	if len(words) == 0 {
		return leaf{}, errors.New("a queueing discipline without a name")
	}
	f := leaf{kind: words[0], values: map[string]uint64{}}
	options := disciplines()[f.kind]
	for _, w := range words[1:] {
		name, value, _ := strings.Cut(w, "=")
		if name == "raw" {
			b, err := hex.DecodeString(value)
			if err != nil {
				return leaf{}, fmt.Errorf("qdisc %s: options: %w", f.kind, err)
			}
			f.raw = b
			continue
		}
		i := slices.IndexFunc(options, func(o qdiscOption) bool { return o.name == name })
		if i < 0 {
			return leaf{}, fmt.Errorf("qdisc %s: it has no option %q", f.kind, name)
		}
		n, err := options[i].parse(value)
		if err != nil {
			return leaf{}, fmt.Errorf("qdisc %s: %w", f.kind, err)
		}
		f.values[name] = n
	}
	return f, nil
}

// qdisc is the leaf for the kernel.
func (f leaf) qdisc(parent uint32) host.Qdisc {
	q := host.Qdisc{Kind: f.kind, Parent: parent, Options: f.raw}
	for _, o := range disciplines()[f.kind] {
		n, ok := f.values[o.name]
		if !ok {
			continue
		}
		number := binary.NativeEndian.AppendUint32(nil, uint32(n))
		switch {
		case o.attr == 0:
			q.Options = number
		case o.form == optionByte:
			q.Options = append(q.Options, nl.NewRtAttr(int(o.attr), []byte{byte(n)}).Serialize()...)
		default:
			q.Options = append(q.Options, nl.NewRtAttr(int(o.attr), number).Serialize()...)
		}
	}
	return q
}

// qdiscValues reads the kernel's options.
func qdiscValues(options []qdiscOption, b []byte) (map[string]uint64, error) {
	values := map[string]uint64{}
	if len(options) == 0 || len(b) == 0 {
		return values, nil
	}
	if options[0].attr == 0 {
		if len(b) < 4 {
			return nil, errors.New("its options are too short")
		}
		values[options[0].name] = uint64(binary.NativeEndian.Uint32(b))
		return values, nil
	}
	attrs, err := nl.ParseRouteAttr(b)
	if err != nil {
		return nil, err
	}
	for _, a := range attrs {
		for _, o := range options {
			switch {
			case a.Attr.Type&^unix.NLA_F_NESTED != o.attr:
			case o.form == optionByte && len(a.Value) == 1:
				values[o.name] = uint64(a.Value[0])
			case len(a.Value) == 4:
				n := uint64(binary.NativeEndian.Uint32(a.Value))
				if o.form == optionCodel {
					// Told rounded down.
					n = codelMicroseconds((n*1000 + 1023) >> 10)
				}
				values[o.name] = n
			}
		}
	}
	return values, nil
}

// noDiscipline is the value of a device that never was up.
const noDiscipline = "none yet"

// nicQdisc is what a device sends through: "fq limit=20000" at its root, or
// "mq [fq]" with one of them on each transmit queue, or "mq [fq | pfifo_fast]" where
// those differ. Options are left out where they are as the kernel makes them.
func nicQdisc(nic string) *nicSetting {
	// The device at the last Read: which options are the kernel's own depends on it,
	// and on another one when the wanted value was journaled.
	var last host.Link
	return &nicSetting{
		kind: "qdisc", nic: nic,
		read: func(h *host.Host) (string, error) {
			s, l, err := readQdiscs(h, nic)
			last = l
			return s.text, err
		},
		write: func(h *host.Host, text string) error { return writeQdiscs(h, nic, text) },
		same:  func(live, want string) bool { return sameQdiscs(live, want, last) },
		inexact: func(live, want Value) string {
			if live.Text == noDiscipline {
				return "the device was never up, and has no discipline yet"
			}
			if kind, _, raw := strings.Cut(live.Text, " raw="); raw {
				return "classes and filters of " + kind[strings.LastIndexAny(kind, " [")+1:] + " are lost, if it has any"
			}
			return ""
		},
	}
}

// sameQdiscs compares as a device l has it that may have other queues than when
// want was journaled.
func sameQdiscs(live, want string, l host.Link) bool {
	now, mq1 := splitMQ(live)
	then, mq2 := splitMQ(want)
	if mq1 != mq2 {
		return false
	}
	for i := range max(len(now), len(then)) {
		a, b := now[min(i, len(now)-1)], then[min(i, len(then)-1)]
		switch {
		case len(now) > 1 && len(then) > 1 && i >= min(len(now), len(then)):
			return true // no queue is there for the rest, or nothing is known of it
		case a != b && canonicalLeaf(a, l) != canonicalLeaf(b, l):
			return false
		}
	}
	return true
}

// splitMQ returns the leaves of an mq, a single one for all that are the same, or
// the root.
func splitMQ(text string) (leaves []string, mq bool) {
	inner, mq := strings.CutPrefix(text, "mq [")
	if !mq {
		return []string{text}, false
	}
	return strings.Split(strings.TrimSuffix(inner, "]"), " | "), true
}

// canonicalLeaf leaves out the options that are the kernel's own on l.
func canonicalLeaf(text string, l host.Link) string {
	f, err := parseLeaf(text)
	if err != nil {
		return text
	}
	return f.text(l)
}

// qdiscState is what a device has.
type qdiscState struct {
	text string
	// handle of the root; 0 for the kernel's own.
	handle uint32
	mq     bool
	// parents and leaves of an mq, by queue.
	parents []uint32
	leaves  []string
}

func readQdiscs(h *host.Host, nic string) (qdiscState, host.Link, error) {
	l, err := h.Link(nic)
	if err != nil {
		return qdiscState{}, l, err
	}
	qdiscs, err := h.Qdiscs(nic)
	if err != nil {
		return qdiscState{}, l, err
	}
	s, err := qdiscStateOf(qdiscs, l)
	return s, l, err
}

func qdiscStateOf(qdiscs []host.Qdisc, l host.Link) (qdiscState, error) {
	if len(qdiscs) == 0 || qdiscs[0].Parent != netlink.HANDLE_ROOT || qdiscs[0].Kind == "noop" {
		return qdiscState{text: noDiscipline}, nil
	}
	root := qdiscs[0]
	s := qdiscState{handle: root.Handle, mq: root.Kind == "mq"}
	if !s.mq {
		f, err := leafOf(root)
		s.text = f.text(l)
		return s, err
	}
	for _, q := range qdiscs[1:] {
		// Below a leaf there may be more, of other parents.
		if q.Parent&0xffff0000 != root.Handle&0xffff0000 {
			continue
		}
		f, err := leafOf(q)
		if err != nil {
			return qdiscState{}, err
		}
		s.parents, s.leaves = append(s.parents, q.Parent), append(s.leaves, f.text(l))
	}
	s.text = mqText(s.leaves)
	return s, nil
}

func mqText(leaves []string) string {
	if len(leaves) > 1 && slices.Equal(leaves[1:], leaves[:len(leaves)-1]) {
		leaves = leaves[:1]
	}
	return "mq [" + strings.Join(leaves, " | ") + "]"
}

// writeQdiscs makes the device send through text. What the kernel attaches by itself
// is left to it where that is the same: it then does so for queues to come, too.
func writeQdiscs(h *host.Host, nic, text string) error {
	s, l, err := readQdiscs(h, nic)
	if err != nil {
		return err
	}
	if s.handle != 0 {
		if err := h.ResetQdisc(nic); err != nil {
			return err
		}
		if s, l, err = readQdiscs(h, nic); err != nil {
			return err
		}
	}
	if text == noDiscipline || sameQdiscs(s.text, text, l) {
		return nil
	}
	want, mq := splitMQ(text)
	leaves := make([]leaf, len(want)) // checked before anything is replaced
	for i, text := range want {
		if leaves[i], err = parseLeaf(text); err != nil {
			return err
		}
	}
	if !mq {
		return replaceLeaf(h, nic, netlink.HANDLE_ROOT, leaves[0])
	}
	// The leaves of the kernel's own mq have no names.
	if err := h.ReplaceQdisc(nic, host.Qdisc{Kind: "mq", Parent: netlink.HANDLE_ROOT}); err != nil {
		return err
	}
	if s, l, err = readQdiscs(h, nic); err != nil {
		return err
	}
	for i, now := range s.leaves {
		from := min(i, len(want)-1)
		if from != i && len(want) > 1 {
			break // a queue that there was not, see sameQdiscs
		}
		if canonicalLeaf(now, l) == canonicalLeaf(want[from], l) {
			continue
		}
		if err := replaceLeaf(h, nic, s.parents[i], leaves[from]); err != nil {
			return err
		}
	}
	return nil
}

// replaceLeaf leaves the kernel's own where it does not take its options back from
// somebody's discipline: that this is not exact is known, see nicQdisc.
func replaceLeaf(h *host.Host, nic string, parent uint32, f leaf) error {
	err := h.ReplaceQdisc(nic, f.qdisc(parent))
	if len(f.raw) > 0 && errors.Is(err, unix.EINVAL) {
		return nil
	}
	return err
}

func (x *nicBlock) qdisc() {
	for _, b := range x.b.Blocks {
		if b.Type == "qdisc" {
			x.discipline(b)
		}
	}
}

func (x *nicBlock) discipline(b profile.Block) {
	on, diags := oneOf(b, "on", "leaves", "root")
	onMissing, more := oneOf(b, "on_missing", "fail", "skip")
	x.diags = append(append(x.diags, diags...), more...)
	kind := b.Label
	options, ok := disciplines()[kind]
	if !ok {
		known := slices.Sorted(maps.Keys(disciplines()))
		hint := "Known are " + strings.Join(known, ", ") + "."
		if near := nearestName(kind, known); near != "" {
			hint = fmt.Sprintf("Did you mean %q?", near)
		}
		if kind == "mq" {
			hint = `The leaves get mq by themselves: name what goes below it, as in qdisc "fq" { on = "leaves" }.`
		}
		x.wrong(b.Range, "Unknown queueing discipline", "nodeprov has no qdisc %q. %s", kind, hint)
		return
	}
	// One value may go on as another one for its block, so the same checks serve.
	inner := &nicBlock{b: b, t: x.t}
	values := map[string]uint64{}
	if len(options) > 0 {
		elements, _, _ := inner.object("options", optionNames(options)...)
		for _, o := range options {
			if e, ok := elements[o.name]; ok {
				if n, ok := inner.option(o, e); ok {
					values[o.name] = n
				}
			}
		}
	} else if v, ok := given(b, "options"); ok {
		inner.wrong(v.Range, "Options of "+kind, "%s has none. Remove them.", kind)
	}
	x.diags = append(x.diags, inner.diags...)
	if inner.diags.HasErrors() {
		return
	}
	if v, ok := given(b, "options"); ok && !v.IsWhollyKnown() {
		return
	}
	x.step(func(n host.NICFacts) {
		x.ws = append(x.ws, Wanted{
			Setting:     nicQdisc(n.Name),
			Range:       b.Range,
			OnError:     map[bool]Class{true: Tolerate, false: x.onError}[onMissing == "skip"],
			Unsupported: nicQdisc(n.Name).unsupported,
			Want: func(live Value) (Value, error) {
				// Asked for when the value is needed: another MTU, which an earlier
				// kind sets, makes other options the kernel's own.
				l := host.Link{Name: n.Name, MTU: n.MTU, TXQueues: max(n.Channels.MaxCombined, n.Channels.MaxTX)}
				if x.t.Host != nil && x.t.Host.Live() {
					now, err := x.t.Host.Link(n.Name)
					if err != nil {
						return Value{}, err
					}
					l = now
				}
				text := leaf{kind: kind, values: values}.text(l)
				if on == "leaves" && kind != "noqueue" && (l.TXQueues > 1 || strings.HasPrefix(live.Text, "mq ")) {
					return Value{Text: mqText([]string{text})}, nil
				}
				return Value{Text: text}, nil
			},
		})
	})
}

// option reads an option as the kernel has it.
func (x *nicBlock) option(o qdiscOption, v profile.Value) (uint64, bool) {
	what := "option " + o.name
	var text string
	if o.form == optionFlag || o.form == optionByte {
		on, ok := x.boolean(what, v)
		if !ok {
			return 0, false
		}
		text = onOff(on)
	} else {
		most := math.MaxUint32
		if o.form == optionRate {
			most *= 8
		}
		if o.most > 0 {
			most = o.most
		}
		n, ok := x.whole(what, v, o.least, most)
		if !ok {
			return 0, false
		}
		if o.step > 0 && n%o.step != 0 {
			x.wrong(v.Range, "Invalid "+what, "The kernel counts it in its ticks and would round %d: write a multiple of %d, as %d.", n, o.step, max(n-n%o.step, o.step))
			return 0, false
		}
		if o.form == optionRate && n%8 != 0 {
			x.wrong(v.Range, "Invalid "+what, "The kernel has rates in byte/s: a multiple of 8 bit/s is needed, as %d is.", n-n%8)
			return 0, false
		}
		text = strconv.Itoa(n)
	}
	n, err := o.parse(text)
	if err != nil {
		x.wrong(v.Range, "Invalid "+what, "%v.", err)
		return 0, false
	}
	return n, true
}
