package provision

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/hashicorp/hcl/v2"
	"github.com/zclconf/go-cty/cty"
	"k8s.io/utils/cpuset"

	"github.com/nodeprov/nodeprov/provision/host"
	"github.com/nodeprov/nodeprov/provision/profile"
)

// queueKind sets the queues of network devices. The nic construct asks for it; it
// is a kind of its own so that the queues are read after the channels were set.
func queueKind() Kind {
	return Kind{
		Name:     "queue",
		Open:     openQueue,
		Scope:    NetNS,
		Lifetime: Runtime,
		Effect:   "now",
	}
}

func openQueue(name string) (Setting, error) {
	nic, property, _ := strings.Cut(name, "/")
	if err := checkNICName(nic); err != nil {
		return nil, fmt.Errorf("queue: %q: the device's name %w", name, err)
	}
	switch property {
	case "rss":
		return nicRSS(nic, liveHardware), nil
	case "irq":
		return nicIRQ(nic), nil
	case "xps":
		return nicQueues(nic, "xps", host.XPSCPUs), nil
	case "rps":
		return nicQueues(nic, "rps", host.RPSCPUs), nil
	case "rfs":
		return nicQueues(nic, "rfs", host.RPSFlows), nil
	}
	return nil, fmt.Errorf("queue: %q is no setting of a device's queues (as NAME/rps is)", name)
}

// pairs are values with names in front, "rx-0:0-3 rx-1:-"; an empty value is "-".
type pair struct{ name, value string }

func pairsText(pairs []pair) string {
	words := make([]string, len(pairs))
	for i, p := range pairs {
		words[i] = p.name + ":" + cmp.Or(p.value, "-")
	}
	return strings.Join(words, " ")
}

func parsePairs(text string) ([]pair, error) {
	var pairs []pair
	for word := range strings.FieldsSeq(text) {
		name, value, ok := strings.Cut(word, ":")
		if !ok || name == "" || value == "" {
			return nil, fmt.Errorf("%q: %q has no form of a queue and its value, as \"rx-0:0-3\" has", text, word)
		}
		if value == "-" {
			value = ""
		}
		pairs = append(pairs, pair{name, value})
	}
	return pairs, nil
}

// fitPairs is what want makes of a device that has these queues now: a value for
// each that it names, and for the others too if all it names have the same. What was
// journaled may have been there with other channels. Queues that nothing is known of
// are left out.
func fitPairs(now []pair, want string) ([]pair, error) {
	if want == oneQueue {
		want = "tx-0:-"
	}
	pairs, err := parsePairs(want)
	if err != nil {
		return nil, err
	}
	values := map[string]string{}
	uniform := len(pairs) > 0
	for _, p := range pairs {
		values[p.name] = p.value
		uniform = uniform && p.value == pairs[0].value
	}
	var fit []pair
	for _, p := range now {
		if v, ok := values[p.name]; ok {
			fit = append(fit, pair{p.name, v})
		} else if uniform {
			fit = append(fit, pair{p.name, pairs[0].value})
		}
	}
	return fit, nil
}

func samePairs(live, want string) bool {
	if live == oneQueue {
		return true // whatever it is, there is nothing to choose
	}
	now, err := parsePairs(live)
	if err != nil {
		return false
	}
	fit, err := fitPairs(now, want)
	if err != nil {
		return false
	}
	for _, p := range fit {
		if !slices.Contains(now, p) {
			return false
		}
	}
	return true
}

// oneQueue is the value of XPS for a device with one transmit queue.
const oneQueue = "one queue"

// nicQueues are the values of one file of each queue: "rx-0:0-3 rx-1:-".
func nicQueues(nic, name string, attr host.QueueAttr) *nicSetting {
	read := func(h *host.Host) (string, error) {
		values, err := h.QueueValues(nic, attr)
		if err != nil {
			return "", err
		}
		return pairsText(queuePairs(attr, values)), nil
	}
	s := &nicSetting{kind: "queue", nic: nic, name: name, read: read, same: samePairs}
	if attr == host.XPSCPUs {
		s.read = func(h *host.Host) (string, error) {
			text, err := read(h)
			if errors.Is(err, errors.ErrUnsupported) {
				// Such a device has the file, but it cannot be read.
				if n, err := h.Queues(nic, attr.Dir); err == nil && n == 1 {
					return oneQueue, nil
				}
			}
			return text, err
		}
	}
	s.write = func(h *host.Host, text string) error {
		values, err := h.QueueValues(nic, attr)
		if err != nil {
			return err
		}
		fit, err := fitPairs(queuePairs(attr, values), text)
		if err != nil {
			return fmt.Errorf("%s of %s: %w", name, nic, err)
		}
		for i, live := range queuePairs(attr, values) {
			for _, p := range fit {
				if p.name != live.name || p == live {
					continue
				}
				if err := h.SetQueueValue(nic, attr, i, p.value); err != nil {
					return err
				}
			}
		}
		return nil
	}
	return s
}

