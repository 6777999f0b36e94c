package profile

import "github.com/zclconf/go-cty/cty"

// Schema describes one top-level construct of the language: either a block
// (`nic "uplink" { … }`) or, when Map is set, a top-level attribute whose value
// is a map of keys (`sysctl = { "net.core.somaxconn" = 4096 }`).
//
// The package provides the schemas of nodeprov, variable, locals and match
// itself; every other one belongs to the kind of setting that it configures.
type Schema struct {
	// Type is the block's type or the attribute's name, such as "nic".
	Type string
	// Doc is one paragraph for the profile reference.
	Doc string
	// Map makes this a top-level attribute holding a map; its elements have
	// any type. Attrs, Label and Singleton do not apply.
	Map bool
	// Label names the block's only label; empty for a block without one. A label
	// is not empty, and no two blocks of a type have the same.
	Label string
	// Singleton allows the block once at most. For a nested one: once in the
	// block around it.
	Singleton bool
	// ForEach lets a block make several of itself: `for_each` takes a map, an
	// object or a set of strings, and the block's attributes may then refer to
	// each.key and each.value. It needs a Label.
	ForEach bool
	// Attrs are the block's attributes, in the order of the reference.
	Attrs []Attr
	// Blocks are the blocks inside of it; each may also be written as
	// `dynamic "TYPE" { … }`. A nested schema has no Map and no ForEach.
	Blocks []Schema
}

// Attr describes one attribute of a block.
type Attr struct {
	Name string
	// Type is what the value is converted to; cty.DynamicPseudoType keeps it
	// as it was written.
	Type     cty.Type
	Required bool
	// Default is shown in the reference and is the value of an attribute that
	// the profile leaves out; cty.NilVal leaves it out of the block.
	Default cty.Value
	// BestEffort lets the value, or an element of it, be best_effort(v): the
	// kind then finds Value.BestEffort set. Elsewhere best_effort is a mistake of
	// the profile. The elements of a Map construct always may.
	BestEffort bool
	// Doc is one sentence for the profile reference, with unit and range.
	Doc string
}
