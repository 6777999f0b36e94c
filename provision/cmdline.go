package provision

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"math/big"
	"regexp"
	"slices"
	"strings"

	"github.com/hashicorp/hcl/v2"
	"github.com/zclconf/go-cty/cty"

	"github.com/nodeprov/nodeprov/provision/host"
	"github.com/nodeprov/nodeprov/provision/profile"
)

// cmdlineFile is the drop-in that our arguments go to. Its name comes after those that
// distributions and clouds use.
const cmdlineFile = host.GRUBDropIns + "/90-nodeprov.cfg"

// cmdlineKind sets arguments of the kernel's command line, for the kernel block.
func cmdlineKind() Kind {
	return Kind{
		Name:     "cmdline",
		Open:     openCmdline,
		Scope:    Machine,
		Lifetime: Persistent,
		Effect:   "after reboot",
	}
}

func cmdlineSchema() profile.Schema {
	return profile.Schema{
		Type:      "cmdline",
		Singleton: true,
		Doc: "Arguments of the kernel's command line, through GRUB: writes " + cmdlineFile + " and runs update-grub. They hold after a reboot; until then plan, " +
			"verify and status say what the running kernel lacks. Other boot loaders are an error that says what to add by hand.",
		Attrs: []profile.Attr{
			{Name: "set", Type: cty.DynamicPseudoType, Doc: "Arguments by name, in order: a string or a number for NAME=VALUE, true for NAME alone, a list for one that is given " +
				"several times (console = [\"tty0\", \"ttyS0,115200\"]). They take the place of the same arguments in the other files of GRUB's. null leaves one out."},
			{Name: "remove", Type: cty.List(cty.String), Doc: "Arguments to be taken out of those that the other files of GRUB's give: \"quiet\" for that one, whatever its value, " +
				"\"console=tty0\" for one with this value."},
			{Name: "reboot", Type: cty.String, Default: cty.StringVal("never"), Doc: "Whether an apply at boot may reboot the machine for them, before anything runs there: \"never\" or \"if-needed\". An apply at a " +
				"shell never does."},
			{Name: "max_attempts", Type: cty.Number, Default: cty.NumberIntVal(1), Doc: "How often at most it reboots for the same arguments, 1 to 10: a kernel may drop one."},
			{Name: "on_missing", Type: cty.String, Default: cty.StringVal(string(Fail)), Doc: "What a boot loader that nodeprov cannot set does: \"fail\" is an error, \"skip\" is tolerated and told."},
		},
	}
}

// cmdline are our arguments of the kernel's command line. Its value has them as one text,
// in order, with those that are taken out after them: "preempt=none -quiet". A file of our
// name that we did not write so is "file:" and a newline and its text; it is
// "… (update-grub has not run)" where GRUB does not have the arguments yet.
type cmdline struct{}

const (
	cmdlineForeign = "file:\n"
	cmdlineStale   = " (update-grub has not run)"
)

func openCmdline(name string) (Setting, error) {
	if name != "grub" {
		return nil, fmt.Errorf("cmdline: %q is no boot loader of this version: there is cmdline/grub", name)
	}
	return cmdline{}, nil
}

func cmdlineWanted(b profile.Block, t Target, onError Class) ([]Wanted, hcl.Diagnostics) {
	args, known, diags := cmdlineArgs(b)
	reboot, more := oneOf(b, "reboot", "never", "if-needed")
	diags = append(diags, more...)
	onMissing, more := oneOf(b, "on_missing", "fail", "skip")
	diags = append(diags, more...)
	attempts, more := cmdlineAttempts(b)
	diags = append(diags, more...)
	if diags.HasErrors() || !known || len(args.set)+len(args.remove) == 0 {
		return nil, diags
	}
	if onMissing == "skip" {
		onError = Tolerate
	}
	s, want := cmdline{}, Value{Text: args.String()}
	w := Wanted{
		Setting: s,
		Want:    func(Value) (Value, error) { return want, nil },
		Range:   b.Range,
		OnError: onError,
		Unsupported: func(h *host.Host) error {
			return s.unsupported(h, args)
		},
		Others: args.others,
	}
	if reboot == "if-needed" {
		w.Reboot = RebootPolicy{IfNeeded: true, MaxAttempts: attempts}
	}
	if t.Host != nil && !t.Host.Live() {
		w.Effect = "after update-grub in the image and a boot"
	}
	// Where another boot loader has been told by hand, there is nothing left to want.
	if t.Host != nil && t.Host.Live() && !t.Host.BootLoader().DropIns {
		lacks, err := s.Pending(context.Background(), t.Host, want)
		if err == nil && lacks == "" {
			return nil, diags
		}
	}
	return []Wanted{w}, diags
}

