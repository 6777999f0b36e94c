package provision

import (
	"fmt"
	"math/big"
	"regexp"
	"strconv"

	"github.com/hashicorp/hcl/v2"
	"github.com/zclconf/go-cty/cty"

	"github.com/nodeprov/nodeprov/provision/profile"
)

const thpDir = "/sys/kernel/mm/transparent_hugepage"

// kernelKind is the kernel block, which is made of modules, files of /sys and the kernel's
// command line.
func kernelKind() Kind {
	return Kind{
		Name: "kernel",
		Schema: &profile.Schema{
			Type:      "kernel",
			Singleton: true,
			Doc: "What concerns the kernel as a whole: modules, which are loaded before anything else is set, transparent huge pages, " +
				"reserved huge pages, and the command line.",
			Attrs: []profile.Attr{
				{Name: "modules", Type: cty.List(cty.String), BestEffort: true, Doc: "Modules to load, by name or alias, as in " +
					"[\"nf_conntrack\", best_effort(\"tcp_bbr\")]. Those that are built in count as loaded. They stay loaded when the profile no longer has them."},
				{Name: "thp", Type: cty.String, BestEffort: true, Doc: "Transparent huge pages: \"always\", \"madvise\" (for programs that ask for them) or \"never\"."},
				{Name: "thp_defrag", Type: cty.String, BestEffort: true, Doc: "How hard the kernel tries to make room for transparent huge pages when one is needed: " +
					"\"always\", \"defer\", \"defer+madvise\", \"madvise\" or \"never\"."},
				{Name: "on_error", Type: cty.String, Default: cty.StringVal(string(Warn)), Doc: "What a failure to set any of it does: \"warn\" goes on and the profile counts as partly " +
					"applied, \"fail\" stops."},
			},
			Blocks: []profile.Schema{
				{
					Type:  "hugepages",
					Label: "size",
					Doc: "Reserves huge pages of this size, such as \"2M\" or \"1G\". The kernel makes as many as it finds room for: fewer than asked for are " +
						"an error that says how many. Reserve many or large ones at boot, through cmdline.",
					Attrs: []profile.Attr{
						{Name: "count", Type: cty.DynamicPseudoType, BestEffort: true, Doc: "Number of pages of the whole machine, spread over its NUMA nodes; or at_least(n). Either this or nodes."},
						{Name: "nodes", Type: cty.DynamicPseudoType, BestEffort: true, Doc: "Number of pages, or at_least(n), by NUMA node: { \"0\" = 256, \"1\" = 256 }."},
					},
				},
				cmdlineSchema(),
			},
		},
		Wanted: kernelWanted,
		Open: func(name string) (Setting, error) {
			return nil, fmt.Errorf("kernel: %q: it has no settings but those below module, sysfs and cmdline", name)
		},
		Scope:    Machine,
		Lifetime: Runtime,
		Effect:   "now",
		Early:    true,
	}
}

func kernelWanted(b profile.Block, t Target) ([]Wanted, hcl.Diagnostics) {
	word, diags := oneOf(b, "on_error", string(Warn), string(Fail))
	onError := Class(word)
	var ws []Wanted
	add := func(more []Wanted, ds hcl.Diagnostics) {
		ws, diags = append(ws, more...), append(diags, ds...)
	}
	if v, ok := given(b, "modules"); ok {
		add(modulesWanted(v, onError))
	}
	add(thpWanted(b, "thp", "enabled", onError, "always", "madvise", "never"))
	add(thpWanted(b, "thp_defrag", "defrag", onError, "always", "defer", "defer+madvise", "madvise", "never"))
	sizes := map[uint64]profile.Block{}
	for _, n := range b.Blocks {
		switch n.Type {
		case "hugepages":
			size, ok := pageSize(n.Label)
			if !ok {
				diags = append(diags, wrongAt(n.Range, "Invalid size of huge pages", "%q is no size. Write it as in \"2M\" or \"1G\".", n.Label))
				continue
			}
			if prev, dup := sizes[size]; dup {
				diags = append(diags, wrongAt(n.Range, "Size given twice", "%q is another spelling of %q, which is set at %s. Remove one of the two.", n.Label, prev.Label, place(prev.Range)))
				continue
			}
			sizes[size] = n
			add(hugepagesWanted(n, size, onError))
		case "cmdline":
			add(cmdlineWanted(n, t, onError))
		}
	}
	return ws, diags
}