func queuePairs(attr host.QueueAttr, values []string) []pair {
	pairs := make([]pair, len(values))
	for i, v := range values {
		pairs[i] = pair{attr.Dir + "-" + strconv.Itoa(i), v}
	}
	return pairs
}

// wantQueues gives each queue that there is now the value that of has for it, of n.
func wantQueues(of func(queue, n int) string) func(Value) (Value, error) {
	return func(live Value) (Value, error) {
		if live.Text == oneQueue {
			return live, nil
		}
		pairs, err := parsePairs(live.Text)
		if err != nil {
			return Value{}, err
		}
		for i := range pairs {
			pairs[i].value = of(i, len(pairs))
		}
		return Value{Text: pairsText(pairs)}, nil
	}
}

// cpulist reads a value that is a cpulist of CPUs that are online.
func (x *nicBlock) cpulist(what string, v profile.Value, or string) (cpuset.CPUSet, bool) {
	text := v.AsString()
	set, err := cpuset.Parse(text)
	if err != nil || set.IsEmpty() || strings.ContainsAny(text, " \t") {
		x.wrong(v.Range, "Invalid "+what, "%s is needed, as in \"0-3,8\", and %q is not.", or, text)
		return cpuset.CPUSet{}, false
	}
	if x.t.Facts != nil {
		if off := set.Difference(x.online()); !off.IsEmpty() {
			x.wrong(v.Range, "No such CPU", "%s names CPU %s, and online are %s.", what, off, x.online())
			return cpuset.CPUSet{}, false
		}
	}
	return set, true
}

// online are the machine's CPUs; the facts are there.
func (x *nicBlock) online() cpuset.CPUSet {
	set, err := cpuset.Parse(x.t.Facts.CPU.Online)
	if err != nil {
		return cpuset.CPUSet{} // the kernel's own text is none such
	}
	return set
}

// housekeeping are those online that were not taken away from the machine's other
// work by isolcpus= and nohz_full=; all where none would be left.
func (x *nicBlock) housekeeping() cpuset.CPUSet {
	isolated, _ := cpuset.Parse(x.t.Facts.CPU.Isolated)
	if x.t.Host != nil {
		isolated = isolated.Union(x.t.Host.NoHzFull())
	}
	if rest := x.online().Difference(isolated); !rest.IsEmpty() {
		return rest
	}
	return x.online()
}

// text is an attribute that is a word or a cpulist.
func (x *nicBlock) text(name string) (profile.Value, bool) {
	v, ok := x.value(name)
	if ok && v.Type() != cty.String {
		x.wrong(v.Range, "Invalid "+name, "A string is needed, not a value of type %s.", v.Type().FriendlyName())
		return v, false
	}
	return v, ok
}

func (x *nicBlock) xps() {
	v, ok := x.text("xps")
	if !ok {
		return
	}
	word := v.AsString()
	var set cpuset.CPUSet
	if word != "off" && word != "per-queue" {
		if set, ok = x.cpulist("xps", v, `"per-queue", "off" or a cpulist`); !ok {
			return
		}
	}
	x.step(func(n host.NICFacts) {
		of := func(int, int) string { return set.String() }
		if word == "per-queue" {
			order := x.deal(n)
			of = func(queue, n int) string {
				var cpus []int
				for i := queue; i < len(order); i += n {
					cpus = append(cpus, order[i])
				}
				return cpuset.New(cpus...).String()
			}
		}
		x.want(nicQueues(n.Name, "xps", host.XPSCPUs), v.Range, v.BestEffort, wantQueues(of))
	})
}

