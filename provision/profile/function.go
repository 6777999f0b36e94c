package profile

import (
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"maps"
	"net/url"
	"path"
	"strings"
	"unicode/utf8"

	"github.com/hashicorp/hcl/v2/ext/tryfunc"
	"github.com/zclconf/go-cty/cty"
	"github.com/zclconf/go-cty/cty/function"
	"github.com/zclconf/go-cty/cty/function/stdlib"
)

// Function is one of the language's functions, as its reference tells it.
type Function struct {
	Name string
	// Signature is the name with its parameters: "max(numbers...)".
	Signature string
	// Description is one sentence.
	Description string
}

// Functions returns the language's functions, sorted by name.
func Functions() []Function {
	var out []Function
	fs := newLoader(Options{}).documented("")
	for _, name := range names(fs) {
		f := fs[name]
		var params []string
		for _, p := range f.Params() {
			params = append(params, p.Name)
		}
		if p := f.VarParam(); p != nil {
			params = append(params, p.Name+"...")
		}
		out = append(out, Function{name, name + "(" + strings.Join(params, ", ") + ")", f.doc})
	}
	return out
}

// documented is a function with its description.
type documented struct {
	function.Function
	doc string
}

// functionsFor are the functions that an expression in a source may call: they
// differ in what a relative path starts at.
func (l *loader) functionsFor(source string) map[string]function.Function {
	if fs := l.functions[source]; fs != nil {
		return fs
	}
	fs := map[string]function.Function{}
	for name, f := range l.documented(source) {
		fs[name] = f.Function
	}
	l.functions[source] = fs
	return fs
}

// documented are the language's functions, under the names that Terraform gives
// them. None has a side effect, and none asks the machine, the clock or chance:
// what file and credential return is handed in.
func (l *loader) documented(source string) map[string]documented {
	fs := map[string]documented{
		"at_least":     {atLeastFunc(), "The wish to raise a live value to a number, and never to lower it."},
		"best_effort":  {bestEffortFunc(), "A value that the host may be unable to have: that is reported, and no failure."},
		"can":          {tryfunc.CanFunc, "Whether an expression can be evaluated without an error."},
		"credential":   {l.credentialFunc(), "The secret of this name, which is sensitive: a systemd credential, or a file in /etc/credstore."},
		"file":         {l.fileFunc(source), "The text of a file; a relative path starts at this profile's directory."},
		"templatefile": {l.templateFileFunc(source), "The text of a template in a file, with ${NAME} for each element of vars; a path as for file()."},
		"try":          {tryfunc.TryFunc, "The first of the expressions that can be evaluated without an error."},
	}
	for _, more := range []map[string]documented{numberFunctions(), textFunctions(), collectionFunctions(), cpulistFunctions()} {
		maps.Copy(fs, more)
	}
	return fs
}

func numberFunctions() map[string]documented {
	return map[string]documented{
		"abs":      {stdlib.AbsoluteFunc, "A number without its sign."},
		"ceil":     {stdlib.CeilFunc, "The next whole number that is not smaller."},
		"floor":    {stdlib.FloorFunc, "The next whole number that is not larger."},
		"log":      {stdlib.LogFunc, "The logarithm of a number to a base."},
		"max":      {stdlib.MaxFunc, "The largest of the numbers."},
		"min":      {stdlib.MinFunc, "The smallest of the numbers."},
		"parseint": {stdlib.ParseIntFunc, "The whole number that a text holds, written in a base from 2 to 62."},
		"pow":      {stdlib.PowFunc, "A number to a power."},
		"signum":   {stdlib.SignumFunc, "-1, 0 or 1: the sign of a number."},
		"sum":      {sumFunc(), "The sum of a list of numbers; 0 for an empty one."},
		"tonumber": {stdlib.MakeToFunc(cty.Number), "A value as a number."},
	}
}

