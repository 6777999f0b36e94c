package provision

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/hclwrite"

	"github.com/nodeprov/nodeprov/profiles"
	"github.com/nodeprov/nodeprov/provision/host"
	"github.com/nodeprov/nodeprov/provision/profile"
)

// StarterRoles are what a host can be that a profile is begun for, the first one
// by default: any node, a K3s server, a K3s agent.
func StarterRoles() []string { return []string{"node", "server", "agent"} }

// Starter writes a commented profile for the engine's host, in canonical form. It
// holds what is good for every node and what this host can have; what needs a
// decision is there as a comment, and so is what it cannot have, with the reason.
// Every part has been planned here before it is written. The host must be live.
func (e *Engine) Starter(ctx context.Context, f host.Facts, role string) ([]byte, error) {
	s := &starter{engine: e, facts: f, d: newDoctor(ctx, e.Host, f, e.Kinds)}
	s.collect(role)
	// What stands now must plan: the frame, and nothing more.
	if err := s.try(ctx); err != nil {
		return nil, fmt.Errorf("init: even an empty profile does not plan here: %w", err)
	}
	for _, p := range s.parts {
		if p.decide {
			continue
		}
		p.on = true
		if err := s.try(ctx); err != nil {
			p.on, p.why = false, "left out, as it does not plan here: "+err.Error()
		}
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
	}
	return s.render(), nil
}

type starter struct {
	engine *Engine
	facts  host.Facts
	d      *doctor
	parts  []*starterPart
	// cannot are the doctor's rows that this host cannot have.
	cannot []Finding
}

// starterPart is a few lines of a block.
type starterPart struct {
	// block is the header of the block that the lines stand in, or "sysctl =".
	// "include" is the list of included profiles.
	block string
	lines []string
	why   string
	// decide leaves the lines to the user, as a comment.
	decide bool
	on     bool
}

func (s *starter) add(block, why string, decide bool, lines ...string) {
	// What this version's language lacks would be no help as a comment either.
	construct, _, _ := strings.Cut(block, " ")
	if construct != "include" && construct != "locals" && !s.d.says(construct, "") {
		return
	}
	s.parts = append(s.parts, &starterPart{block: block, lines: lines, why: why, decide: decide})
}

func (s *starter) include(why string, decide bool, names ...string) {
	for _, n := range names {
		if slices.Contains(profiles.Names(), n) {
			s.add("include", why, decide, strconv.Quote(profiles.Scheme+n)+",")
		}
	}
}

func (s *starter) collect(role string) {
	d, f := s.d, s.facts
	switch role {
	case "server", "agent":
		s.include("", false, "k3s-"+role) // which includes base
	default:
		s.include("", false, "base")
	}
	s.include("for bulk transfers: larger socket buffers, the CPU at full speed", true, "network-throughput")
	s.include("for quick answers: busy polling, shallow C-states; takes more power", true, "network-latency")

	bbr := d.bbr()
	if bbr.Possible == Yes || bbr.Possible == Partly {
		var modules []string
		for _, m := range []string{"tcp_bbr", "sch_fq"} {
			if !d.h.Exists("/sys/module/"+m) && d.module(m) {
				modules = append(modules, strconv.Quote(m))
			}
		}
		if len(modules) > 0 {
			s.add("kernel", "", false, "modules = ["+strings.Join(modules, ", ")+"]")
		}
		lines := []string{`"net.ipv4.tcp_congestion_control" = "bbr"`}
		if bbr.Possible == Yes {
			lines = append([]string{`"net.core.default_qdisc" = "fq"`}, lines...)
		}
		s.add("sysctl", "", false, lines...)
	} else {
		s.cannot = append(s.cannot, bbr)
	}
	if p := d.preempt(); p.Possible == Yes && p.On != Yes {
		s.add("kernel", "fewer switches between tasks; takes a reboot, which nodeprov does by itself at boot only if told to", true,
			"cmdline {", `set = { preempt = "none" }`, `reboot = "if-needed"`, "}")
	} else if p.On != Yes {
		s.cannot = append(s.cannot, p)
	}
	if f.CPU.Count >= 4 {
		s.add("locals", "whole cores that are kept for the system, away from pods", true, "reserved = cpulist_first_cores(host.cpu, 1)")
	}
	if g := d.governor(); g.Possible == Yes {
		s.add("cpu", "", false, `governor = "performance"`)
	} else {
		s.cannot = append(s.cannot, g)
	}
	if f.CPU.Count >= 4 {
		s.add("cpu", "with locals above", true, `allowed_cpus = { "system.slice" = local.reserved, "user.slice" = local.reserved }`)
	}
	irqs := d.irqs()
	if irqs.Possible == Yes {
		mode := `mode = "disable"`
		if f.Cloud.Provider == "aws" {
			mode = `mode = "ban"`
		}
		s.add("irqbalance", "together with irq in the nic block", true, mode)
	} else {
		s.cannot = append(s.cannot, irqs)
	}
	s.nics(irqs.Possible == Yes)
	if k := d.kubeProxyReplacement(); k.Possible == Yes {
		s.add("lbd", "replaces kube-proxy, which must be off then: disable-kube-proxy for K3s", true)
	} else {
		s.cannot = append(s.cannot, k)
	}
}

