// Package profile is nodeprov's language: HCL source in, evaluated blocks with
// source ranges out. It is pure: it reads no file, no environment and nothing
// of the machine; all of that is handed in.
//
// User mistakes come back as hcl.Diagnostics, all of them at once, each on the
// exact key or value. Mistakes of the caller panic.
package profile

import (
	"github.com/hashicorp/hcl/v2"
	"github.com/zclconf/go-cty/cty"
)

// SchemaVersion is the only value that `nodeprov { schema = … }` may have.
const SchemaVersion = 1

// Source is one file's text.
type Source struct {
	// Name stands in diagnostics: a path as the user gave it, or
	// "builtin://base".
	Name string
	Text []byte
}

// Assignment gives a variable a value from outside the profile.
type Assignment struct {
	Name string
	// Text is the value as the user wrote it. For a variable of type string it
	// is taken literally; for any other type it is parsed as an HCL expression.
	// Ignored when Value is set.
	Text string
	// Value is set instead of Text for values that come from a file of
	// variables, which is HCL already; see ParseVars.
	Value cty.Value
	// From says where it came from, for diagnostics: "--var", "NODEPROV_VAR_role"
	// or a file's name.
	From string
	// Range is the place in a file of variables; zero for other sources.
	Range hcl.Range
	// Lenient assignments may name a variable that the profile does not have
	// (environment and *.auto.hclvars, which serve several profiles).
	Lenient bool
}

// withheld is where an assignment without its value came from.
const withheld = "a place that its value was not kept from, as it is sensitive"

// Withhold is a without its value, for what must not hold secrets: Load takes the
// variable as one that is not known.
func (a Assignment) Withhold() Assignment {
	return Assignment{Name: a.Name, From: withheld, Lenient: a.Lenient}
}

// Options are what a profile is evaluated with.
type Options struct {
	// Schemas are the constructs besides the language's own.
	Schemas []Schema
	// Host is the value of `host`, see host.Facts.Value. It may be unknown
	// (cty.UnknownVal of host.FactsType): validate and --root have no host. The
	// match block needs host.arch and host.kernel.version, both strings.
	Host cty.Value
	// Vars are in rising precedence: the last assignment of a name wins.
	Vars []Assignment
	// Only names the constructs that are evaluated; the others are checked for
	// what their text alone shows, and give no block. So facts that are not there
	// yet early at boot cannot decide there. Nil evaluates all.
	Only []string
	// Include returns what `include = [REF]` names in the source named from:
	// "builtin://NAME", or a path relative to the directory of from. Its
	// Source.Name identifies it, see Resolve: the same name is the same source, and
	// is read once. Its error is told at REF, and ends in a remedy in parentheses.
	// Nil refuses includes.
	Include func(from, ref string) (Source, error)
	// ReadFile returns the file that file() and templatefile() name, a path
	// relative to the directory of the source named from, see Resolve. It is asked
	// once for each file. Nil makes their results unknown.
	ReadFile func(from, path string) ([]byte, error)
	// Credential returns the secret that credential() names. What it returns is
	// sensitive. Nil makes it unknown, as in validate and with --root.
	Credential func(name string) (string, error)
}

// Profile is an evaluated profile.
type Profile struct {
	// Name is the Source's.
	Name string
	// Blocks are in source order: by source, an included one before that which
	// includes it, and then by byte; the language's own ones are not there. What
	// several sources say of the same construct is merged, and stands where the
	// last of them says it: the including profile wins, of two that are included
	// the later one, key by key or attribute by attribute. Nested blocks of a type
	// are those of the last source that has any.
	Blocks []Block
	// Sources are all texts that the profile is made of: the profile itself
	// first, then what it includes, and files that file() and templatefile() read.
	Sources []Source
	// Sensitive names the variables that are declared sensitive, sorted.
	Sensitive []string
	// Files are the parsed sources by name, for printing the diagnostics of what
	// is done with the profile later. Where Load refuses it, use the function
	// Files.
	Files map[string]*hcl.File
}

// Block is one evaluated construct of a Schema.
type Block struct {
	// Type is the Schema's.
	Type string
	// Label is empty where the schema has none.
	Label string
	// Each is the key of the element that for_each made this block of; empty for
	// a block without for_each.
	Each string
	// Range is the block's header, or the attribute's name for a Map.
	Range hcl.Range
	// Attrs holds the attributes that were written or have a default. For a
	// Map it holds the only one, under the Schema's Type.
	Attrs map[string]Value
	// Blocks are the nested ones, in source order, dynamic ones expanded.
	Blocks []Block
}

// Value is an evaluated expression and its place.
type Value struct {
	// Value is unknown where it follows from an unknown host, and for a Map as
	// soon as one of its keys does. It is or holds a value with the mark
	// Sensitive where it follows from a sensitive variable. An attribute that is
	// null has been left out; elements may be null.
	cty.Value
	// BestEffort: the profile wrote best_effort(v), and Value is v. A host that
	// cannot have it is told, and is no failure: use provision.Tolerate.
	BestEffort bool
	// Range is the expression's; for a default, the block's header.
	Range hcl.Range
	// Entries are the elements of values that are maps or objects, in source
	// order and, for a Map, also where other keys are unknown. Where a key's own
	// range cannot be told (merge(), for-expressions, references) its ranges are
	// the whole expression's, and the order is that of the keys. Those of a list
	// have the keys "0", "1" and so on, and the element's range as KeyRange; a set
	// has none. A value that is sensitive as a whole has no Entries, as its keys
	// are secret too; a Schema's Map never is.
	//
	// For a Map that several sources have, they are merged: of a key, the last
	// source's value holds, in the place of that source, and null takes the key out.
	Entries []Entry
}

// Entry is one element of a map or of a list.
type Entry struct {
	// Key is as it was written; no two are equal in one map. What is in it
	// (control characters too) is for the kind to judge.
	Key      string
	KeyRange hcl.Range
	Value    Value
}