func textFunctions() map[string]documented {
	return map[string]documented{
		"base64decode": {base64DecodeFunc(), "The text that Base64 stands for."},
		"base64encode": {stringFunc("string", base64Encode), "A text in Base64."},
		"basename":     {stringFunc("path", path.Base), "The last part of a path."},
		"chomp":        {stdlib.ChompFunc, "A text without the newlines at its end."},
		"cidrhost":     {cidrHostFunc(), "The address with a number in a network; negative numbers count from its end."},
		"cidrnetmask":  {cidrNetmaskFunc(), "The netmask of an IPv4 network, as 255.255.0.0."},
		"cidrsubnet":   {cidrSubnetFunc(), "The network with a number in a network, its prefix longer by newbits."},
		"csvdecode":    {stdlib.CSVDecodeFunc, "The lines of CSV as objects; the first line names their attributes."},
		"dirname":      {stringFunc("path", path.Dir), "A path without its last part."},
		"endswith":     {stringTest("suffix", strings.HasSuffix), "Whether a text ends with another one."},
		"format":       {stdlib.FormatFunc, "A text with values put in for its verbs, as %s and %d."},
		"formatdate":   {stdlib.FormatDateFunc, "A time, given as RFC 3339, in another format, such as \"YYYY-MM-DD\"."},
		"formatlist":   {stdlib.FormatListFunc, "As format, for each element of lists."},
		"indent":       {stdlib.IndentFunc, "A text with so many spaces before each line but the first."},
		"join":         {stdlib.JoinFunc, "The texts of lists, with a separator between them."},
		"jsondecode":   {stdlib.JSONDecodeFunc, "The value that a JSON text holds."},
		"jsonencode":   {stdlib.JSONEncodeFunc, "A value as JSON."},
		"lower":        {stdlib.LowerFunc, "A text in lower case."},
		"regex":        {stdlib.RegexFunc, "What a regular expression (RE2) matches first; an error where it matches nothing."},
		"regexall":     {stdlib.RegexAllFunc, "All that a regular expression (RE2) matches."},
		"replace":      {replaceFunc(), "A text with every occurrence of a text, or of a /regular expression/, replaced."},
		"sha256":       {stringFunc("string", sha256Hex), "The SHA-256 of a text, in hex."},
		"split":        {stdlib.SplitFunc, "The parts of a text between separators."},
		"startswith":   {stringTest("prefix", strings.HasPrefix), "Whether a text starts with another one."},
		"strcontains":  {stringTest("substr", strings.Contains), "Whether a text has another one inside."},
		"strrev":       {stdlib.ReverseFunc, "A text backwards."},
		"substr":       {stdlib.SubstrFunc, "So many characters of a text, from a position; -1 for all up to the end."},
		"timeadd":      {stdlib.TimeAddFunc, "A time, given as RFC 3339, and a duration after it, such as \"24h\"."},
		"title":        {stdlib.TitleFunc, "A text with the first letter of each word in upper case."},
		"tostring":     {stdlib.MakeToFunc(cty.String), "A value as a text."},
		"trim":         {stdlib.TrimFunc, "A text without the characters of a set at its ends."},
		"trimprefix":   {stdlib.TrimPrefixFunc, "A text without a prefix, where it has it."},
		"trimspace":    {stdlib.TrimSpaceFunc, "A text without white space and newlines at its ends."},
		"trimsuffix":   {stdlib.TrimSuffixFunc, "A text without a suffix, where it has it."},
		"upper":        {stdlib.UpperFunc, "A text in upper case."},
		"urlencode":    {stringFunc("string", url.QueryEscape), "A text, escaped for the query of a URL."},
	}
}

func collectionFunctions() map[string]documented {
	return map[string]documented{
		"alltrue":         {boolsFunc(true), "Whether all elements of a list are true; true for an empty one."},
		"anytrue":         {boolsFunc(false), "Whether any element of a list is true; false for an empty one."},
		"chunklist":       {stdlib.ChunklistFunc, "A list cut into lists of a size."},
		"coalesce":        {stdlib.CoalesceFunc, "The first of the values that is not null."},
		"coalescelist":    {stdlib.CoalesceListFunc, "The first of the lists that is not empty."},
		"compact":         {stdlib.CompactFunc, "A list of texts without the empty ones."},
		"concat":          {stdlib.ConcatFunc, "Lists, one after the other."},
		"contains":        {stdlib.ContainsFunc, "Whether a list or set has a value."},
		"distinct":        {stdlib.DistinctFunc, "A list with each value once."},
		"element":         {stdlib.ElementFunc, "An element of a list; positions past its end start again at 0."},
		"flatten":         {stdlib.FlattenFunc, "A list of lists as one list."},
		"index":           {indexFunc(), "The position, from 0, of the first element of a list that equals a value."},
		"keys":            {stdlib.KeysFunc, "The keys of a map, sorted."},
		"length":          {lengthFunc(), "The number of elements of a collection, or of characters of a text."},
		"lookup":          {stdlib.LookupFunc, "The element of a map with a key, or a default."},
		"merge":           {stdlib.MergeFunc, "Maps as one; of equal keys the last one holds."},
		"one":             {oneFunc(), "The only element of a list, or null where it is empty."},
		"range":           {stdlib.RangeFunc, "The numbers from a start to before a limit, by a step."},
		"reverse":         {stdlib.ReverseListFunc, "A list backwards."},
		"setintersection": {stdlib.SetIntersectionFunc, "The elements that all sets have."},
		"setproduct":      {stdlib.SetProductFunc, "All combinations of one element of each set."},
		"setsubtract":     {stdlib.SetSubtractFunc, "The elements of a set that another one does not have."},
		"setunion":        {stdlib.SetUnionFunc, "The elements that any of the sets has."},
		"slice":           {stdlib.SliceFunc, "The elements of a list from a position to before another one."},
		"sort":            {stdlib.SortFunc, "A list of texts, sorted."},
		"tobool":          {stdlib.MakeToFunc(cty.Bool), "A value as a bool."},
		"tolist":          {stdlib.MakeToFunc(cty.List(cty.DynamicPseudoType)), "A value as a list."},
		"tomap":           {stdlib.MakeToFunc(cty.Map(cty.DynamicPseudoType)), "A value as a map."},
		"toset":           {stdlib.MakeToFunc(cty.Set(cty.DynamicPseudoType)), "A value as a set: each element once, and in no order."},
		"values":          {stdlib.ValuesFunc, "The elements of a map, in the order of their keys."},
		"zipmap":          {stdlib.ZipmapFunc, "The map of a list of keys and a list of values."},
	}
}