// nics adds a block for each driver: names and addresses come late at boot, and
// names may change; the driver is what the device is.
func (s *starter) nics(irqs bool) {
	var drivers []string
	for _, n := range s.d.nics {
		if n.Driver != "" && !slices.Contains(drivers, n.Driver) {
			drivers = append(drivers, n.Driver)
		}
	}
	big, jumbo := s.d.bigTCP(), s.d.jumbo()
	for _, r := range []Finding{big, jumbo} {
		if r.Possible == No {
			s.cannot = append(s.cannot, r)
		}
	}
	for _, driver := range drivers {
		var names []string
		tso, mtu, queues, short := 1<<31, host.MaxMTU, 1<<31, false
		for _, n := range s.d.nics {
			if n.Driver != driver {
				continue
			}
			name := n.Name
			if n.PCI != "" {
				name += " (pci " + n.PCI + ")"
			}
			names = append(names, name)
			tso, mtu = min(tso, n.TSOMaxSize), min(mtu, n.MaxMTU)
			queues = min(queues, n.Channels.MaxCombined)
			short = short || n.Rings.RX < n.Rings.MaxRX || n.Rings.TX < n.Rings.MaxTX
		}
		block := "nic " + strconv.Quote(driver)
		which := "which has " + strings.Join(names, ", ")
		match := "driver = " + strconv.Quote(driver)
		s.add(block, which, false, match)
		if (big.Possible == Yes || big.Possible == Partly) && tso > 65536 {
			sizes := "ipv6 = 196608"
			if s.d.kernel("6.3") {
				sizes += ", ipv4 = 196608"
			}
			s.add(block, "BIG TCP, as far as the device goes", false, "big_tcp = { "+sizes+", clamp = true }")
		}
		if jumbo.Possible != No && mtu >= 8000 {
			s.add(block, "if the whole path takes it", true, "mtu = "+strconv.Itoa(min(9000, mtu)))
		}
		if short {
			s.add(block, "fewer drops under bursts, a little more latency", true, `rings = { rx = "max", tx = "max" }`)
		}
		if queues > 1 && irqs {
			s.add(block, "", true, `irq = { policy = "spread", numa = "local" }`)
		}
	}
}

// try evaluates and plans what stands.
func (s *starter) try(ctx context.Context) error {
	return s.plan(ctx, s.render())
}

func (s *starter) plan(ctx context.Context, text []byte) error {
	src := profile.Source{Name: "profile.hcl", Text: text}
	p, diags := profile.Load(src, profile.Options{
		Schemas: Schemas(s.engine.Kinds),
		Host:    s.facts.Value(),
		Include: func(_, ref string) (profile.Source, error) {
			return profiles.Source(strings.TrimPrefix(ref, profiles.Scheme))
		},
	})
	if err := firstError(diags); err != nil {
		return err
	}
	ws, diags := s.engine.Desired(p, &s.facts, PhaseAll)
	if err := firstError(diags); err != nil {
		return err
	}
	plan, diags, err := s.engine.Plan(ctx, ws, PhaseAll)
	if err != nil {
		return err
	}
	if err := firstError(diags); err != nil {
		return err
	}
	for _, c := range plan.Changes {
		if c.Err != nil && c.Action != None && (c.Action == Unsupported || c.Action == Unreadable) {
			return c.Err
		}
	}
	return nil
}

