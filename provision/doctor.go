package provision

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"

	"github.com/hashicorp/go-version"
	"github.com/hashicorp/hcl/v2/hclwrite"

	"github.com/nodeprov/nodeprov/profiles"
	"github.com/nodeprov/nodeprov/provision/host"
	"github.com/nodeprov/nodeprov/provision/profile"
)

// Answer is one of the doctor's.
type Answer string

const (
	Yes    Answer = "yes"
	No     Answer = "no"
	Partly Answer = "partly"
	// Unknown is the answer where the machine does not tell.
	Unknown Answer = "unknown"
	// NotYet is the answer where the host could, and this version of nodeprov
	// or lbd cannot.
	NotYet Answer = "not yet"
)

// Finding is one row of the list of what makes a Kubernetes node's network fast:
// whether this host can have it, whether it has it, and what to do.
type Finding struct {
	Item string `json:"item"`
	// Possible tells what kernel, devices, hypervisor and this version allow.
	Possible Answer `json:"possible"`
	// On tells what holds now, whoever set it.
	On Answer `json:"on"`
	// Why is the reason, or what was seen; clauses, without a full stop.
	Why string `json:"why,omitempty"`
	// Do is what to do outside of a profile; Profile is what to write in one, as
	// it is written there. Both are empty where nothing is to be done or can be.
	Do      string `json:"do,omitempty"`
	Profile string `json:"profile,omitempty"`
}

// Findings are all rows, in the order of the list.
type Findings []Finding

// Doctor looks at a host and changes nothing. The facts are the host's. What
// this version's language has is taken from the schemas of the kinds, so that an
// answer never promises what a profile cannot say.
func Doctor(ctx context.Context, h *host.Host, f host.Facts, kinds []Kind) Findings {
	d := newDoctor(ctx, h, f, kinds)
	fs := Findings{
		d.nativeRouting(),
		d.kubeProxyReplacement(),
		d.lbd("eBPF masquerade instead of iptables", "masquerade", `"bpf"`),
		d.lbd("NodePort in DSR mode", "mode", `"dsr"`),
		d.lbd("bypass of connection tracking", "devices", `"auto"`),
		d.lbd("eBPF host routing", "devices", `"auto"`),
		d.bigTCP(),
		d.lbd("flow observability", "flows", "true"),
		d.jumbo(),
		d.lbd("bandwidth manager (EDT pacing with fq)", "bandwidth", "true"),
		d.bbr(),
		d.xdp(),
		d.lbd("eBPF map sizes", "maps", "{}"),
		d.preempt(),
		d.tuned(),
		d.governor(),
		d.irqs(),
	}
	for i := range fs {
		if fs[i].Profile != "" && !d.known(fs[i].Profile) {
			fs[i].Profile, fs[i].Possible = "", NotYet
			fs[i].Why = join(fs[i].Why, "a profile cannot say it in this version")
		}
	}
	return fs
}

// doctor is one examination, with the context that it is made in.
type doctor struct {
	ctx     context.Context
	h       *host.Host
	f       host.Facts
	kinds   []Kind
	schemas []profile.Schema
	// nics have hardware, or a hypervisor's, behind them.
	nics []host.NICFacts
}

func newDoctor(ctx context.Context, h *host.Host, f host.Facts, kinds []Kind) *doctor {
	d := &doctor{ctx: ctx, h: h, f: f, kinds: kinds, schemas: Schemas(kinds)}
	for _, n := range f.NICs {
		if !n.Virtual {
			d.nics = append(d.nics, n)
		}
	}
	return d
}

// kernel tells whether the running kernel is of that version or newer. Its
// version is made of numbers, so that it can always be read.
func (d *doctor) kernel(least string) bool {
	have, err := version.NewVersion(d.f.Kernel.Version)
	return err == nil && !have.LessThan(version.Must(version.NewVersion(least)))
}

// says tells whether the language has the construct, with the attribute unless
// that is empty.
func (d *doctor) says(construct, attr string) bool {
	return slices.ContainsFunc(d.schemas, func(s profile.Schema) bool {
		return s.Type == construct && (attr == "" || slices.ContainsFunc(s.Attrs, func(a profile.Attr) bool { return a.Name == attr }))
	})
}