// deal is the order in which all CPUs are dealt out to transmit queues: first those
// that the queues' interrupts go to, so that a CPU sends through the queue whose
// interrupts it serves.
func (x *nicBlock) deal(n host.NICFacts) []int {
	var order []int
	if x.irqOrder != nil {
		for _, cpu := range x.irqOrder(n) {
			if !slices.Contains(order, cpu) {
				order = append(order, cpu)
			}
		}
	}
	rest := x.online().Difference(cpuset.New(order...))
	return append(order, orderCPUs(x.t.Facts.CPU, rest, n.NUMANode)...)
}

func (x *nicBlock) rps() {
	v, ok := x.text("rps")
	if !ok {
		return
	}
	word := v.AsString()
	var set cpuset.CPUSet
	if !slices.Contains([]string{"off", "all", "local"}, word) {
		if set, ok = x.cpulist("rps", v, `"off", "local", "all" or a cpulist`); !ok {
			return
		}
	}
	if x.t.Facts != nil && !v.BestEffort {
		if off := set.Difference(x.housekeeping()); !off.IsEmpty() && !x.housekeeping().Equals(x.online()) {
			x.wrong(v.Range, "Isolated CPU", "The kernel lets no isolated CPU (isolcpus= or nohz_full=) work for others, and leaves out CPU %s. Do so too.", off)
			return
		}
	}
	x.step(func(n host.NICFacts) {
		set := set
		switch word {
		case "all":
			set = x.housekeeping()
		case "local":
			if set = localCPUs(x.t.Facts.CPU, x.housekeeping(), n.NUMANode); set.IsEmpty() {
				set = x.housekeeping()
			}
		}
		x.want(nicQueues(n.Name, "rps", host.RPSCPUs), v.Range, v.BestEffort, wantQueues(func(int, int) string { return set.String() }))
	})
}

func (x *nicBlock) rfs() {
	v, ok := x.value("rfs")
	if !ok {
		return
	}
	flows, ok := x.whole("rfs", v, 0, 1<<20)
	if !ok {
		return
	}
	if flows&(flows-1) != 0 {
		next := 1
		for next < flows {
			next <<= 1
		}
		x.wrong(v.Range, "Invalid rfs", "The kernel keeps a power of two of flows, and %d is none. Write %d.", flows, next)
		return
	}
	x.step(func(n host.NICFacts) {
		text := strconv.Itoa(flows)
		x.want(nicQueues(n.Name, "rfs", host.RPSFlows), v.Range, v.BestEffort, wantQueues(func(int, int) string { return text }))
	})
}

// nicRSS is a device's table of receive side scaling: "equal 4/4 size 128" for one
// of 128 entries that gives all of the 4 queues theirs in turn, as drivers do by
// themselves; "equal 2/4 size 128" for one that does so with the first 2; or
// "table/4 0*96 1*32".
func nicRSS(nic string, hw func(*host.Host) hardware) *nicSetting {
	return &nicSetting{
		kind: "queue", nic: nic, name: "rss",
		read: func(h *host.Host) (string, error) {
			table, err := hw(h).RSS(nic)
			if err != nil {
				return "", err
			}
			c, err := hw(h).Channels(nic)
			if err != nil && !errors.Is(err, errors.ErrUnsupported) {
				return "", err
			}
			return rssText(table, c.Combined+c.RX), nil
		},
		write: func(h *host.Host, text string) error {
			if ownRSS(text) {
				// Then the table has to stay the driver's: beside one of ours it
				// would refuse to have fewer channels.
				return hw(h).SetRSS(nic, nil)
			}
			table, err := parseRSS(text)
			if err != nil {
				return fmt.Errorf("RSS table of %s: %w", nic, err)
			}
			return hw(h).SetRSS(nic, table)
		},
		same: func(live, want string) bool { return ownRSS(live) && ownRSS(want) },
		inexact: func(live, want Value) string {
			if !ownRSS(live.Text) {
				return "the driver may make its own table when the channels change"
			}
			return ""
		},
	}
}

// ownRSS tells the table that a driver makes by itself, of whatever channels.
func ownRSS(text string) bool {
	var to, of, size int
	n, err := fmt.Sscanf(text, "equal %d/%d size %d", &to, &of, &size)
	return err == nil && n == 3 && to == of
}

