package profile

import (
	"fmt"
	"reflect"

	"github.com/zclconf/go-cty/cty"
	"github.com/zclconf/go-cty/cty/function"
)

// bestEffortType is the type of what best_effort(v) returns. Load takes it off
// and sets Value.BestEffort, so kinds never see it. Nothing converts to or from
// it.
var bestEffortType = cty.CapsuleWithOps("best_effort", reflect.TypeFor[cty.Value](), &cty.CapsuleOps{
	GoString:     func(v any) string { return fmt.Sprintf("profile.bestEffort(%#v)", *v.(*cty.Value)) },
	TypeGoString: func(reflect.Type) string { return "profile.bestEffortType" },
	Equals:       func(a, b any) cty.Value { return a.(*cty.Value).Equals(*b.(*cty.Value)) },
	RawEquals:    func(a, b any) bool { return a.(*cty.Value).RawEquals(*b.(*cty.Value)) },
})

func bestEffortFunc() function.Function {
	return function.New(&function.Spec{
		Params: []function.Parameter{{
			Name: "value", Type: cty.DynamicPseudoType, AllowUnknown: true, AllowDynamicType: true, AllowNull: true,
		}},
		Type: function.StaticReturnType(bestEffortType),
		Impl: func(args []cty.Value, _ cty.Type) (cty.Value, error) {
			if v := args[0]; !v.Type().Equals(bestEffortType) {
				return cty.CapsuleVal(bestEffortType, &v), nil
			}
			return args[0], nil
		},
	})
}

// efforts says what of a value was best_effort().
type efforts struct {
	whole bool
	parts map[string]bool // elements, by Entry.Key
}

// takeEfforts takes best_effort() off v and off its elements. One that is deeper
// inside, or in a set, stays.
func takeEfforts(v cty.Value) (cty.Value, efforts) {
	e := efforts{parts: map[string]bool{}}
	v, e.whole = takeEffort(v)
	ty := v.Type()
	if ty.IsSetType() || !holds(ty, isBestEffort) {
		return v, e
	}
	bare, marks := v.Unmark()
	switch {
	case bare.IsNull():
		return cty.NullVal(cty.DynamicPseudoType).WithMarks(marks), e
	case !bare.IsKnown():
		return cty.DynamicVal.WithMarks(marks), e
	case ty.IsMapType() || ty.IsObjectType():
		elements := bare.AsValueMap()
		for k, v := range elements {
			if elements[k], e.parts[k] = takeEffort(v); !e.parts[k] {
				delete(e.parts, k)
			}
		}
		return cty.ObjectVal(elements).WithMarks(marks), e
	}
	elements := bare.AsValueSlice()
	for i, v := range elements {
		var taken bool
		if elements[i], taken = takeEffort(v); taken {
			e.parts[indexKey(i)] = true
		}
	}
	return cty.TupleVal(elements).WithMarks(marks), e
}

func takeEffort(v cty.Value) (cty.Value, bool) {
	if !isBestEffort(v.Type()) {
		return v, false
	}
	v, marks := v.Unmark()
	switch {
	case !v.IsKnown():
		v = cty.DynamicVal
	case v.IsNull():
		v = cty.NullVal(cty.DynamicPseudoType)
	default:
		v = *v.EncapsulatedValue().(*cty.Value)
	}
	return v.WithMarks(marks), true
}

func isBestEffort(ty cty.Type) bool { return ty.Equals(bestEffortType) }
