package provision

import (
	"context"
	"fmt"

	"github.com/hashicorp/hcl/v2"
	"github.com/zclconf/go-cty/cty"

	"github.com/nodeprov/nodeprov/provision/host"
	"github.com/nodeprov/nodeprov/provision/profile"
)

// moduleKind loads kernel modules, for the kernel block.
func moduleKind() Kind {
	return Kind{
		Name:     "module",
		Open:     func(name string) (Setting, error) { return openModule(name) },
		Scope:    Machine,
		Lifetime: Runtime,
		Effect:   "now",
		Early:    true,
	}
}

const (
	moduleLoaded = "loaded"
	// moduleIdle is a module that could be loaded; it is absent where the running kernel
	// has none of that name.
	moduleIdle = "not loaded"
)

// module is a kernel module. Those that are built in are loaded. Once loaded it stays so,
// whatever it has before: others may use it by then.
type module struct {
	name string
}

// openModule takes a name in the spelling that Key gives.
func openModule(name string) (module, error) {
	plain, err := host.ModuleName(name)
	if err != nil {
		return module{}, fmt.Errorf("module: %w", err)
	}
	if plain != name {
		return module{}, fmt.Errorf("module: %q is spelled %q in keys of settings", name, plain)
	}
	return module{name}, nil
}

// modulesWanted reads the list of modules of the kernel block.
func modulesWanted(v profile.Value, onError Class) ([]Wanted, hcl.Diagnostics) {
	var ws []Wanted
	var diags hcl.Diagnostics
	entries, known, more := listElements(v, "modules")
	diags = append(diags, more...)
	if !known {
		return nil, diags
	}
	first := map[string]profile.Entry{}
	for _, e := range entries {
		name, ok, more := stringOf(e.Value, "A module")
		diags = append(diags, more...)
		if !ok {
			continue
		}
		plain, err := host.ModuleName(name)
		if err != nil {
			diags = append(diags, wrongAt(e.Value.Range, "Invalid name of a module", "A module's name is needed, and %v.", err))
			continue
		}
		if prev, dup := first[plain]; dup {
			diags = append(diags, wrongAt(e.Value.Range, "Module given twice", "%q is already in the list at %s. Remove one of the two.", name, place(prev.Value.Range)))
			continue
		}
		first[plain] = e
		s := module{plain}
		class := onError
		if e.Value.BestEffort {
			class = Tolerate
		}
		ws = append(ws, Wanted{
			Setting:     s,
			Want:        func(Value) (Value, error) { return Value{Text: moduleLoaded}, nil },
			Range:       e.Value.Range,
			OnError:     class,
			Unsupported: s.unsupported,
		})
	}
	return ws, diags
}

func (s module) Key() string { return "module/" + s.name }

func (s module) Read(_ context.Context, h *host.Host) (Value, error) {
	m, err := h.Module(s.name)
	switch {
	case err != nil:
		return Value{}, err
	case m.Loaded:
		return Value{Text: moduleLoaded}, nil
	case m.Loadable && m.Barred == "":
		return Value{Text: moduleIdle}, nil
	}
	return Value{Absent: true}, nil
}

func (s module) Write(ctx context.Context, h *host.Host, v Value) error {
	if v.Text != moduleLoaded {
		// See Inexact: it stays.
		return nil
	}
	return h.LoadModule(ctx, s.name)
}

func (s module) Inexact(live, want Value) string {
	if live == want {
		return ""
	}
	return "a loaded module stays loaded"
}

// unsupported says why there is no such module.
func (s module) unsupported(h *host.Host) error {
	m, err := h.Module(s.name)
	if err != nil {
		return err
	}
	if m.Barred != "" {
		return fmt.Errorf("module %s: it must not be loaded, as %s (remove that line, or take the module out of the profile)", s.name, m.Barred)
	}
	release, err := h.KernelRelease()
	if err != nil {
		return fmt.Errorf("module %s: %w", s.name, err)
	}
	names := h.ModuleNames()
	if len(names) == 0 {
		return fmt.Errorf("module %s: it is not loaded, and there is no list of modules in /lib/modules/%s (install the modules of the kernel that runs, or reboot if it was "+
			"upgraded; a kernel without modules does not tell what is built in: then take the module out of the profile)", s.name, release)
	}
	if near := nearestWord(s.name, names); near != "" {
		return fmt.Errorf("module %s: kernel %s has no such module (did you mean %s?)", s.name, release, near)
	}
	return fmt.Errorf("module %s: kernel %s has no such module (is it in another package of the kernel's modules, such as linux-modules-extra?)", s.name, release)
}

// listElements are the elements of a list, in order; known is false where the list or one
// of its elements cannot be told.
func listElements(v profile.Value, what string) (entries []profile.Entry, known bool, diags hcl.Diagnostics) {
	if v.ContainsMarked() {
		return nil, false, hcl.Diagnostics{sensitiveAt(v, what, "plan and journal show it")}
	}
	if !v.IsKnown() {
		return nil, false, nil
	}
	if v.Entries != nil {
		return v.Entries, true, nil
	}
	for i, e := range v.AsValueSlice() {
		entries = append(entries, profile.Entry{Key: fmt.Sprint(i), KeyRange: v.Range, Value: profile.Value{Value: e, Range: v.Range}})
	}
	return entries, true, nil
}

// stringOf reads an element that is a string; ok is false where it is wrong, unknown or
// null.
func stringOf(v profile.Value, what string) (text string, ok bool, diags hcl.Diagnostics) {
	switch {
	case v.ContainsMarked():
		return "", false, hcl.Diagnostics{sensitiveAt(v, what, "plan and journal show it")}
	case !v.IsKnown() || v.IsNull():
		return "", false, nil
	case !v.Type().Equals(cty.String):
		return "", false, hcl.Diagnostics{wrongAt(v.Range, "Unsuitable value", "%s is a string, not a value of type %s.", what, v.Type().FriendlyName())}
	}
	return v.AsString(), true, nil
}