// rssText is the table of a device with so many queues, 0 where nobody knows.
func rssText(table []uint32, queues int) string {
	n := int(slices.Max(table)) + 1
	if slices.Equal(table, equalRSS(n, len(table))) {
		return fmt.Sprintf("equal %d/%d size %d", n, max(queues, n), len(table))
	}
	var b strings.Builder
	fmt.Fprintf(&b, "table/%d", max(queues, n))
	for i := 0; i < len(table); {
		j := i
		for j < len(table) && table[j] == table[i] {
			j++
		}
		fmt.Fprintf(&b, " %d*%d", table[i], j-i)
		i = j
	}
	return b.String()
}

func parseRSS(text string) ([]uint32, error) {
	var to, of, size int
	if n, err := fmt.Sscanf(text, "equal %d/%d size %d", &to, &of, &size); n == 3 && err == nil && to > 0 && size > 0 && size < 1<<20 {
		return equalRSS(to, size), nil
	}
	var table []uint32
	head, rest, _ := strings.Cut(text, " ")
	for w := range strings.FieldsSeq(rest) {
		q, n, ok := strings.Cut(w, "*")
		queue, err1 := strconv.ParseUint(q, 10, 32)
		times, err2 := strconv.ParseUint(n, 10, 16)
		if !ok || err1 != nil || err2 != nil || !strings.HasPrefix(head, "table/") {
			return nil, fmt.Errorf("%q has another form than \"table/4 0*96 1*32\"", text)
		}
		table = append(table, slices.Repeat([]uint32{uint32(queue)}, int(times))...)
	}
	if len(table) == 0 {
		return nil, fmt.Errorf("%q has no entries", text)
	}
	return table, nil
}

// rssQueues is how many queues the device of a value has, 0 if that does not tell.
func rssQueues(text string) int {
	var to, of int
	if _, err := fmt.Sscanf(text, "equal %d/%d", &to, &of); err == nil {
		return of
	}
	if _, err := fmt.Sscanf(text, "table/%d", &of); err == nil {
		return of
	}
	return 0
}

// equalRSS is what the kernel makes by default (ethtool_rxfh_indir_default).
func equalRSS(queues, size int) []uint32 {
	table := make([]uint32, size)
	for i := range table {
		table[i] = uint32(i % queues)
	}
	return table
}

// weightedRSS gives each queue entries in proportion to its weight; the sum is at
// most size.
func weightedRSS(weights []int, size int) []uint32 {
	sum := 0
	for _, w := range weights {
		sum += w
	}
	table := make([]uint32, size)
	queue, partial := -1, 0
	for i := range table {
		for i >= size*partial/sum {
			queue++
			partial += weights[queue]
		}
		table[i] = uint32(queue)
	}
	return table
}

func (x *nicBlock) rss() {
	elements, v, ok := x.object("rss", "queues", "weights")
	if !ok || len(elements) == 0 {
		return
	}
	if len(elements) == 2 {
		x.wrong(elements["weights"].Range, "Both ways to spread packets", "rss has queues (equally) or weights, and this one has both. Keep one of them.")
		return
	}
	bestEffort := v.BestEffort
	var fill func(size int) ([]uint32, error)
	if e, ok := elements["queues"]; ok {
		n, ok := x.whole("rss.queues", e, 1, 1<<16)
		if !ok {
			return
		}
		bestEffort = bestEffort || e.BestEffort
		fill = func(size int) ([]uint32, error) {
			if n > size {
				return nil, fmt.Errorf("its RSS table has %d entries, too few for %d queues", size, n)
			}
			return equalRSS(n, size), nil
		}
	} else {
		e := elements["weights"]
		bestEffort = bestEffort || e.BestEffort
		if ty := e.Type(); !ty.IsTupleType() && !ty.IsListType() {
			x.wrong(e.Range, "Invalid rss.weights", "A list of whole numbers is needed, one for each queue, as in [3, 1], not a value of type %s.", ty.FriendlyName())
			return
		}
		if !e.IsWhollyKnown() {
			return
		}
		var weights []int
		sum := 0
		for _, w := range e.AsValueSlice() {
			if w.IsNull() {
				x.wrong(e.Range, "Invalid rss.weights", "A weight is a whole number from 0 to 65535, not null.")
				return
			}
			n, ok := x.whole("rss.weights", profile.Value{Value: w, Range: e.Range}, 0, 1<<16-1)
			if !ok {
				return
			}
			weights, sum = append(weights, n), sum+n
		}
		if sum == 0 {
			x.wrong(e.Range, "Invalid rss.weights", "Some queue has to get packets: give one of them a weight above 0.")
			return
		}
		fill = func(size int) ([]uint32, error) {
			if sum > size {
				return nil, fmt.Errorf("its RSS table has %d entries, too few for weights with the sum %d (divide them)", size, sum)
			}
			return weightedRSS(weights, size), nil
		}
	}
	x.step(func(n host.NICFacts) {
		x.want(nicRSS(n.Name, liveHardware), v.Range, bestEffort, func(live Value) (Value, error) {
			table, err := parseRSS(live.Text)
			if err != nil {
				return Value{}, err
			}
			if table, err = fill(len(table)); err != nil {
				return Value{}, err
			}
			return Value{Text: rssText(table, rssQueues(live.Text))}, nil
		})
	})
}