func firstError(diags hcl.Diagnostics) error {
	for _, d := range diags {
		if d.Severity == hcl.DiagError {
			return fmt.Errorf("%s: %s", d.Summary, strings.TrimSuffix(d.Detail, "."))
		}
	}
	return nil
}

func (s *starter) render() []byte {
	f := s.facts
	var b strings.Builder
	where := f.Virtualization
	if f.Cloud.Provider != "" {
		where = f.Cloud.Provider
	}
	if where == "" {
		where = "no hypervisor"
	}
	cpus := "1 CPU"
	if f.CPU.Count > 1 {
		cpus = fmt.Sprintf("%d CPUs", f.CPU.Count)
	}
	if n := len(f.CPU.NUMA); n > 1 {
		cpus += fmt.Sprintf(" on %d NUMA nodes", n)
	}
	fmt.Fprintf(&b, "# Profile of %s: %s, %d MiB, %s %s, Linux %s, %s.\n",
		printable(f.Hostname), cpus, f.Memory.Total>>20, printable(f.Distribution.ID), printable(f.Distribution.VersionID),
		printable(f.Kernel.Release), printable(where))
	b.WriteString(`#
# nodeprov plan shows what it would change, and nodeprov apply changes it. Lines that
# begin with a # are suggestions which need your decision.

nodeprov {
schema = 1
`)
	if includes := s.in("include"); len(includes) > 0 {
		b.WriteString("include = [\n")
		for _, p := range includes {
			for _, l := range p.lines {
				if p.on {
					b.WriteString(l + "\n")
				} else {
					fmt.Fprintf(&b, "# %s # %s\n", l, printable(p.why))
				}
			}
		}
		b.WriteString("]\n")
	}
	b.WriteString("}\n\nmatch {\n")
	fmt.Fprintf(&b, "arch = [%q]\nkernel = %q\n}\n", f.Arch, ">= "+minor(f.Kernel.Version))
	var done []string
	for _, p := range s.parts {
		if p.block != "include" && !slices.Contains(done, p.block) {
			done = append(done, p.block)
			s.renderBlock(&b, p.block)
		}
	}
	if len(s.cannot) > 0 {
		b.WriteString("\n# What this host cannot have (nodeprov doctor has the whole list):\n")
		for _, r := range s.cannot {
			fmt.Fprintf(&b, "#   %s: %s\n", r.Item, printable(r.Why))
		}
	}
	return hclwrite.Format([]byte(b.String()))
}

// minor is the version without its last number, which distributions use as they
// like.
func minor(v string) string {
	parts := strings.SplitN(v, ".", 3)
	return strings.Join(parts[:min(2, len(parts))], ".")
}

func (s *starter) in(block string) []*starterPart {
	var ps []*starterPart
	for _, p := range s.parts {
		if p.block == block {
			ps = append(ps, p)
		}
	}
	return ps
}

// renderBlock writes a block with its comments. One in which nothing is on, or
// only what says for whom it is, is a comment as a whole.
func (s *starter) renderBlock(b *strings.Builder, block string) {
	head := block + " {\n"
	if block == "sysctl" {
		head = block + " = {\n"
	}
	parts := s.in(block)
	isNIC := strings.HasPrefix(block, "nic ")
	on := 0
	for _, p := range parts {
		if p.on {
			on++
		}
	}
	if isNIC && len(parts) == 1 {
		return // nothing to say but whom it is for
	}
	if isNIC && parts[0].on {
		on--
	}
	b.WriteString("\n")
	if on > 0 {
		b.WriteString(head)
		for _, p := range parts {
			if p.on {
				b.WriteString(p.text())
			} else {
				commented(b, p.text())
			}
		}
		b.WriteString("}\n")
		return
	}
	if len(parts) == 1 && len(parts[0].lines) == 0 {
		fmt.Fprintf(b, "# %s {}%s\n", block, trailing(parts[0].why))
		return
	}
	body := head
	for _, p := range parts {
		body += p.text()
	}
	commented(b, body+"}\n")
}

// text is the lines, with the reason after the first one.
func (p *starterPart) text() string {
	return p.lines[0] + trailing(p.why) + "\n" + strings.Join(append(p.lines[1:len(p.lines):len(p.lines)], ""), "\n")
}

// commented writes lines of the language as comments, in canonical form.
func commented(b *strings.Builder, text string) {
	for line := range strings.Lines(string(hclwrite.Format([]byte(text)))) {
		b.WriteString("# " + line)
	}
}
