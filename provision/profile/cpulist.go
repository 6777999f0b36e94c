package profile

import (
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/zclconf/go-cty/cty"
	"github.com/zclconf/go-cty/cty/function"
	"github.com/zclconf/go-cty/cty/gocty"
	"k8s.io/utils/cpuset"
)

// maxCPUs is the largest NR_CPUS that Linux can be built with (x86's MAXSMP). It
// keeps a mistyped range from filling the memory.
const maxCPUs = 8192

var cpulistForm = regexp.MustCompile(`^\d{1,9}(-\d{1,9})?(,\d{1,9}(-\d{1,9})?)*$`)

// parseCPUs reads a list of CPUs as the kernel writes them, "0-3,8"; empty for
// none. i is the argument's position.
func parseCPUs(i int, v cty.Value) (cpuset.CPUSet, error) {
	text := strings.TrimSpace(v.AsString())
	if text == "" {
		return cpuset.New(), nil
	}
	if !cpulistForm.MatchString(text) {
		return cpuset.CPUSet{}, function.NewArgErrorf(i, `%q is not a list of CPUs; write them like "0-3,8"`, text)
	}
	for n := range strings.FieldsFuncSeq(text, func(r rune) bool { return r == ',' || r == '-' }) {
		if cpu, err := strconv.Atoi(n); err != nil || cpu >= maxCPUs {
			return cpuset.CPUSet{}, function.NewArgErrorf(i, "%q has CPU %s, and Linux numbers them from 0 to %d", text, n, maxCPUs-1)
		}
	}
	set, err := cpuset.Parse(text)
	if err != nil {
		return cpuset.CPUSet{}, function.NewArgErrorf(i, `%q: %v; write the lower number first, like "0-3"`, text, err)
	}
	return set, nil
}

func cpulistVal(set cpuset.CPUSet) (cty.Value, error) { return cty.StringVal(set.String()), nil }

var (
	cpulistParam  = function.Parameter{Name: "list", Type: cty.String}
	cpulistParamB = function.Parameter{Name: "other", Type: cty.String}
	// hostCPUParam is host.cpu.
	hostCPUParam = function.Parameter{Name: "host_cpu", Type: cty.DynamicPseudoType, AllowDynamicType: true}
)

// cpulistFunc is a function of one list.
func cpulistFunc(ty cty.Type, f func(cpuset.CPUSet) (cty.Value, error)) function.Function {
	return function.New(&function.Spec{
		Params: []function.Parameter{cpulistParam},
		Type:   function.StaticReturnType(ty),
		Impl: func(args []cty.Value, _ cty.Type) (cty.Value, error) {
			set, err := parseCPUs(0, args[0])
			if err != nil {
				return cty.NilVal, err
			}
			return f(set)
		},
	})
}

// cpulistFold joins the first list with each of the others.
func cpulistFold(f func(a, b cpuset.CPUSet) cpuset.CPUSet) function.Function {
	return function.New(&function.Spec{
		Params:   []function.Parameter{cpulistParam},
		VarParam: &function.Parameter{Name: "others", Type: cty.String},
		Type:     function.StaticReturnType(cty.String),
		Impl: func(args []cty.Value, _ cty.Type) (cty.Value, error) {
			var set cpuset.CPUSet
			for i, a := range args {
				next, err := parseCPUs(i, a)
				if err != nil {
					return cty.NilVal, err
				}
				if i == 0 {
					set = next
				} else {
					set = f(set, next)
				}
			}
			return cpulistVal(set)
		},
	})
}

func cpulistContainsFunc() function.Function {
	return function.New(&function.Spec{
		Params: []function.Parameter{cpulistParam, cpulistParamB},
		Type:   function.StaticReturnType(cty.Bool),
		Impl: func(args []cty.Value, _ cty.Type) (cty.Value, error) {
			set, err := parseCPUs(0, args[0])
			if err != nil {
				return cty.NilVal, err
			}
			part, err := parseCPUs(1, args[1])
			if err != nil {
				return cty.NilVal, err
			}
			return cty.BoolVal(part.IsSubsetOf(set)), nil
		},
	})
}