// nicIRQ is where the interrupts of a device's queues may go: "input.0:0-3
// output.0:0-3". The queues stand for the interrupts, whose numbers are others after
// a reset. Compared is what is asked of the kernel: where an interrupt really goes
// follows with the next one that comes.
func nicIRQ(nic string) *nicSetting {
	return &nicSetting{
		kind: "queue", nic: nic, name: "irq",
		read: func(h *host.Host) (string, error) {
			irqs, err := h.QueueIRQs(nic)
			if err != nil {
				return "", err
			}
			if len(irqs) == 0 {
				return "", notHeref("interrupts of %s: it has none of its own", nic)
			}
			return pairsText(irqPairs(irqs)), nil
		},
		same: samePairs,
		write: func(h *host.Host, text string) error {
			irqs, err := h.QueueIRQs(nic)
			if err != nil {
				return err
			}
			fit, err := fitPairs(irqPairs(irqs), text)
			if err != nil {
				return fmt.Errorf("interrupts of %s: %w", nic, err)
			}
			var errs []error
			for _, q := range irqs {
				for _, p := range fit {
					if p.name != q.Queue || p.value == q.CPUs {
						continue
					}
					// One that the kernel manages does not keep the others from
					// being set.
					errs = append(errs, h.SetIRQAffinity(q, p.value))
				}
			}
			return errors.Join(errs...)
		},
	}
}

func irqPairs(irqs []host.QueueIRQ) []pair {
	pairs := make([]pair, len(irqs))
	for i, q := range irqs {
		pairs[i] = pair{q.Queue, q.CPUs}
	}
	return pairs
}