// cmdlineAttempts reads max_attempts.
func cmdlineAttempts(b profile.Block) (int, hcl.Diagnostics) {
	v, ok := given(b, "max_attempts")
	if !ok {
		return 1, nil
	}
	if v.IsMarked() {
		return 1, hcl.Diagnostics{sensitiveAt(v, "max_attempts", "status shows it")}
	}
	if !v.IsKnown() {
		return 1, nil
	}
	n, acc := v.AsBigFloat().Int64()
	if acc != big.Exact || n < 1 || n > 10 {
		return 1, hcl.Diagnostics{wrongAt(v.Range, "Invalid value of max_attempts", "A whole number from 1 to 10 is needed.")}
	}
	return int(n), nil
}

// kernelArgument is one argument of the kernel's command line.
type kernelArgument struct {
	name, value string
	// hasValue tells NAME= from NAME.
	hasValue bool
}

// String is the argument as the kernel reads it: in quotes where it has a blank.
func (a kernelArgument) String() string {
	switch {
	case !a.hasValue:
		return a.name
	case strings.Contains(a.value, " "):
		return a.name + `="` + a.value + `"`
	}
	return a.name + "=" + a.value
}

// is tells whether both have the same name: to the kernel, dashes and underscores are the
// same.
func (a kernelArgument) is(name string) bool {
	return strings.ReplaceAll(a.name, "-", "_") == strings.ReplaceAll(name, "-", "_")
}

// equal tells whether both are the same argument.
func (a kernelArgument) equal(o kernelArgument) bool {
	return a.is(o.name) && a.value == o.value && a.hasValue == o.hasValue
}

// kernelArguments reads a command line as the kernel does (next_arg of lib/cmdline.c): blanks
// separate, but for those between double quotes. What follows "--" is not the kernel's.
func kernelArguments(text string) []kernelArgument {
	var args []kernelArgument
	var word strings.Builder
	quoted, began := false, false
	end := func() bool {
		text := word.String()
		word.Reset()
		if !began {
			return true
		}
		began = false
		if text == "--" {
			return false
		}
		name, value, has := strings.Cut(text, "=")
		args = append(args, kernelArgument{name, value, has})
		return true
	}
	for _, r := range text {
		switch {
		case r == '"':
			quoted, began = !quoted, true
		case strings.ContainsRune(" \t\n", r) && !quoted:
			if !end() {
				return args
			}
		default:
			began = true
			word.WriteRune(r)
		}
	}
	end()
	return args
}

// cmdlineChange is what we do to the command line.
type cmdlineChange struct {
	set []kernelArgument
	// remove takes out all arguments of a name or, with a value, the one that has it.
	remove []kernelArgument
}

func (c cmdlineChange) String() string {
	var words []string
	for _, a := range c.set {
		words = append(words, a.String())
	}
	for _, a := range c.remove {
		words = append(words, "-"+a.String())
	}
	return strings.Join(words, " ")
}

// parseCmdline reads what String gives.
func parseCmdline(text string) cmdlineChange {
	var c cmdlineChange
	for _, a := range kernelArguments(text) {
		if name, ok := strings.CutPrefix(a.name, "-"); ok {
			a.name = name
			c.remove = append(c.remove, a)
		} else {
			c.set = append(c.set, a)
		}
	}
	return c
}