func cpulistFirstFunc() function.Function {
	return function.New(&function.Spec{
		Params: []function.Parameter{cpulistParam, {Name: "n", Type: cty.Number}},
		Type:   function.StaticReturnType(cty.String),
		Impl: func(args []cty.Value, _ cty.Type) (cty.Value, error) {
			set, err := parseCPUs(0, args[0])
			if err != nil {
				return cty.NilVal, err
			}
			n, err := count(args[1])
			if err != nil {
				return cty.NilVal, err
			}
			if set.Size() < n {
				return cty.NilVal, function.NewArgErrorf(1, "%d CPUs are asked for, and %q has %d", n, set, set.Size())
			}
			return cpulistVal(cpuset.New(set.List()[:n]...))
		},
	})
}

// count reads the second argument, a whole number from 0.
func count(v cty.Value) (int, error) {
	var n int
	if err := gocty.FromCtyValue(v, &n); err != nil || n < 0 {
		return 0, function.NewArgErrorf(1, "it is a whole number, 0 or more")
	}
	return n, nil
}

// thread is one of host.cpu.threads.
type thread struct {
	id, node int
	siblings cpuset.CPUSet
}

// threads reads host.cpu.threads by their IDs; known is false where the host is
// not.
func threads(v cty.Value) (out []thread, known bool, err error) {
	wrong := function.NewArgErrorf(0, "it needs the topology; write host.cpu")
	if !v.IsWhollyKnown() {
		return nil, false, nil
	}
	list := v.GetAttr("threads")
	if list.IsNull() || !list.CanIterateElements() {
		return nil, false, wrong
	}
	for it := list.ElementIterator(); it.Next(); {
		_, t := it.Element()
		var read struct {
			ID       int    `cty:"id"`
			Node     int    `cty:"node"`
			Siblings string `cty:"siblings"`
		}
		if t.IsNull() || !t.Type().IsObjectType() {
			return nil, false, wrong
		}
		for name, to := range map[string]any{"id": &read.ID, "node": &read.Node, "siblings": &read.Siblings} {
			if !t.Type().HasAttribute(name) || gocty.FromCtyValue(t.GetAttr(name), to) != nil {
				return nil, false, wrong
			}
		}
		siblings, err := parseCPUs(0, cty.StringVal(read.Siblings))
		if err != nil {
			return nil, false, err
		}
		out = append(out, thread{read.ID, read.Node, siblings.Union(cpuset.New(read.ID))})
	}
	slices.SortFunc(out, func(a, b thread) int { return a.id - b.id })
	return out, true, nil
}

// topologyFunc is a function of host.cpu and one more argument.
func topologyFunc(param function.Parameter, f func(ts []thread, arg cty.Value) (cpuset.CPUSet, error)) function.Function {
	return function.New(&function.Spec{
		Params: []function.Parameter{hostCPUParam, param},
		Type: func(args []cty.Value) (cty.Type, error) {
			if ty := args[0].Type(); ty != cty.DynamicPseudoType && (!ty.IsObjectType() || !ty.HasAttribute("threads")) {
				return cty.NilType, function.NewArgErrorf(0, "it needs the topology; write host.cpu")
			}
			return cty.String, nil
		},
		Impl: func(args []cty.Value, _ cty.Type) (cty.Value, error) {
			ts, known, err := threads(args[0])
			if err != nil {
				return cty.NilVal, err
			}
			if !known {
				return cty.UnknownVal(cty.String), nil
			}
			set, err := f(ts, args[1])
			if err != nil {
				return cty.NilVal, err
			}
			return cpulistVal(set)
		},
	})
}

// firstCores takes whole cores, those with the lowest CPU first: what is left to
// others is whole cores too.
func firstCores(ts []thread, arg cty.Value) (cpuset.CPUSet, error) {
	n, err := count(arg)
	if err != nil {
		return cpuset.CPUSet{}, err
	}
	set, cores := cpuset.New(), 0
	for _, t := range ts {
		if cores == n {
			break
		}
		if !set.Contains(t.id) {
			set = set.Union(t.siblings)
			cores++
		}
	}
	if cores < n {
		return set, function.NewArgErrorf(1, "%d cores are asked for, and this host has %d online; take fewer", n, cores)
	}
	return set, nil
}