func (x *nicBlock) irq() {
	elements, v, ok := x.object("irq", "policy", "cpus", "numa")
	if !ok {
		return
	}
	policy, numa := "spread", "local"
	for name, to := range map[string]struct {
		word  *string
		words []string
	}{"policy": {&policy, []string{"spread", "single", "list"}}, "numa": {&numa, []string{"local", "any"}}} {
		if e, given := elements[name]; given {
			if e.Type() == cty.String && slices.Contains(to.words, e.AsString()) {
				*to.word = e.AsString()
				continue
			}
			x.wrong(e.Range, "Invalid irq."+name, `Write "%s".`, strings.Join(to.words, `" or "`))
			ok = false
		}
	}
	var set cpuset.CPUSet
	var list []int
	if e, given := elements["cpus"]; given {
		if e.Type() != cty.String {
			x.wrong(e.Range, "Invalid irq.cpus", "A cpulist is needed, as in \"0-3,8\", not a value of type %s.", e.Type().FriendlyName())
			return
		}
		if set, given = x.cpulist("irq.cpus", e, "A cpulist"); !given {
			return
		}
		list = inOrder(e.AsString())
	} else if policy == "list" && v.IsWhollyKnown() {
		x.wrong(v.Range, "A list without CPUs", `irq.policy "list" goes through irq.cpus as they are written: add cpus = "0,2,4".`)
		return
	}
	if e, given := elements["numa"]; given && policy == "list" {
		x.wrong(e.Range, "numa beside a list", `irq.policy "list" takes the CPUs as they are written. Remove numa, or write policy = "spread".`)
		return
	}
	if !ok || !v.IsWhollyKnown() {
		return
	}
	x.irqOrder = func(n host.NICFacts) []int {
		if policy == "list" {
			return list
		}
		among := set
		if among.IsEmpty() {
			among = x.housekeeping()
		}
		if numa == "local" {
			if local := localCPUs(x.t.Facts.CPU, among, n.NUMANode); !local.IsEmpty() {
				among = local
			}
		}
		order := orderCPUs(x.t.Facts.CPU, among, n.NUMANode)
		if policy == "single" && len(order) > 1 {
			order = order[:1]
		}
		return order
	}
	x.step(func(n host.NICFacts) {
		if e, given := elements["numa"]; given && numa == "local" && !set.IsEmpty() && localCPUs(x.t.Facts.CPU, set, n.NUMANode).IsEmpty() {
			x.diags = append(x.diags, &hcl.Diagnostic{
				Severity: hcl.DiagWarning,
				Summary:  "No CPU near the device",
				Detail:   fmt.Sprintf("%s is on NUMA node %d, and none of the CPUs %s is. All of them are used.", nicText(n), n.NUMANode, set),
				Subject:  e.Range.Ptr(),
			})
		}
		order := x.irqOrder(n)
		x.want(nicIRQ(n.Name), v.Range, v.BestEffort, func(live Value) (Value, error) {
			pairs, err := parsePairs(live.Text)
			if err != nil || len(order) == 0 {
				return Value{}, errors.Join(err, errors.New("no CPU is left for the interrupts"))
			}
			spreadIRQs(pairs, order)
			return Value{Text: pairsText(pairs)}, nil
		})
	})
}

// spreadIRQs gives each queue one CPU, in turn. What is received and what is sent
// through queues of the same number goes to the same CPU.
func spreadIRQs(pairs []pair, order []int) {
	ranks := map[string]int{}
	for i, p := range pairs {
		number := p.name[strings.LastIndexFunc(p.name, func(r rune) bool { return r < '0' || r > '9' })+1:]
		if _, ok := ranks[number]; !ok {
			ranks[number] = len(ranks)
		}
		pairs[i].value = strconv.Itoa(order[ranks[number]%len(order)])
	}
}

// inOrder are the CPUs of a valid cpulist as it is written.
func inOrder(list string) []int {
	var cpus []int
	for part := range strings.SplitSeq(list, ",") {
		from, to, isRange := strings.Cut(part, "-")
		if !isRange {
			to = from
		}
		a, _ := strconv.Atoi(from)
		b, _ := strconv.Atoi(to)
		for cpu := a; cpu <= b; cpu++ {
			cpus = append(cpus, cpu)
		}
	}
	return cpus
}

// localCPUs are those of the node; all where the node is not known.
func localCPUs(f host.CPUFacts, among cpuset.CPUSet, node int) cpuset.CPUSet {
	if node < 0 {
		return among
	}
	for _, n := range f.NUMA {
		if n.ID == node {
			cpus, err := cpuset.Parse(n.CPUs)
			if err != nil {
				return among
			}
			return among.Intersection(cpus)
		}
	}
	return cpuset.New()
}

// orderCPUs puts the CPUs of the node first, and on each side those that share
// a core with an earlier one last.
func orderCPUs(f host.CPUFacts, among cpuset.CPUSet, node int) []int {
	local := localCPUs(f, among, node)
	type place struct{ far, sibling, id int }
	places := map[int]place{}
	for _, t := range f.Threads {
		siblings, err := cpuset.Parse(t.Siblings)
		if err != nil {
			continue
		}
		p := place{id: t.ID}
		for _, s := range siblings.Intersection(among).List() {
			if s < t.ID {
				p.sibling++
			}
		}
		places[t.ID] = p
	}
	order := among.List()
	for _, cpu := range order {
		p := places[cpu]
		p.id = cpu
		if !local.Contains(cpu) {
			p.far = 1
		}
		places[cpu] = p
	}
	slices.SortFunc(order, func(a, b int) int {
		p, q := places[a], places[b]
		return cmp.Or(cmp.Compare(p.far, q.far), cmp.Compare(p.sibling, q.sibling), cmp.Compare(p.id, q.id))
	})
	return order
}