// known tells whether the language has what a snippet says. Only kinds that have
// not been built yet lack it.
func (d *doctor) known(snippet string) bool {
	src := profile.Source{Name: "snippet", Text: []byte(snippet)}
	if !strings.HasPrefix(snippet, "nodeprov {") {
		src.Text = []byte("nodeprov {\n  schema = 1\n}\n" + snippet)
	}
	include := func(_, ref string) (profile.Source, error) {
		return profiles.Source(strings.TrimPrefix(ref, profiles.Scheme))
	}
	_, diags := profile.Load(src, profile.Options{Schemas: d.schemas, Host: d.f.Value(), Include: include})
	return !diags.HasErrors()
}

func (d *doctor) container() bool { return d.f.Virtualization == "container" }

const inContainer = "this is a container: the machine that it runs on decides"

func (d *doctor) oldKernel(least string) string {
	return fmt.Sprintf("needs Linux %s, and this is %s", least, d.f.Kernel.Version)
}

func (d *doctor) nativeRouting() Finding {
	r := Finding{Item: "native routing between nodes", Possible: Yes, On: No, Profile: block("k3s", "", `flannel = "host-gw"`)}
	if !d.says("k3s", "flannel") {
		r.Possible, r.Profile = NotYet, ""
		r.Do = "write flannel-backend: host-gw into K3s's own /etc/rancher/k3s/config.yaml until then"
	}
	switch d.f.Cloud.Provider {
	case "gce", "azure", "hetzner":
		r.Possible, r.Do, r.Profile = No, "", ""
		r.Why = "the network of " + d.f.Cloud.Provider + " routes every packet itself, so nodes are no neighbours of each other"
	}
	// Written by K3s at every start.
	conf, err := d.h.ReadFile("/var/lib/rancher/k3s/agent/etc/flannel/net-conf.json")
	switch {
	case err != nil && r.Why == "":
		r.Why = "K3s is not installed, or has never run"
	case err == nil && strings.Contains(string(conf), `"host-gw"`):
		r.On, r.Do, r.Profile = Yes, "", ""
	case err == nil && r.Why == "":
		r.Why = "flannel uses another backend"
	}
	return r
}

func (d *doctor) kubeProxyReplacement() Finding {
	r := Finding{Item: "full kube-proxy replacement", Possible: Yes, On: No, Profile: "lbd {}\n"}
	pins, socket := d.h.Exists("/sys/fs/bpf/lbd/services_v1"), d.h.Exists("/run/lbd/lbd.sock")
	switch {
	case pins && socket:
		r.On = Yes
	case pins:
		r.On, r.Why = Partly, "the pins serve what they know, and lbd is not running to follow changes"
		r.Do, r.Profile = "see systemctl status lbd", ""
	case socket:
		r.On, r.Why = Unknown, "lbd runs, and its pins are not at /sys/fs/bpf/lbd"
	}
	switch {
	case !d.kernel("5.15"):
		r.Possible, r.Why, r.Do = No, d.oldKernel("5.15"), "boot a newer kernel"
	case !d.f.Kernel.BTF:
		r.Possible, r.Why, r.Do = No, "the kernel does not describe its types (no /sys/kernel/btf/vmlinux)", "boot a kernel with CONFIG_DEBUG_INFO_BTF=y"
	case d.f.CGroup == "v1", d.f.CGroup == "":
		r.Possible, r.Why, r.Do = No, "no cgroup v2 hierarchy is mounted", "boot with systemd.unified_cgroup_hierarchy=1"
	}
	switch {
	case r.On == Yes:
		r.Do, r.Profile = "", ""
	case r.Possible != Yes:
		r.Profile = ""
	case r.Why == "":
		r.Why = "lbd has not been started here"
	}
	return r
}

