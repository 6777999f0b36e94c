package profile

import (
	"fmt"
	"reflect"

	"github.com/zclconf/go-cty/cty"
	"github.com/zclconf/go-cty/cty/convert"
	"github.com/zclconf/go-cty/cty/function"
)

// AtLeastType is the type of what at_least(n) returns: not a number, but the
// wish to raise a live value to n and never to lower it. Nothing converts to or
// from it, so a kind that does not know it refuses it.
var AtLeastType = cty.CapsuleWithOps("at_least", reflect.TypeFor[cty.Value](), &cty.CapsuleOps{
	GoString:     func(v any) string { return fmt.Sprintf("profile.atLeast(%#v)", *v.(*cty.Value)) },
	TypeGoString: func(reflect.Type) string { return "profile.AtLeastType" },
	Equals:       func(a, b any) cty.Value { return a.(*cty.Value).Equals(*b.(*cty.Value)) },
	RawEquals:    func(a, b any) bool { return a.(*cty.Value).RawEquals(*b.(*cty.Value)) },
})

// AtLeast returns the number n of an at_least(n), with the marks of v; ok is
// false where v is something else. n is unknown where it follows from an
// unknown host, and never null.
func AtLeast(v cty.Value) (n cty.Value, ok bool) {
	if v == cty.NilVal || !v.Type().Equals(AtLeastType) {
		return cty.NilVal, false
	}
	v, marks := v.Unmark()
	switch {
	case v.IsNull():
		return cty.NilVal, false
	case !v.IsKnown():
		n = cty.UnknownVal(cty.Number).RefineNotNull()
	default:
		n = *v.EncapsulatedValue().(*cty.Value)
	}
	return n.WithMarks(marks), true
}

// atLeastFunc allows an unknown number, so that the wish itself is known: a kind
// can then check the key without a host. It takes any type, to tell what is
// wrong with those that it refuses.
func atLeastFunc() function.Function {
	return function.New(&function.Spec{
		Params: []function.Parameter{{Name: "number", Type: cty.DynamicPseudoType, AllowUnknown: true, AllowDynamicType: true}},
		Type:   function.StaticReturnType(AtLeastType),
		Impl: func(args []cty.Value, _ cty.Type) (cty.Value, error) {
			if isBestEffort(args[0].Type()) {
				return cty.NilVal, function.NewArgErrorf(0, "best_effort() goes around at_least(), not into it; write best_effort(at_least(…))")
			}
			n, err := convert.Convert(args[0], cty.Number)
			if err != nil {
				return cty.NilVal, function.NewArgErrorf(0, "%v", err)
			}
			if infinite(n) {
				return cty.NilVal, function.NewArgErrorf(0, "it is infinite; check for a division by zero")
			}
			if !n.IsKnown() {
				n = cty.UnknownVal(cty.Number).RefineNotNull()
			}
			return cty.CapsuleVal(AtLeastType, &n), nil
		},
	})
}