func nodeCPUs(ts []thread, arg cty.Value) (cpuset.CPUSet, error) {
	n, err := count(arg)
	if err != nil {
		return cpuset.CPUSet{}, err
	}
	var cpus []int
	nodes := cpuset.New()
	for _, t := range ts {
		if t.node >= 0 {
			nodes = nodes.Union(cpuset.New(t.node))
		}
		if t.node == n {
			cpus = append(cpus, t.id)
		}
	}
	if len(cpus) == 0 {
		return cpuset.CPUSet{}, function.NewArgErrorf(1, "no NUMA node %d has a CPU online here; there are nodes %s", n, nodes)
	}
	return cpuset.New(cpus...), nil
}

func siblings(ts []thread, arg cty.Value) (cpuset.CPUSet, error) {
	set, err := parseCPUs(1, arg)
	if err != nil {
		return cpuset.CPUSet{}, err
	}
	for _, t := range ts {
		if set.Contains(t.id) {
			set = set.Union(t.siblings)
		}
	}
	return set, nil
}

// mask is what the kernel's cpumask files hold (lib/bitmap.c, "%*pb"), without the
// leading zeroes that it adds for CPUs that could be.
func mask(s cpuset.CPUSet) string {
	var words [maxCPUs / 32]uint32
	last := 0
	for _, cpu := range s.List() {
		words[cpu/32] |= 1 << (cpu % 32)
		last = cpu / 32
	}
	var b strings.Builder
	fmt.Fprintf(&b, "%x", words[last])
	for i := last - 1; i >= 0; i-- {
		fmt.Fprintf(&b, ",%08x", words[i])
	}
	return b.String()
}

func cpulistFunctions() map[string]documented {
	return map[string]documented{
		"cpulist_len": {cpulistFunc(cty.Number, func(s cpuset.CPUSet) (cty.Value, error) {
			return cty.NumberIntVal(int64(s.Size())), nil
		}), "How many CPUs a list has."},
		"cpulist_mask": {cpulistFunc(cty.String, func(s cpuset.CPUSet) (cty.Value, error) {
			return cty.StringVal(mask(s)), nil
		}), "A list in the other form that the kernel has, for files that hold a mask: hexadecimal words of 32 CPUs, the highest first."},
		"cpulist_expand": {cpulistFunc(cty.List(cty.Number), func(s cpuset.CPUSet) (cty.Value, error) {
			if s.IsEmpty() {
				return cty.ListValEmpty(cty.Number), nil
			}
			var cpus []cty.Value
			for _, cpu := range s.List() {
				cpus = append(cpus, cty.NumberIntVal(int64(cpu)))
			}
			return cty.ListVal(cpus), nil
		}), "The CPUs of a list as numbers, from the lowest."},
		"cpulist_union": {cpulistFold(func(a, b cpuset.CPUSet) cpuset.CPUSet { return a.Union(b) }),
			"The CPUs that any of the lists has."},
		"cpulist_intersect": {cpulistFold(cpuset.CPUSet.Intersection), "The CPUs that all lists have."},
		"cpulist_sub":       {cpulistFold(cpuset.CPUSet.Difference), "The CPUs of the first list that no other one has."},
		"cpulist_contains":  {cpulistContainsFunc(), "Whether a list has a CPU, or all CPUs of another list."},
		"cpulist_first":     {cpulistFirstFunc(), "The n lowest CPUs of a list; an error where it has fewer."},
		"cpulist_first_cores": {topologyFunc(function.Parameter{Name: "n", Type: cty.Number}, firstCores),
			"All threads of the n cores with the lowest CPUs; host_cpu is host.cpu. An error where it has fewer."},
		"cpulist_node":     {topologyFunc(function.Parameter{Name: "node", Type: cty.Number}, nodeCPUs), "The CPUs of a NUMA node; host_cpu is host.cpu."},
		"cpulist_siblings": {topologyFunc(cpulistParam, siblings), "A list and all threads of its cores; host_cpu is host.cpu."},
	}
}