// lbd is a row that an attribute of the lbd block stands for.
func (d *doctor) lbd(item, attr, value string) Finding {
	const least = "5.15" // what lbd is built for
	r := Finding{Item: item, Possible: Yes, On: No, Profile: block("lbd", "", attr+" = "+value)}
	switch {
	case !d.kernel(least):
		r.Possible, r.Why, r.Profile = No, d.oldKernel(least), ""
	case !d.says("lbd", attr):
		r.Possible, r.Why, r.Profile = NotYet, "lbd cannot do it in this version", ""
	}
	return r
}

func (d *doctor) xdp() Finding {
	r := d.lbd("XDP acceleration", "xdp", `"auto"`)
	if r.Possible == No || len(d.nics) == 0 {
		return r
	}
	// Drivers with XDP of their own. Others run it after the packet was copied,
	// which saves nothing. Source: the drivers in Linux that set xdp_features.
	native := strings.Fields("bnxt_en ena gve hv_netvsc i40e ice igb igc ixgbe ixgbevf mana mlx4_en mlx5_core mvneta nfp qede sfc st_gmac " +
		"virtio_net vmxnet3")
	var without []string
	for _, n := range d.nics {
		if !slices.Contains(native, n.Driver) {
			without = append(without, fmt.Sprintf("%s (%s)", n.Name, n.Driver))
		}
	}
	if len(without) == 0 {
		return r
	}
	if len(without) == len(d.nics) {
		r.Possible, r.Profile = No, ""
	} else if r.Possible == Yes {
		r.Possible = Partly
	}
	r.Why = join(r.Why, "no XDP is known of the driver of "+strings.Join(without, ", "))
	return r
}

func (d *doctor) bigTCP() Finding {
	r := Finding{Item: "BIG TCP", Possible: No, On: Unknown}
	if !d.kernel("5.19") {
		r.On, r.Why = No, d.oldKernel("5.19")
		return r
	}
	var can, cannot []string
	for _, n := range d.nics {
		// 64 KiB is what every device that segments takes.
		if n.TSOMaxSize > 65536 {
			can = append(can, n.Name)
		} else {
			cannot = append(cannot, fmt.Sprintf("%s (%s)", n.Name, n.Driver))
		}
	}
	switch {
	case len(d.nics) == 0:
		r.On, r.Why = No, "no network device"
		return r
	case len(can) == 0:
		r.On = No
		r.Why = "segments of 64 KiB at most on " + strings.Join(cannot, ", ")
		return r
	}
	r.Possible = Yes
	var whys []string
	if len(cannot) > 0 {
		r.Possible = Partly
		whys = append(whys, "segments of 64 KiB at most on "+strings.Join(cannot, ", "))
	}
	sizes := "ipv6 = 196608, ipv4 = 196608"
	if !d.kernel("6.3") {
		r.Possible, sizes = Partly, "ipv6 = 196608"
		whys = append(whys, "IPv6 only: IPv4 "+d.oldKernel("6.3"))
	}
	r.On = d.each(can, func(nic string) Answer {
		live, ok := d.live("nic/" + nic + "/big_tcp/ipv6")
		n, err := strconv.Atoi(live)
		switch {
		case !ok || err != nil:
			return Unknown
		case n > 65536:
			return Yes
		}
		return No
	})
	r.Why = strings.Join(whys, "; ")
	if r.On != Yes {
		r.Profile = d.nic(can, "big_tcp", "{ "+sizes+", clamp = true }")
	}
	return r
}