// cmdlineArgs reads set and remove; known is false where a part of them is not.
func cmdlineArgs(b profile.Block) (c cmdlineChange, known bool, diags hcl.Diagnostics) {
	known = true
	if v, ok := given(b, "set"); ok {
		ty := v.Type()
		switch {
		case v.IsMarked():
			diags = append(diags, sensitiveAt(v, "The command line", "everybody can read /proc/cmdline"))
		case !v.IsKnown():
			known = false
		case !ty.IsObjectType() && !ty.IsMapType():
			diags = append(diags, wrongAt(v.Range, "Unsuitable value", "set is a map of arguments, as in set = { preempt = \"none\", nosoftlockup = true }, not a value of type %s.", ty.FriendlyName()))
		}
		for _, e := range v.Entries {
			args, ok, more := cmdlineEntry(e)
			diags = append(diags, more...)
			known = known && ok
			if len(args) > 0 && slices.ContainsFunc(c.set, func(a kernelArgument) bool { return a.is(e.Key) }) {
				diags = append(diags, wrongAt(e.KeyRange, "Argument given twice", "To the kernel, %q is another spelling of one that is already there: dashes and underscores are the same. Remove one of the two.", e.Key))
				continue
			}
			c.set = append(c.set, args...)
		}
	}
	if v, ok := given(b, "remove"); ok {
		entries, ok, more := listElements(v, "remove")
		diags = append(diags, more...)
		known = known && ok
		for _, e := range entries {
			text, ok, more := stringOf(e.Value, "An argument to remove")
			diags = append(diags, more...)
			if !ok {
				known = known && e.Value.IsKnown()
				continue
			}
			name, value, has := strings.Cut(text, "=")
			a := kernelArgument{name, value, has}
			if err := a.check(); err != nil {
				diags = append(diags, wrongAt(e.Value.Range, "Invalid argument", "%v.", err))
				continue
			}
			if slices.ContainsFunc(c.set, func(s kernelArgument) bool { return s.is(name) }) {
				diags = append(diags, wrongAt(e.Value.Range, "Argument set and removed", "%s is in set too, which already takes the place of others. Remove one of the two.", name))
				continue
			}
			c.remove = append(c.remove, a)
		}
	}
	return c, known, diags
}

// cmdlineEntry reads one element of set.
func cmdlineEntry(e profile.Entry) (args []kernelArgument, known bool, diags hcl.Diagnostics) {
	v := e.Value
	wrong := func(format string, args ...any) ([]kernelArgument, bool, hcl.Diagnostics) {
		return nil, true, hcl.Diagnostics{wrongAt(v.Range, "Invalid argument", "%s: %s.", e.Key, fmt.Sprintf(format, args...))}
	}
	switch {
	case v.ContainsMarked():
		return nil, true, hcl.Diagnostics{sensitiveAt(v, "The command line", "everybody can read /proc/cmdline")}
	case !v.IsWhollyKnown():
		return nil, false, nil
	case v.IsNull():
		return nil, true, nil
	}
	values := []cty.Value{v.Value}
	if ty := v.Type(); ty.IsTupleType() || ty.IsListType() || ty.IsSetType() {
		values = v.AsValueSlice()
		if len(values) == 0 {
			return wrong("the list is empty (null leaves the argument out, and remove takes it out)")
		}
	}
	for _, v := range values {
		a := kernelArgument{name: e.Key}
		switch {
		case v.IsNull():
			return wrong("a list holds no null")
		case v.Type() == cty.Bool && v.True():
		case v.Type() == cty.Bool:
			return wrong("an argument without a value is there or not: true sets it, null leaves it alone, and remove takes it out")
		case v.Type() == cty.Number:
			n, err := wholeNumber(v)
			if err != nil {
				return wrong("%v", err)
			}
			a.value, a.hasValue = n.String(), true
		case v.Type() == cty.String:
			a.value, a.hasValue = v.AsString(), true
		default:
			return wrong("a string, a number, true or a list of them is needed, not a value of type %s", v.Type().FriendlyName())
		}
		if err := a.check(); err != nil {
			return nil, true, hcl.Diagnostics{wrongAt(e.KeyRange, "Invalid argument", "%v.", err)}
		}
		args = append(args, a)
	}
	return args, true, nil
}