// sumFunc differs from a loop over + in that it takes what converts to numbers.
func sumFunc() function.Function {
	return function.New(&function.Spec{
		Params: []function.Parameter{{Name: "list", Type: cty.List(cty.Number)}},
		Type:   function.StaticReturnType(cty.Number),
		Impl: func(args []cty.Value, _ cty.Type) (cty.Value, error) {
			total := cty.NumberIntVal(0)
			for i, n := range args[0].AsValueSlice() {
				if n.IsNull() {
					return cty.NilVal, function.NewArgErrorf(0, "element %d is null; leave it out", i)
				}
				total = total.Add(n)
			}
			return total, nil
		},
	})
}

// boolsFunc is alltrue or anytrue; null counts as false, as in Terraform.
func boolsFunc(all bool) function.Function {
	return function.New(&function.Spec{
		Params: []function.Parameter{{Name: "list", Type: cty.List(cty.Bool)}},
		Type:   function.StaticReturnType(cty.Bool),
		Impl: func(args []cty.Value, _ cty.Type) (cty.Value, error) {
			result := cty.BoolVal(all)
			for _, b := range args[0].AsValueSlice() {
				switch {
				case b.IsNull():
					b = cty.False
				case !b.IsKnown():
					result = cty.UnknownVal(cty.Bool)
					continue
				}
				if b.True() != all {
					return b, nil
				}
			}
			return result, nil
		},
	})
}

func oneFunc() function.Function {
	return function.New(&function.Spec{
		Params: []function.Parameter{{Name: "list", Type: cty.DynamicPseudoType}},
		Type: func(args []cty.Value) (cty.Type, error) {
			switch ty := args[0].Type(); {
			case ty.IsListType() || ty.IsSetType():
				return ty.ElementType(), nil
			case ty.IsTupleType() && len(ty.TupleElementTypes()) == 1:
				return ty.TupleElementType(0), nil
			case ty.IsTupleType() || ty == cty.DynamicPseudoType:
				return cty.DynamicPseudoType, nil
			}
			return cty.NilType, function.NewArgErrorf(0, "a list, set or tuple is required")
		},
		Impl: func(args []cty.Value, ty cty.Type) (cty.Value, error) {
			switch n := args[0].Length(); {
			case !n.IsKnown():
				return cty.UnknownVal(ty), nil
			case n.RawEquals(cty.NumberIntVal(0)):
				return cty.NullVal(ty), nil
			case !n.RawEquals(cty.NumberIntVal(1)):
				return cty.NilVal, function.NewArgErrorf(0, "it has %s elements, and one or none is required; filter it with a for expression", n.AsBigFloat().Text('f', 0))
			}
			return args[0].AsValueSlice()[0], nil
		},
	})
}

// stringFunc is a function from text to text.
func stringFunc(param string, f func(string) string) function.Function {
	return function.New(&function.Spec{
		Params: []function.Parameter{{Name: param, Type: cty.String}},
		Type:   function.StaticReturnType(cty.String),
		Impl: func(args []cty.Value, _ cty.Type) (cty.Value, error) {
			return cty.StringVal(f(args[0].AsString())), nil
		},
	})
}