func (d *doctor) jumbo() Finding {
	const jumbo = 8000 // some clouds have 8500 or 8896 instead of 9000
	r := Finding{Item: "jumbo MTU", Possible: No, On: No}
	var can, cannot []string
	mtu := jumbo
	for _, n := range d.nics {
		if n.MaxMTU >= jumbo {
			can = append(can, n.Name)
			mtu = min(9000, n.MaxMTU)
		} else {
			cannot = append(cannot, fmt.Sprintf("%s takes %d", n.Name, n.MaxMTU))
		}
	}
	r.Why = strings.Join(cannot, ", ")
	switch {
	case len(d.nics) == 0:
		r.Why = "no network device"
		return r
	case len(can) == 0:
		return r
	}
	r.Possible = Yes
	if len(cannot) > 0 {
		r.Possible = Partly
	}
	r.On = d.each(can, func(nic string) Answer {
		i := slices.IndexFunc(d.nics, func(n host.NICFacts) bool { return n.Name == nic })
		if d.nics[i].MTU >= jumbo {
			return Yes
		}
		return No
	})
	if r.On != Yes {
		r.Why = join(r.Why, "the whole path must take it: try ping -M do -s 8972 NEIGHBOUR first")
	}
	switch d.f.Cloud.Provider {
	case "hetzner", "digitalocean", "vultr", "scaleway":
		r.Why = join(r.Why, "the network of "+d.f.Cloud.Provider+" is not known to")
	case "gce":
		mtu = 8896 // the most that a VPC network takes
	}
	if r.On != Yes {
		r.Profile = d.nic(can, "mtu", strconv.Itoa(mtu))
	}
	return r
}

func (d *doctor) bbr() Finding {
	r := Finding{Item: "BBR for pods", Possible: Yes, On: No}
	const cc, qdisc = "net.ipv4.tcp_congestion_control", "net.core.default_qdisc"
	sysctl := func(key string) string {
		v, err := d.h.ReadSysctl(key)
		if err != nil {
			return ""
		}
		return v
	}
	have := func(module string) bool { return d.module(module) }
	bbr := slices.Contains(strings.Fields(sysctl("net.ipv4.tcp_available_congestion_control")), "bbr") || have("tcp_bbr")
	fq := sysctl(qdisc) == "fq" || have("sch_fq")
	switch {
	case sysctl(cc) == "bbr" && sysctl(qdisc) == "fq":
		r.On = Yes
	case sysctl(cc) == "bbr":
		r.On, r.Why = Partly, fmt.Sprintf("paced by TCP itself: %s is not fq", qdisc)
		if v := sysctl(qdisc); v != "" { // only the first network namespace has it
			r.Why = fmt.Sprintf("paced by TCP itself: %s is %s, not fq", qdisc, v)
		}
	}
	switch {
	case !d.kernel("5.18"):
		r.Possible, r.Why = No, join(r.Why, "for pods it "+d.oldKernel("5.18")+": packets lose their time stamps on the way out of a pod")
		return r
	case !bbr:
		r.Possible, r.Why = No, "the kernel has no BBR (module tcp_bbr)"
		return r
	case !fq:
		r.Possible, r.Why = Partly, join(r.Why, "the kernel has no fq (module sch_fq), so TCP paces itself")
		if r.On == No {
			r.Profile = d.modules("tcp_bbr") + keyMap("sysctl", [2]string{cc, "bbr"})
		}
		return r
	}
	if r.On != Yes {
		r.Profile = d.modules("tcp_bbr", "sch_fq") + keyMap("sysctl", [2]string{qdisc, "fq"}, [2]string{cc, "bbr"})
	}
	return r
}

// module tells whether the running kernel has the module, built in or to load.
func (d *doctor) module(name string) bool {
	if d.h.Exists("/sys/module/" + name) {
		return true
	}
	dir := "/lib/modules/" + d.f.Kernel.Release
	for _, list := range []string{"/modules.builtin", "/modules.dep"} {
		b, err := d.h.ReadFile(dir + list)
		if err == nil && bytes.Contains(b, []byte("/"+name+".ko")) {
			return true
		}
	}
	return false
}