// check refuses what would not come through: the file is read by a shell, what
// that makes of it by GRUB's own shell, and the rest by the kernel.
func (a kernelArgument) check() error {
	if !regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9_.:-]*$`).MatchString(a.name) {
		return fmt.Errorf("%q is no name of an argument: those are made of letters, digits, _, - and dots", a.name)
	}
	for _, r := range a.value {
		if r < ' ' || r > '~' {
			return fmt.Errorf("%s: its value has %q, and the command line is printable ASCII", a.name, r)
		}
		// Unquoted words of GRUB's shell; a blank is quoted.
		if strings.ContainsRune("{}|&$;<>'\"\\`", r) {
			return fmt.Errorf("%s: its value has %q, which GRUB's own language would read (write it into /etc/default/grub by hand, quoted for GRUB)", a.name, r)
		}
	}
	if a.value != strings.TrimSpace(a.value) || strings.Contains(a.value, "  ") {
		return fmt.Errorf("%s: its value begins or ends with a blank, or has two in a row, which GRUB does not keep", a.name)
	}
	return nil
}

// others are the lines of GRUB's other files that have one of our arguments.
func (c cmdlineChange) others(h *host.Host) []string {
	// A file that cannot be read is update-grub's to complain about.
	lines, _ := h.GRUBLines(cmdlineFile)
	var out []string
	for _, l := range lines {
		_, text, _ := strings.Cut(l.Text, "=")
		if !slices.ContainsFunc(kernelArguments(strings.NewReplacer(`\"`, `"`, `"`, " ", "'", " ").Replace(text)), c.touches) {
			continue
		}
		verdict := "taken out by " + cmdlineFile
		if l.Later {
			verdict = "wins, as its name comes later than 90-nodeprov.cfg: remove it there"
		}
		out = append(out, fmt.Sprintf("%s:%d: %s (%s)", l.File, l.Line, l.Text, verdict))
	}
	return out
}

// touches tells whether the argument is one that we set or remove.
func (c cmdlineChange) touches(a kernelArgument) bool {
	return slices.ContainsFunc(c.set, func(s kernelArgument) bool { return s.is(a.name) }) ||
		slices.ContainsFunc(c.remove, func(r kernelArgument) bool { return r.is(a.name) && (!r.hasValue || r.equal(a)) })
}

// lacks says how the command line differs from what we want, as a clause after "the kernel
// was booted"; empty where it does not.
func (c cmdlineChange) lacks(booted []kernelArgument) string {
	var without, with []string
	seen := map[string]bool{}
	for _, s := range c.set {
		if seen[s.name] {
			continue
		}
		seen[s.name] = true
		var want, have []kernelArgument
		for _, a := range c.set {
			if a.is(s.name) {
				want = append(want, a)
			}
		}
		for _, a := range booted {
			if a.is(s.name) {
				have = append(have, a)
			}
		}
		if slices.EqualFunc(want, have, kernelArgument.equal) {
			continue
		}
		n := len(without) + len(with)
		for _, a := range want {
			if !slices.ContainsFunc(have, a.equal) {
				without = append(without, a.String())
			}
		}
		for _, a := range have {
			if !slices.ContainsFunc(want, a.equal) {
				with = append(with, a.String())
			}
		}
		if len(without)+len(with) == n {
			// All of them, but too often or in another order.
			for _, a := range have {
				with = append(with, a.String())
			}
		}
	}
	for _, a := range booted {
		if slices.ContainsFunc(c.remove, func(r kernelArgument) bool { return r.is(a.name) && (!r.hasValue || r.equal(a)) }) {
			with = append(with, a.String())
		}
	}
	var clauses []string
	if len(without) > 0 {
		clauses = append(clauses, "without "+strings.Join(without, " "))
	}
	if len(with) > 0 {
		clauses = append(clauses, "with "+strings.Join(with, " "))
	}
	return strings.Join(clauses, ", and ")
}