func thpWanted(b profile.Block, attr, name string, onError Class, words ...string) ([]Wanted, hcl.Diagnostics) {
	v, ok := given(b, attr)
	if !ok {
		return nil, nil
	}
	word, diags := oneOf(b, attr, words...)
	if len(diags) > 0 || !v.IsKnown() {
		return nil, diags
	}
	if v.BestEffort {
		onError = Tolerate
	}
	return []Wanted{sysfsWanted(thpDir+"/"+name, word, v.Range, onError)}, nil
}

// pageSize is the size in kB that people write as "2M", "1G" or "64K", with or without a B
// at its end.
func pageSize(text string) (kb uint64, ok bool) {
	m := regexp.MustCompile(`^([1-9]\d{0,8})([kKMG])B?$`).FindStringSubmatch(text)
	if m == nil {
		return 0, false
	}
	n, err := strconv.ParseUint(m[1], 10, 64)
	return n << map[string]uint{"k": 0, "K": 0, "M": 10, "G": 20}[m[2]], err == nil
}

func hugepagesWanted(b profile.Block, size uint64, onError Class) ([]Wanted, hcl.Diagnostics) {
	count, byCount := given(b, "count")
	nodes, byNode := given(b, "nodes")
	if byCount == byNode {
		rng, what := b.Range, "neither"
		if byCount {
			rng, what = nodes.Range, "both"
		}
		return nil, hcl.Diagnostics{wrongAt(rng, "Either count or nodes", "hugepages %q has %s of them. Write count = 512 for the machine, or nodes = { \"0\" = 512 } for some NUMA nodes.", b.Label, what)}
	}
	m := kernelMap{noun: "number of huge pages", root: "/sys"}
	var ws []Wanted
	var diags hcl.Diagnostics
	add := func(dir string, e profile.Entry, tolerate bool) {
		w, null, more := m.wish(e)
		diags = append(diags, more...)
		if w == nil || null {
			return
		}
		if _, isNumber := new(big.Int).SetString(w.text, 10); w.least == nil && !isNumber || e.Value.Type() == cty.Bool {
			diags = append(diags, wrongAt(e.Value.Range, "Invalid number of huge pages", "A whole number or at_least(n) is needed."))
			return
		}
		if w.text != "" && w.text[0] == '-' || w.least != nil && w.least.Sign() < 0 {
			diags = append(diags, wrongAt(e.Value.Range, "Invalid number of huge pages", "There cannot be fewer than none."))
			return
		}
		class := onError
		if tolerate {
			class = Tolerate
		}
		ws = append(ws, sysfsWish(fmt.Sprintf("%s/hugepages/hugepages-%dkB/nr_hugepages", dir, size), w, e.Value.Range, class))
	}
	if byCount {
		add("/sys/kernel/mm", profile.Entry{Key: "count", Value: count}, count.BestEffort)
		return ws, diags
	}
	if nodes.IsMarked() {
		return nil, hcl.Diagnostics{sensitiveAt(nodes, "nodes", "plan and journal show it")}
	}
	if !nodes.IsKnown() {
		return nil, nil
	}
	if ty := nodes.Type(); !ty.IsObjectType() && !ty.IsMapType() {
		return nil, hcl.Diagnostics{wrongAt(nodes.Range, "Unsuitable value", "nodes is a map from NUMA nodes to numbers of pages, not a value of type %s.", ty.FriendlyName())}
	}
	for _, e := range nodes.Entries {
		if n, err := strconv.ParseUint(e.Key, 10, 16); err != nil || strconv.FormatUint(n, 10) != e.Key {
			diags = append(diags, wrongAt(e.KeyRange, "Invalid NUMA node", "%q is no number of a NUMA node; host.cpu.numa lists them.", e.Key))
			continue
		}
		add("/sys/devices/system/node/node"+e.Key, e, nodes.BestEffort || e.Value.BestEffort)
	}
	return ws, diags
}