func (d *doctor) preempt() Finding {
	r := Finding{Item: "no kernel preemption (preempt=none)", Possible: Yes, On: No}
	have := d.f.Kernel.Preempt
	if have == "none" {
		r.On = Yes
		return r
	}
	if have == "" {
		r.On, have = Unknown, "a preemption model that it does not tell"
	}
	words, _ := d.h.ReadFile("/sys/kernel/debug/sched/preempt")
	uts, _ := d.h.ReadFile("/proc/sys/kernel/version")
	dynamic := strings.Contains(string(uts), "PREEMPT_DYNAMIC")
	switch {
	case d.container():
		r.Possible, r.Why = No, inContainer
		return r
	case !dynamic && d.f.Kernel.Preempt == "":
		r.Possible, r.Why = Unknown, "neither its version nor its configuration tells"
		return r
	case !dynamic:
		r.Possible, r.Why = No, "this kernel was built with "+have+" and cannot choose at boot"
		return r
	case len(words) > 0 && !strings.Contains(string(words), "none"):
		r.Possible, r.Why = No, "this kernel can choose, but not none: "+strings.TrimSpace(string(words))
		return r
	}
	r.Why = "the kernel runs with " + have
	r.Profile = block("kernel", "", block("cmdline", "", `set = { preempt = "none" }`))
	if loader := d.h.BootLoader(); !loader.DropIns {
		name := loader.Name
		if name == "" {
			name = "none that is known"
		}
		r.Possible, r.Why = Partly, r.Why+"; nodeprov cannot write the configuration of the boot loader, which is "+name
		r.Profile, r.Do = "", "preempt=none: "+loader.ByHand
	}
	return r
}

// tuned looks at the sysctls by which two of tuned's profiles differ from a
// kernel's defaults.
func (d *doctor) tuned() Finding {
	r := Finding{Item: "tuned network-latency or network-throughput", Possible: Yes, On: No}
	var seen, missing []string
	for _, p := range []struct {
		name string
		keys [][2]string
	}{
		{"network-latency", [][2]string{
			{"net.core.busy_read", "50"}, {"net.core.busy_poll", "50"}, {"net.ipv4.tcp_fastopen", "3"},
			{"kernel.numa_balancing", "0"}, {"vm.stat_interval", "10"}, {"vm.dirty_ratio", "10"}, {"vm.swappiness", "10"},
		}},
		{"network-throughput", [][2]string{
			{"net.ipv4.tcp_notsent_lowat", "131072"}, {"net.ipv4.tcp_slow_start_after_idle", "0"},
			{"net.ipv4.tcp_rmem", "4096 131072 16777216"}, {"net.ipv4.tcp_wmem", "4096 16384 16777216"},
			{"vm.dirty_ratio", "40"}, {"vm.swappiness", "10"},
		}},
	} {
		if !slices.Contains(profiles.Names(), p.name) {
			missing = append(missing, p.name)
		}
		as, there := 0, 0
		for _, k := range p.keys {
			live, err := d.h.ReadSysctl(k[0])
			if err != nil {
				continue
			}
			there++
			if strings.Join(strings.Fields(live), " ") == k[1] {
				as++
			}
		}
		if there == 0 {
			continue
		}
		seen = append(seen, fmt.Sprintf("%d of %d sysctls are as in %s", as, there, p.name))
		if there > 0 && as == there {
			r.On = Yes
		}
	}
	r.Why = strings.Join(seen, ", ")
	switch {
	case len(missing) > 0:
		r.Possible = NotYet
		r.Why = join(r.Why, "this version comes without "+strings.Join(missing, " and "))
	case r.On != Yes:
		r.Profile = block("nodeprov", "", "schema = 1", `include = ["`+profiles.Scheme+`network-throughput"]`)
		r.Do = "include one of the two, " + profiles.Scheme + "network-latency or"
	}
	return r
}

func (d *doctor) governor() Finding {
	const dir = "/sys/devices/system/cpu/cpufreq"
	r := Finding{Item: "CPU in performance mode", Possible: No, On: No}
	var policies, other []string
	could := true
	for _, name := range d.h.DirNames(dir) {
		governor, err := d.h.ReadFile(dir + "/" + name + "/scaling_governor")
		if err != nil {
			continue
		}
		policies = append(policies, name)
		if g := strings.TrimSpace(string(governor)); g != "performance" && !slices.Contains(other, g) {
			other = append(other, g)
		}
		known, err := d.h.ReadFile(dir + "/" + name + "/scaling_available_governors")
		if err == nil && !slices.Contains(strings.Fields(string(known)), "performance") {
			could = false
		}
	}
	switch {
	case len(policies) == 0 && d.f.Virtualization != "":
		r.Why = "the hypervisor decides on the CPUs' frequency"
		if d.container() {
			r.Why = inContainer
		}
		return r
	case len(policies) == 0:
		r.Why = "the kernel has no driver for the CPUs' frequency (see the firmware's settings, or load acpi_cpufreq)"
		return r
	case len(other) == 0:
		r.Possible, r.On = Yes, Yes
		return r
	}
	r.Why = "the governor is " + strings.Join(other, ", ")
	if !could {
		r.Why += "; the kernel has no governor performance"
		return r
	}
	r.Possible, r.Profile = Yes, block("cpu", "", `governor = "performance"`)
	return r
}