// file is the drop-in. It is sourced by a POSIX shell with set -e, in which nothing but
// GRUB's variables may be changed.
func (c cmdlineChange) file() string {
	var b strings.Builder
	b.WriteString("# Written by nodeprov from cmdline of the node profile's kernel block. Changes here\n" +
		"# are lost: change the profile.\n")
	fmt.Fprintf(&b, "%s%s\n", cmdlineHead, c)
	var patterns []string
	for _, a := range c.set {
		patterns = append(patterns, a.pattern(false)...)
	}
	for _, a := range c.remove {
		patterns = append(patterns, a.pattern(a.hasValue)...)
	}
	if len(patterns) == 0 {
		return b.String()
	}
	slices.Sort(patterns)
	fmt.Fprintf(&b, `
# The arguments of $1 but for those that are set or removed here. Blanks within double
# quotes separate none.
nodeprov_others() (
	set -f
	unset IFS
	others= arg= quoted=
	for word in $1; do
		arg="$arg${arg:+ }$word"
		while case $word in *\"*) ;; *) false ;; esac; do
			word=${word#*\"}
			if [ "$quoted" ]; then quoted=; else quoted=yes; fi
		done
		[ -z "$quoted" ] || continue
		case ${arg#\"} in
		%s) ;;
		*) others="$others${others:+ }$arg" ;;
		esac
		arg=
	done
	printf '%%s' "$others${others:+${arg:+ }}$arg"
)
GRUB_CMDLINE_LINUX=$(nodeprov_others "${GRUB_CMDLINE_LINUX-}")
GRUB_CMDLINE_LINUX_DEFAULT=$(nodeprov_others "${GRUB_CMDLINE_LINUX_DEFAULT-}")
unset -f nodeprov_others
`, strings.Join(slices.Compact(patterns), " | "))
	if len(c.set) > 0 {
		words := make([]string, len(c.set))
		for i, a := range c.set {
			words[i] = a.String()
		}
		// No value has a single quote: see check.
		fmt.Fprintf(&b, "GRUB_CMDLINE_LINUX=\"$GRUB_CMDLINE_LINUX${GRUB_CMDLINE_LINUX:+ }\"'%s'\n", strings.Join(words, " "))
	}
	return b.String()
}

// cmdlineHead begins the line of the drop-in that has the setting's value.
const cmdlineHead = "# arguments: "

// pattern matches the argument in the shell's case: exact ones with their value, else
// with any and with none.
func (a kernelArgument) pattern(exact bool) []string {
	name := regexp.MustCompile(`[-_]`).ReplaceAllString(a.name, "[-_]")
	if !exact {
		return []string{name, name + "=*"}
	}
	if strings.Contains(a.value, " ") {
		// Quoted around the value, or around all of it.
		return []string{name + `='"` + a.value + `"'`, name + `='` + a.value + `"'`}
	}
	return []string{name + "='" + a.value + "'"}
}

func (s cmdline) Key() string { return "cmdline/grub" }

func (s cmdline) Read(_ context.Context, h *host.Host) (Value, error) {
	f, err := h.File(cmdlineFile)
	if errors.Is(err, fs.ErrNotExist) {
		return Value{Absent: true}, nil
	}
	if err != nil {
		return Value{}, fmt.Errorf("cmdline: %w", err)
	}
	text := string(f.Content)
	for line := range strings.Lines(text) {
		value, ours := strings.CutPrefix(strings.TrimSuffix(line, "\n"), cmdlineHead)
		if !ours || parseCmdline(value).file() != text {
			continue
		}
		if s.stale(h, parseCmdline(value)) {
			value += cmdlineStale
		}
		return Value{Text: value}, nil
	}
	return Value{Text: cmdlineForeign + text}, nil
}

// stale tells whether GRUB's configuration was not made anew since the drop-in was written:
// somebody killed us in between, or the drop-in came with an image. What cannot be told
// counts as current, and so does a tree of files, where update-grub does not run.
func (s cmdline) stale(h *host.Host, c cmdlineChange) bool {
	if !h.Live() {
		return false
	}
	entry, err := h.GRUBEntry()
	return err == nil && c.lacks(kernelArguments(entry)) != ""
}