// stringTest asks something of two texts.
func stringTest(param string, f func(s, part string) bool) function.Function {
	return function.New(&function.Spec{
		Params: []function.Parameter{{Name: "string", Type: cty.String}, {Name: param, Type: cty.String}},
		Type:   function.StaticReturnType(cty.Bool),
		Impl: func(args []cty.Value, _ cty.Type) (cty.Value, error) {
			return cty.BoolVal(f(args[0].AsString(), args[1].AsString())), nil
		},
	})
}

func base64Encode(s string) string { return base64.StdEncoding.EncodeToString([]byte(s)) }

func sha256Hex(s string) string {
	sum := sha256.Sum256([]byte(s))
	return hex.EncodeToString(sum[:])
}

func base64DecodeFunc() function.Function {
	return function.New(&function.Spec{
		Params: []function.Parameter{{Name: "string", Type: cty.String}},
		Type:   function.StaticReturnType(cty.String),
		Impl: func(args []cty.Value, _ cty.Type) (cty.Value, error) {
			text, err := base64.StdEncoding.DecodeString(args[0].AsString())
			if err != nil {
				return cty.NilVal, function.NewArgErrorf(0, "it is not Base64")
			}
			if !utf8.Valid(text) {
				return cty.NilVal, function.NewArgErrorf(0, "it stands for something that is not UTF-8, which a text cannot hold")
			}
			return cty.StringVal(string(text)), nil
		},
	})
}

// lengthFunc differs from go-cty's in that it takes texts as well, and counts
// their characters as a person does.
func lengthFunc() function.Function {
	return function.New(&function.Spec{
		Params: []function.Parameter{{Name: "value", Type: cty.DynamicPseudoType, AllowUnknown: true, AllowDynamicType: true}},
		Type: func(args []cty.Value) (cty.Type, error) {
			ty := args[0].Type()
			if ty == cty.String || ty == cty.DynamicPseudoType || ty.IsCollectionType() || ty.IsTupleType() || ty.IsObjectType() {
				return cty.Number, nil
			}
			return cty.NilType, function.NewArgErrorf(0, "it has no length; give a string, list, set, map or object")
		},
		Impl: func(args []cty.Value, _ cty.Type) (cty.Value, error) {
			v := args[0]
			switch ty := v.Type(); {
			case ty == cty.DynamicPseudoType:
				return cty.UnknownVal(cty.Number), nil
			case ty == cty.String:
				return stdlib.Strlen(v)
			case ty.IsTupleType():
				return cty.NumberIntVal(int64(len(ty.TupleElementTypes()))), nil
			case ty.IsObjectType():
				return cty.NumberIntVal(int64(len(ty.AttributeTypes()))), nil
			}
			return v.Length(), nil
		},
	})
}

// indexFunc finds a value in a list; go-cty's function of this name is what the
// language writes as list[n].
func indexFunc() function.Function {
	return function.New(&function.Spec{
		Params: []function.Parameter{
			{Name: "list", Type: cty.DynamicPseudoType},
			{Name: "value", Type: cty.DynamicPseudoType, AllowNull: true},
		},
		Type: func(args []cty.Value) (cty.Type, error) {
			if ty := args[0].Type(); ty.IsListType() || ty.IsTupleType() || ty == cty.DynamicPseudoType {
				return cty.Number, nil
			}
			return cty.NilType, function.NewArgErrorf(0, "a list is required")
		},
		Impl: func(args []cty.Value, _ cty.Type) (cty.Value, error) {
			for it := args[0].ElementIterator(); it.Next(); {
				i, v := it.Element()
				eq := v.Equals(args[1])
				if !eq.IsKnown() {
					return cty.UnknownVal(cty.Number), nil
				}
				if eq.True() {
					return i, nil
				}
			}
			return cty.NilVal, errors.New("the list does not have this value; ask contains() first, or use try()")
		},
	})
}

// replaceFunc takes a regular expression where the search text is written
// between slashes.
func replaceFunc() function.Function {
	return function.New(&function.Spec{
		Params: []function.Parameter{
			{Name: "string", Type: cty.String},
			{Name: "search", Type: cty.String},
			{Name: "replacement", Type: cty.String},
		},
		Type: function.StaticReturnType(cty.String),
		Impl: func(args []cty.Value, _ cty.Type) (cty.Value, error) {
			search := args[1].AsString()
			if len(search) > 1 && strings.HasPrefix(search, "/") && strings.HasSuffix(search, "/") {
				return stdlib.RegexReplace(args[0], cty.StringVal(search[1:len(search)-1]), args[2])
			}
			return stdlib.Replace(args[0], args[1], args[2])
		},
	})
}