func (d *doctor) irqs() Finding {
	r := Finding{Item: "irqbalance stopped, IRQs of NICs pinned", Possible: Yes, On: No}
	if d.container() {
		r.Possible, r.Why = No, inContainer
		return r
	}
	if d.f.CPU.Count == 1 {
		r.Possible, r.Why = No, "there is one CPU, which takes them all"
		return r
	}
	// irqbalance makes a socket named after its process.
	running := len(d.h.DirNames("/run/irqbalance")) > 0
	var spread, unknown []string
	for _, n := range d.nics {
		switch irqs, pinned := d.pinned(n.Name); {
		case irqs == 0:
			unknown = append(unknown, n.Name)
		case pinned < irqs:
			spread = append(spread, fmt.Sprintf("%d of %d IRQs of %s may go to several CPUs", irqs-pinned, irqs, n.Name))
		}
	}
	var whys []string
	if running {
		whys = append(whys, "irqbalance is running")
	}
	whys = append(whys, spread...)
	if len(unknown) > 0 {
		whys = append(whys, "no IRQs are seen of "+strings.Join(unknown, ", "))
	}
	if len(d.nics) == 0 {
		r.Possible = No
		whys = append(whys, "no network device")
	}
	r.Why = strings.Join(whys, "; ")
	switch {
	case len(d.nics) == 0:
		return r
	case len(unknown) == len(d.nics) && !running:
		r.On = Unknown
	case len(unknown) == len(d.nics):
	case !running && len(spread) == 0:
		r.On = Yes
		return r
	case !running || len(spread) == 0:
		r.On = Partly
	}
	mode := "disable"
	if d.f.Cloud.Provider == "aws" {
		// Amazon's guide for ENA does not recommend to stop it: the driver gives
		// no hints, and a device reset may put all IRQs on one CPU.
		mode = "ban"
	}
	var names []string
	for _, n := range d.nics {
		if !slices.Contains(unknown, n.Name) {
			names = append(names, n.Name)
		}
	}
	r.Profile = block("irqbalance", "", `mode = "`+mode+`"`) + d.nic(names, "irq", `{ policy = "spread", numa = "local" }`)
	return r
}

// pinned counts the interrupts of a device's queues, and those that go to one CPU
// only.
func (d *doctor) pinned(nic string) (irqs, pinned int) {
	all, err := d.h.QueueIRQs(nic)
	if err != nil {
		return 0, 0 // not told, as for a device that has none
	}
	for _, irq := range all {
		if _, err := strconv.Atoi(irq.CPUs); err == nil {
			pinned++
		}
	}
	return len(all), pinned
}

// live reads the setting of a key, "KIND/NAME"; ok is false where it cannot be.
func (d *doctor) live(key string) (text string, ok bool) {
	i := slices.IndexFunc(d.kinds, func(k Kind) bool { return k.Name == kindName(key) && k.Open != nil })
	if i < 0 {
		return "", false
	}
	s, err := d.kinds[i].Open(nameOf(key))
	if err != nil {
		return "", false
	}
	v, err := s.Read(d.ctx, d.h)
	return v.Text, err == nil && !v.Absent
}