// Write replaces the drop-in and has GRUB's configuration made anew. If that fails, the
// drop-in is put back: half of it would be taken by the next upgrade of the kernel.
func (s cmdline) Write(ctx context.Context, h *host.Host, v Value) error {
	before, err := h.File(cmdlineFile)
	absent := errors.Is(err, fs.ErrNotExist)
	if err != nil && !absent {
		return fmt.Errorf("cmdline: %w", err)
	}
	text, foreign := strings.CutPrefix(v.Text, cmdlineForeign)
	var change cmdlineChange
	if !foreign {
		change = parseCmdline(strings.TrimSuffix(v.Text, cmdlineStale))
		text = change.file()
	}
	// An absent file is an empty one first. If we are killed before GRUB knows, it is
	// seen that something is left to do.
	if err := h.WriteFileAtomic(cmdlineFile, []byte(text), 0o644); err != nil {
		return fmt.Errorf("cmdline: %w", err)
	}
	if h.Live() {
		if err := h.UpdateGRUB(ctx); err != nil {
			var back error
			if absent {
				back = h.Remove(cmdlineFile)
			} else {
				back = h.WriteFile(cmdlineFile, before)
			}
			if back != nil {
				return fmt.Errorf("cmdline: GRUB's configuration cannot be made, and %s cannot be put back (remove it by hand): %w", cmdlineFile, errors.Join(err, back))
			}
			return fmt.Errorf("cmdline: GRUB's configuration cannot be made, so %s is what it was: %w", cmdlineFile, err)
		}
		if !foreign && s.stale(h, change) {
			entry, _ := h.GRUBEntry() // stale has read it
			return fmt.Errorf("cmdline: update-grub has run, but the first entry of %s is %s (is GRUB_CMDLINE_LINUX set again in %s after %s?)",
				host.GRUBConfig, change.lacks(kernelArguments(entry)), host.GRUBDropIns, "90-nodeprov.cfg")
		}
	}
	if v.Absent {
		if err := h.Remove(cmdlineFile); err != nil {
			return fmt.Errorf("cmdline: %w", err)
		}
	}
	return nil
}

// Same: going back to where update-grub was due is going back to the same arguments.
func (s cmdline) Same(live, want Value) bool {
	return live == want || !live.Absent && !want.Absent && live.Text == strings.TrimSuffix(want.Text, cmdlineStale)
}

// Pending compares with what the running kernel was booted with.
func (s cmdline) Pending(_ context.Context, h *host.Host, want Value) (string, error) {
	if want.Absent || strings.HasPrefix(want.Text, cmdlineForeign) {
		return "", nil // which arguments that stands for is GRUB's to know
	}
	booted, err := h.BootedCmdline()
	if !h.Live() && errors.Is(err, fs.ErrNotExist) {
		return "", nil
	}
	if err != nil {
		return "", fmt.Errorf("cmdline: %w (is /proc mounted?)", err)
	}
	lacks := parseCmdline(strings.TrimSuffix(want.Text, cmdlineStale)).lacks(kernelArguments(booted))
	if lacks == "" {
		return "", nil
	}
	return "the kernel was booted " + lacks, nil
}

// unsupported says why the machine's boot loader cannot be set.
func (s cmdline) unsupported(h *host.Host, c cmdlineChange) error {
	l := h.BootLoader()
	const on = `or say on_missing = "skip" in cmdline`
	switch {
	case l.DropIns:
		return nil
	case l.Name == "":
		return fmt.Errorf("cmdline: no boot loader that nodeprov knows is set up here, so %q cannot be set (%s; %s)", c, l.ByHand, on)
	case l.Name == "GRUB":
		return fmt.Errorf("cmdline: GRUB is here (%s), but no grub-mkconfig that reads %s, so %q cannot be set (%s; %s)", l.Evidence, host.GRUBDropIns, c, l.ByHand, on)
	}
	return fmt.Errorf("cmdline: the boot loader is %s (%s), and nodeprov sets GRUB only, so %q cannot be set (%s; %s)", l.Name, l.Evidence, c, l.ByHand, on)
}
