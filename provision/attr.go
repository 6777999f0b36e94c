package provision

import (
	"math/big"
	"strings"

	"github.com/hashicorp/hcl/v2"
	"github.com/zclconf/go-cty/cty"
	"k8s.io/utils/cpuset"

	"github.com/nodeprov/nodeprov/provision/profile"
)

// attrReader reads the attributes of one block, and gathers what is wrong with
// them. Its methods return false for an attribute that is left out, unknown or
// wrong: the kind then has nothing to do with it.
type attrReader struct {
	block profile.Block
	diags hcl.Diagnostics
	// unknown is set when an attribute that was asked for is unknown.
	unknown bool
}

func (r *attrReader) wrong(v profile.Value, name, format string, args ...any) {
	r.diags = append(r.diags, wrongAt(v.Range, "Invalid value of "+name, format, args...))
}

// value returns an attribute that is known and no secret.
func (r *attrReader) value(name string) (profile.Value, bool) {
	v, ok := given(r.block, name)
	if !ok {
		return v, false
	}
	return v, r.usable(v, name)
}

// usable refuses secrets, and notes what is unknown.
func (r *attrReader) usable(v profile.Value, name string) bool {
	if v.ContainsMarked() {
		r.diags = append(r.diags, sensitiveAt(v, name, "plan, report and journal hold it"))
		return false
	}
	if !v.IsWhollyKnown() {
		r.unknown = true
		return false
	}
	return true
}

func (r *attrReader) text(name string) (string, bool) {
	v, ok := r.value(name)
	if !ok {
		return "", false
	}
	if v.Type() != cty.String {
		r.wrong(v, name, "A string is needed, not a value of type %s.", v.Type().FriendlyName())
		return "", false
	}
	return v.AsString(), true
}

func (r *attrReader) flag(name string) (set, ok bool) {
	v, ok := r.value(name)
	if !ok {
		return false, false
	}
	if v.Type() != cty.Bool {
		r.wrong(v, name, "true or false is needed, not a value of type %s.", v.Type().FriendlyName())
		return false, false
	}
	return v.True(), true
}

func (r *attrReader) number(name string, least, most int64) (int64, bool) {
	v, ok := r.value(name)
	if !ok {
		return 0, false
	}
	if v.Type() != cty.Number {
		r.wrong(v, name, "A whole number from %d to %d is needed, not a value of type %s.", least, most, v.Type().FriendlyName())
		return 0, false
	}
	n, acc := v.AsBigFloat().Int64()
	if acc != big.Exact || n < least || n > most {
		r.wrong(v, name, "A whole number from %d to %d is needed, and %s is not one.", least, most, v.AsBigFloat().Text('g', 12))
		return 0, false
	}
	return n, true
}

// cpus reads a value that is a list of CPUs. online are those that there are;
// empty where that is unknown.
func (r *attrReader) cpus(v profile.Value, name, online string) (cpuset.CPUSet, bool) {
	if v.Value == cty.NilVal || !r.usable(v, name) || v.IsNull() {
		return cpuset.CPUSet{}, false
	}
	if v.Type() != cty.String {
		r.wrong(v, name, "A list of CPUs is a string, as \"0-3,8\", not a value of type %s.", v.Type().FriendlyName())
		return cpuset.CPUSet{}, false
	}
	text := v.AsString()
	cpus, err := cpuset.Parse(text)
	if err != nil || strings.ContainsAny(text, " \t\n") {
		r.wrong(v, name, "%q is no list of CPUs: write numbers and ranges with commas between them, as in \"0-3,8\".", text)
		return cpuset.CPUSet{}, false
	}
	there, err := cpuset.Parse(online)
	if err == nil && !there.IsEmpty() && !cpus.IsSubsetOf(there) {
		r.wrong(v, name, "%s: this machine has no CPU %s; online are %s.", text, cpus.Difference(there), there)
		return cpuset.CPUSet{}, false
	}
	return cpus, true
}

// class is what the attributes on_error and on_missing of the block make of a
// setting that the attribute v asks for.
func (r *attrReader) class(v profile.Value) Class {
	if v.BestEffort {
		return Tolerate
	}
	if _, has := r.block.Attrs["on_missing"]; has {
		if word, _ := oneOf(r.block, "on_missing", "fail", "skip"); word == "skip" {
			return Tolerate
		}
	}
	word, _ := oneOf(r.block, "on_error", string(Warn), string(Fail))
	return Class(word)
}

// classes checks on_error and on_missing, which class then reads.
func (r *attrReader) classes() {
	_, d1 := oneOf(r.block, "on_missing", "fail", "skip")
	_, d2 := oneOf(r.block, "on_error", string(Warn), string(Fail))
	r.diags = append(append(r.diags, d1...), d2...)
}

// fixed wants one value, whatever there is.
func fixed(v Value) func(Value) (Value, error) {
	return func(Value) (Value, error) { return v, nil }
}