// each is the answer for several devices.
func (d *doctor) each(nics []string, ask func(string) Answer) Answer {
	var all Answer
	for _, n := range nics {
		switch a := ask(n); {
		case all == "":
			all = a
		case all != a && (all == Unknown || a == Unknown):
			all = Unknown
		case all != a:
			all = Partly
		}
	}
	return all
}

// block is a block of the language, its attributes and blocks one a line.
func block(construct, label string, body ...string) string {
	if label != "" {
		construct += " " + strconv.Quote(label)
	}
	for i := range body {
		body[i] = strings.TrimSuffix(body[i], "\n") // a block's own
	}
	text := construct + " {\n" + strings.Join(body, "\n") + "\n}\n"
	return string(hclwrite.Format([]byte(text)))
}

// keyMap is a construct that is a map of keys.
func keyMap(construct string, kvs ...[2]string) string {
	var b strings.Builder
	for _, kv := range kvs {
		fmt.Fprintf(&b, "%q = %q\n", kv[0], kv[1])
	}
	return string(hclwrite.Format([]byte(construct + " = {\n" + b.String() + "}\n")))
}

func (d *doctor) modules(names ...string) string {
	var missing []string
	for _, n := range names {
		if !d.h.Exists("/sys/module/" + n) {
			missing = append(missing, strconv.Quote(n))
		}
	}
	if len(missing) == 0 {
		return ""
	}
	return block("kernel", "", "modules = ["+strings.Join(missing, ", ")+"]")
}

// nic is the blocks that set an attribute of these devices: one where the driver
// tells them from all others.
func (d *doctor) nic(names []string, attr, value string) string {
	driver := ""
	for _, n := range d.f.NICs {
		if slices.Contains(names, n.Name) {
			driver = n.Driver
		}
	}
	of := 0
	for _, n := range d.f.NICs {
		if n.Driver == driver {
			of++
		}
	}
	set := attr + " = " + value
	if driver != "" && of == len(names) && !slices.ContainsFunc(d.f.NICs, func(n host.NICFacts) bool {
		return n.Driver != driver && slices.Contains(names, n.Name)
	}) {
		return block("nic", "uplink", "driver = "+strconv.Quote(driver), set)
	}
	var b strings.Builder
	for _, n := range names {
		b.WriteString(block("nic", n, "name = "+strconv.Quote(n), set))
	}
	return b.String()
}

// join makes one text of two clauses.
func join(a, b string) string {
	if a == "" || b == "" {
		return a + b
	}
	return a + "; " + b
}

// style is an answer's colour.
func (a Answer) style() style {
	switch a {
	case Yes:
		return green
	case No:
		return red
	case Partly, Unknown:
		return yellow
	}
	return dim
}

// Write prints the findings: a line each, with the reason and what to do below.
func (fs Findings) Write(w io.Writer, t Text) error {
	var b bytes.Buffer
	width := 0
	for _, f := range fs {
		width = max(width, len(f.Item))
	}
	const answer = len(Unknown)
	fmt.Fprintf(&b, "%s\n", t.paint(bold, pad("", width)+"  "+pad("possible", answer+1)+"  on"))
	possible, on := 0, 0
	for _, f := range fs {
		fmt.Fprintf(&b, "%s  %s  %s\n", pad(f.Item, width),
			t.paint(f.Possible.style(), pad(string(f.Possible), answer+1)), t.paint(f.On.style(), string(f.On)))
		if f.Why != "" {
			fmt.Fprintf(&b, "      %s\n", t.paint(dim, f.Why))
		}
		if f.Do != "" {
			fmt.Fprintf(&b, "      %s\n", t.paint(cyan, f.Do))
		}
		for line := range strings.Lines(f.Profile) {
			fmt.Fprintf(&b, "        %s\n", t.paint(cyan, strings.TrimSuffix(line, "\n")))
		}
		if f.Possible == Yes || f.Possible == Partly {
			possible++
		}
		if f.On == Yes {
			on++
		}
	}
	fmt.Fprintf(&b, "\n%s\n", t.paint(bold, fmt.Sprintf("%d items: %d possible here, %d on.", len(fs), possible, on)))
	_, err := w.Write(b.Bytes())
	return err
}
