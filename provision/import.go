package provision

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"math/big"
	"path"
	"regexp"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/hclsyntax"
	"github.com/hashicorp/hcl/v2/hclwrite"
	"github.com/zclconf/go-cty/cty"
	"gopkg.in/ini.v1"

	"github.com/nodeprov/nodeprov/provision/host"
	"github.com/nodeprov/nodeprov/provision/profile"
)

// Imported is a profile made of what another tool is configured by.
type Imported struct {
	// Text is HCL in canonical form, with the places that values come from as
	// comments.
	Text []byte
	// Lost is what a profile cannot say, each as "PLACE: WHAT: why". Text has
	// them as comments too.
	Lost []string
}

// sysctlDirs are where `sysctl --system` and systemd-sysctl look, the strongest
// first: a file hides those of the same name in later ones. Source: sysctl.d(5).
func sysctlDirs() []string {
	return []string{"/etc/sysctl.d", "/run/sysctl.d", "/usr/local/lib/sysctl.d", "/usr/lib/sysctl.d", "/lib/sysctl.d"}
}

// ImportSysctl reads files in the syntax of sysctl.d(5): those named, in that
// order, a directory standing for its *.conf; without any, those of the system,
// and /etc/sysctl.conf last. Paths are absolute. Of several values of a key the
// last one counts.
func ImportSysctl(h *host.Host, paths []string) (Imported, error) {
	im := newImporter("sysctl.d")
	var files []string
	if len(paths) == 0 {
		files = systemSysctlFiles(h)
	} else {
		for _, p := range paths {
			if names := confNames(h, p); len(names) > 0 {
				for _, n := range names {
					files = append(files, path.Join(p, n))
				}
				continue
			}
			files = append(files, p)
		}
	}
	var errs []error
	for _, p := range files {
		text, err := h.ReadFile(p)
		if err != nil {
			errs = append(errs, fmt.Errorf("import: %w", err))
			continue
		}
		im.sysctlFile(p, string(text))
	}
	if err := errors.Join(errs...); err != nil {
		return Imported{}, err
	}
	return im.done(), nil
}

// systemSysctlFiles are the system's files, weakest first.
func systemSysctlFiles(h *host.Host) []string {
	where := map[string]string{}
	for _, dir := range sysctlDirs() {
		for _, n := range confNames(h, dir) {
			if _, hidden := where[n]; !hidden {
				where[n] = path.Join(dir, n)
			}
		}
	}
	names := make([]string, 0, len(where))
	for n, p := range where {
		// A link to /dev/null is how a file is hidden, and one to sysctl.conf is
		// read below.
		if b, err := h.ReadFile(p); err == nil && len(b) > 0 {
			names = append(names, n)
		}
	}
	slices.Sort(names)
	last, _ := h.ReadFile(host.SysctlConf)
	var files []string
	for _, n := range names {
		if b, err := h.ReadFile(where[n]); err == nil && len(last) > 0 && bytes.Equal(b, last) {
			continue
		}
		files = append(files, where[n])
	}
	if len(last) > 0 {
		files = append(files, host.SysctlConf)
	}
	return files
}

func confNames(h *host.Host, dir string) []string {
	return slices.DeleteFunc(h.DirNames(dir), func(n string) bool { return !strings.HasSuffix(n, ".conf") })
}

// ImportLive takes the values that these kernel keys have now.
func ImportLive(h *host.Host, keys []string) (Imported, error) {
	im := newImporter("the running kernel")
	var errs []error
	for _, key := range keys {
		parts, err := host.SplitSysctl(key)
		if err != nil {
			errs = append(errs, fmt.Errorf("import: %w", err))
			continue
		}
		s := &sysctl{parts}
		text, err := h.ReadSysctl(s.name())
		switch {
		case errors.Is(err, fs.ErrNotExist):
			errs = append(errs, fmt.Errorf("import: %w", s.unsupported(h)))
		case err != nil:
			errs = append(errs, fmt.Errorf("import: %w", err))
		default:
			im.sysctl(s.name(), scalar(text), "")
		}
	}
	if err := errors.Join(errs...); err != nil {
		return Imported{}, err
	}
	return im.done(), nil
}

// importer collects what the profile will say.
type importer struct {
	from string
	// comments stand above all: what the source says of itself.
	comments []string
	sysctls  importedMap
	sysfs    importedMap
	modules  importedMap // of expressions by the module's name
	kernel   importedMap // of attributes
	cmdline  importedMap
	cpu      importedMap
	irq      importedMap
	lost     []string
}

// importedMap keeps the order in which its keys came first.
type importedMap struct {
	keys   []string
	values map[string]importedValue
}

type importedValue struct{ expr, comment string }

// set replaces a key's value. What it had before is said in the comment.
func (m *importedMap) set(key, expr, comment string) {
	if m.values == nil {
		m.values = map[string]importedValue{}
	}
	old, ok := m.values[key]
	if !ok {
		m.keys = append(m.keys, key)
	} else if old.expr != expr && old.comment != "" {
		first, _, _ := strings.Cut(old.comment, ", over ")
		comment += ", over " + old.expr + " in " + first
	}
	m.values[key] = importedValue{expr, comment}
}

func (m *importedMap) remove(key string) {
	delete(m.values, key)
	m.keys = slices.DeleteFunc(m.keys, func(k string) bool { return k == key })
}

func newImporter(from string) *importer { return &importer{from: from} }

func (im *importer) lose(place, what, why string) {
	im.lost = append(im.lost, printable(fmt.Sprintf("%s: %s: %s", place, what, why)))
}

func (im *importer) sysctl(key, expr, comment string) { im.sysctls.set(key, expr, comment) }

// sysctlFile reads one file.
func (im *importer) sysctlFile(name, text string) {
	n := 0
	for line := range strings.Lines(text) {
		n++
		line = strings.TrimSpace(line)
		if line == "" || line[0] == '#' || line[0] == ';' {
			continue
		}
		place := fmt.Sprintf("%s:%d", name, n)
		key, value, ok := strings.Cut(line, "=")
		key, tolerated := strings.CutPrefix(strings.TrimSpace(key), "-")
		value = strings.TrimSpace(value)
		if !ok {
			if parts, err := host.SplitSysctl(key); tolerated && err == nil && !slices.ContainsFunc(parts, isPattern) {
				// It leaves the key out of patterns, unless it is written out too.
				if name := host.JoinSysctl(parts); !slices.Contains(im.sysctls.keys, name) {
					im.sysctl(name, "null", place)
				}
			} else {
				im.lose(place, line, "no assignment")
			}
			continue
		}
		im.sysctlSetting(place, strings.TrimSpace(key), value, tolerated)
	}
}

// sysctlSetting takes one assignment; place is its comment.
func (im *importer) sysctlSetting(place, key, value string, tolerated bool) {
	parts, err := host.SplitSysctl(key)
	if err != nil {
		im.lose(place, key+" = "+value, err.Error())
		return
	}
	if slices.ContainsFunc(parts, isPattern) {
		if err := checkPattern(parts); err != nil {
			im.lose(place, key+" = "+value, err.Error())
			return
		}
	}
	if !plainText(value) {
		im.lose(place, key, "the value holds a control character, or is not UTF-8")
		return
	}
	expr := scalar(value)
	if tolerated {
		expr = "best_effort(" + expr + ")"
	}
	im.sysctl(host.JoinSysctl(parts), expr, place)
}

// scalar writes a value: whole numbers that read back as they are, else a string.
func scalar(text string) string {
	if n, ok := new(big.Int).SetString(text, 10); ok && n.String() == text && n.IsInt64() {
		return text
	}
	return quote(text)
}

// quote is a string of the language. Runs of blanks, which separate numbers, are
// one blank.
func quote(text string) string {
	if strings.ContainsAny(text, "\t") {
		text = strings.Join(strings.Fields(text), " ")
	}
	return string(hclwrite.TokensForValue(cty.StringVal(text)).Bytes())
}

func plainText(s string) bool {
	return utf8.ValidString(s) && !strings.ContainsFunc(s, func(r rune) bool { return unicode.IsControl(r) && r != '\t' })
}

// printable makes a text fit for a comment.
func printable(s string) string {
	return strings.Map(func(r rune) rune {
		if unicode.IsControl(r) || r == utf8.RuneError || unicode.Is(unicode.Zl, r) || unicode.Is(unicode.Zp, r) {
			return '?'
		}
		return r
	}, s)
}

// done writes the profile. What its own checks refuse is lost, with what they say.
func (im *importer) done() Imported {
	e := &Engine{Kinds: Kinds()}
	for {
		w := im.write()
		text := hclwrite.Format([]byte(w.String()))
		diags := validate(e, text)
		refused := false
		for _, d := range diags {
			if d.Severity != hcl.DiagError || d.Subject == nil {
				continue
			}
			// Canonical form has the same lines.
			el, ok := w.at[d.Subject.Start.Line]
			if !ok {
				continue
			}
			if v, there := el.of.values[el.key]; there {
				refused = true
				el.of.remove(el.key)
				im.lose(cmp.Or(v.comment, "imported"), el.key+" = "+v.expr, strings.TrimSuffix(cmp.Or(d.Detail, d.Summary), "."))
			}
		}
		if !refused {
			return Imported{Text: text, Lost: im.lost}
		}
	}
}

// validate checks a profile as it would be where the machine is unknown.
func validate(e *Engine, text []byte) hcl.Diagnostics {
	p, diags := profile.Load(profile.Source{Name: "imported.hcl", Text: text},
		profile.Options{Schemas: Schemas(e.Kinds), Host: cty.UnknownVal(host.FactsType())})
	if diags.HasErrors() {
		return diags
	}
	_, diags = e.Desired(p, nil, PhaseAll)
	return diags
}

// importedText is a profile, and which element stands in a line.
type importedText struct {
	strings.Builder
	line int
	at   map[int]importedElement
}

type importedElement struct {
	of  *importedMap
	key string
}

func (w *importedText) printf(format string, args ...any) {
	text := fmt.Sprintf(format, args...)
	w.line += strings.Count(text, "\n")
	w.WriteString(text)
}

func (im *importer) write() *importedText {
	w := &importedText{line: 1, at: map[int]importedElement{}}
	w.printf("# Imported from %s.\n", printable(im.from))
	for _, c := range im.comments {
		w.printf("# %s\n", printable(c))
	}
	if len(im.lost) > 0 {
		w.printf("#\n# What a profile cannot say, or this import does not understand:\n")
		for _, l := range im.lost {
			w.printf("#   %s\n", l)
		}
	}
	w.printf("\nnodeprov {\nschema = 1\n}\n")
	if len(im.kernel.keys)+len(im.modules.keys)+len(im.cmdline.keys) > 0 {
		w.printf("\nkernel {\n")
		if len(im.modules.keys) > 0 {
			w.printf("modules = [\n")
			w.elements(&im.modules, func(_, expr string) string { return expr + "," })
			w.printf("]\n")
		}
		w.elements(&im.kernel, assignment)
		if len(im.cmdline.keys) > 0 {
			w.printf("cmdline {\nset = {\n")
			w.elements(&im.cmdline, element)
			w.printf("}\n}\n")
		}
		w.printf("}\n")
	}
	for _, m := range []struct {
		name string
		of   *importedMap
	}{{"sysctl", &im.sysctls}, {"sysfs", &im.sysfs}} {
		if len(m.of.keys) > 0 {
			w.printf("\n%s = {\n", m.name)
			w.elements(m.of, element)
			w.printf("}\n")
		}
	}
	for _, m := range []struct {
		name string
		of   *importedMap
	}{{"cpu", &im.cpu}, {"irqbalance", &im.irq}} {
		if len(m.of.keys) > 0 {
			w.printf("\n%s {\n", m.name)
			w.elements(m.of, assignment)
			w.printf("}\n")
		}
	}
	return w
}

// elements writes one a line.
func (w *importedText) elements(m *importedMap, form func(key, expr string) string) {
	for _, k := range m.keys {
		w.at[w.line] = importedElement{m, k}
		w.printf("%s%s\n", form(k, m.values[k].expr), trailing(m.values[k].comment))
	}
}

func assignment(key, expr string) string { return key + " = " + expr }

// element is one of a map, whose key may be anything.
func element(key, expr string) string {
	if !hclsyntax.ValidIdentifier(key) {
		key = quote(key)
	}
	return key + " = " + expr
}

func trailing(comment string) string {
	if comment == "" {
		return ""
	}
	return " # " + printable(comment)
}

// tunedDirs are where tuned looks for profiles by name; source: tuned-profiles(7).
func tunedDirs() []string {
	return []string{"/etc/tuned/profiles", "/etc/tuned", "/usr/lib/tuned/profiles", "/usr/lib/tuned"}
}

// ImportTuned reads a profile of tuned: its directory or its tuned.conf, an
// absolute path, with the profiles that it includes, which are looked for beside
// it and where tuned does.
func ImportTuned(h *host.Host, p string) (Imported, error) {
	if h.Exists(path.Join(p, "tuned.conf")) {
		p = path.Join(p, "tuned.conf")
	}
	im := newImporter(p)
	t := tuned{h: h, im: im, dirs: append([]string{path.Dir(path.Dir(p))}, tunedDirs()...), variables: map[string]string{}}
	if err := t.load(p, nil); err != nil {
		return Imported{}, err
	}
	t.translate()
	return im.done(), nil
}

// tuned is a profile of tuned and what it includes, merged.
type tuned struct {
	h         *host.Host
	im        *importer
	dirs      []string
	units     []*tunedUnit
	variables map[string]string
}

// tunedUnit is a section: the options of one of tuned's plug-ins.
type tunedUnit struct {
	name    string
	options []tunedOption
}

type tunedOption struct{ key, value, place string }

func (u *tunedUnit) option(key string) (string, bool) {
	i := slices.IndexFunc(u.options, func(o tunedOption) bool { return o.key == key })
	if i < 0 {
		return "", false
	}
	return u.options[i].value, true
}

// load reads a file, after those that it includes: its options win. chain is how
// it came to be included.
func (t *tuned) load(p string, chain []string) error {
	if slices.Contains(chain, p) {
		return fmt.Errorf("import: %s includes itself (%s)", p, strings.Join(append(chain, p), " -> "))
	}
	text, err := t.h.ReadFile(p)
	if err != nil {
		return fmt.Errorf("import: %w", err)
	}
	sections, err := parseTuned(text)
	if err != nil {
		return fmt.Errorf("import: %s: %w (it is no tuned.conf)", p, err)
	}
	for _, u := range sections {
		for i := range u.options {
			u.options[i].place = p + " [" + u.name + "]"
		}
	}
	for _, u := range sections {
		if u.name != "main" {
			continue
		}
		if s, ok := u.option("summary"); ok && len(chain) == 0 {
			t.im.comments = append(t.im.comments, s)
		}
		names, _ := u.option("include")
		for name := range strings.FieldsFuncSeq(names, func(r rune) bool { return r == ',' || unicode.IsSpace(r) }) {
			name, optional := strings.CutPrefix(t.expand(name), "?")
			file := t.find(name)
			switch {
			case file == "" && optional:
			case file == "":
				t.im.lose(p+" [main]", "include = "+name, "there is no such profile of tuned here; import it where there is")
			default:
				if err := t.load(file, append(slices.Clone(chain), p)); err != nil {
					return err
				}
			}
		}
	}
	for _, u := range sections {
		switch u.name {
		case "main":
		case "variables":
			t.define(u)
		default:
			t.merge(u)
		}
	}
	return nil
}

func (t *tuned) find(name string) string {
	if name == "" || strings.ContainsAny(name, "/$") || name == ".." || name == "." {
		return ""
	}
	for _, dir := range t.dirs {
		if p := path.Join(dir, name, "tuned.conf"); t.h.Exists(p) {
			return p
		}
	}
	return ""
}

// define takes a section of variables, and files of them that it includes.
func (t *tuned) define(u *tunedUnit) {
	for _, o := range u.options {
		value := t.expand(o.value)
		if o.key != "include" {
			t.variables[o.key] = value
			continue
		}
		text, err := t.h.ReadFile(value)
		if err != nil {
			t.im.lose(o.place, "include = "+o.value, "the file cannot be read")
			continue
		}
		more, err := parseTuned(text)
		if err != nil {
			t.im.lose(o.place, "include = "+o.value, err.Error())
			continue
		}
		for _, m := range more {
			for i := range m.options {
				m.options[i].place = value
				if m.options[i].key != "include" {
					t.variables[m.options[i].key] = t.expand(m.options[i].value)
				}
			}
		}
	}
}

// merge adds a section to the one of the same name: option by option, or in its
// place if it says replace. Source: tuned-profiles(7).
func (t *tuned) merge(u *tunedUnit) {
	i := slices.IndexFunc(t.units, func(v *tunedUnit) bool { return v.name == u.name })
	if i < 0 {
		t.units = append(t.units, u)
		return
	}
	if r, ok := u.option("replace"); ok && truth(r) {
		t.units[i] = u
		return
	}
	old := t.units[i]
	if drop, ok := u.option("drop"); ok {
		for key := range strings.FieldsFuncSeq(drop, func(r rune) bool { return r == ',' || unicode.IsSpace(r) }) {
			old.options = slices.DeleteFunc(old.options, func(o tunedOption) bool { return o.key == key })
		}
	}
	for _, o := range u.options {
		if j := slices.IndexFunc(old.options, func(p tunedOption) bool { return p.key == o.key }); j >= 0 {
			old.options[j] = o
		} else {
			old.options = append(old.options, o)
		}
	}
}

// expand puts in the variables. What is unknown stays, so that it can be told.
func (t *tuned) expand(s string) string {
	reference := regexp.MustCompile(`\$\{(\w+)\}`)
	// Variables may be made of others, but not without end.
	for range 8 {
		next := reference.ReplaceAllStringFunc(s, func(ref string) string {
			if v, ok := t.variables[ref[2:len(ref)-1]]; ok && len(v) < 4096 {
				return v
			}
			return ref
		})
		if next == s || len(next) > 65536 {
			break
		}
		s = next
	}
	return s
}

func truth(s string) bool {
	switch strings.ToLower(s) {
	case "1", "true", "yes", "on", "y":
		return true
	}
	return false
}

// parseTuned reads the sections of a tuned.conf, in order. Options before the
// first section belong to one without a name.
func parseTuned(text []byte) ([]*tunedUnit, error) {
	if !utf8.Valid(text) {
		return nil, errors.New("not UTF-8")
	}
	f, err := ini.LoadSources(ini.LoadOptions{
		IgnoreContinuation:       true,
		SpaceBeforeInlineComment: true,
		KeyValueDelimiters:       "=",
		AllowBooleanKeys:         true,
		SkipUnrecognizableLines:  true,
		PreserveSurroundedQuote:  true,
	}, text)
	if err != nil {
		return nil, err
	}
	var units []*tunedUnit
	for _, s := range f.Sections() {
		u := &tunedUnit{name: s.Name()}
		for _, k := range s.Keys() {
			u.options = append(u.options, tunedOption{key: k.Name(), value: strings.TrimSpace(k.Value())})
		}
		if len(u.options) > 0 {
			units = append(units, u)
		}
	}
	return units, nil
}

// translate says what tuned's plug-ins would do in the language of profiles.
func (t *tuned) translate() {
	for _, u := range t.units {
		if on, ok := u.option("enabled"); ok && u.name != "irqbalance" && !truth(on) {
			continue
		}
		plugin := u.name
		if p, ok := u.option("type"); ok {
			plugin = p
		}
		for _, o := range u.options {
			switch o.key {
			case "type", "enabled", "replace", "drop", "priority", "devices", "devices_udev_regex":
				if plugin != "irqbalance" || o.key != "enabled" {
					continue
				}
			}
			value := t.expand(o.value)
			var why string
			switch {
			case strings.Contains(value, "${f:"):
				why = "one of tuned's functions computes it; see the profile's own functions"
			case strings.Contains(value, "${"):
				why = "it has a variable without a value"
			case !plainText(value) || !plainText(o.key):
				why = "it holds a control character"
			default:
				why = t.option(plugin, o.key, unquoted(value), o.place)
			}
			if why != "" {
				t.im.lose(o.place, o.key+" = "+value, why)
			}
		}
	}
}

// unquoted takes off one pair of quotes.
func unquoted(s string) string {
	if n := len(s); n >= 2 && (s[0] == '"' || s[0] == '\'') && s[n-1] == s[0] {
		return s[1 : n-1]
	}
	return s
}

// option translates one option, or returns why it cannot.
func (t *tuned) option(plugin, key, value, place string) (why string) {
	im := t.im
	switch plugin {
	case "sysctl":
		least, raise := strings.CutPrefix(value, ">")
		if raise {
			n, ok := new(big.Int).SetString(strings.TrimSpace(least), 10)
			parts, err := host.SplitSysctl(key)
			if !ok || err != nil {
				return "only a whole number can be raised to"
			}
			im.sysctl(host.JoinSysctl(parts), "at_least("+n.String()+")", place)
			return ""
		}
		if strings.HasPrefix(value, "<") {
			return "a profile raises a value, and never lowers it to a limit"
		}
		im.sysctlSetting(place, key, value, false)
		return ""
	case "sysfs":
		if _, err := host.SplitSysfs(key); err != nil {
			return err.Error()
		}
		im.sysfs.set(key, quote(value), place)
		return ""
	case "vm":
		return t.vm(key, value, place)
	case "cpu":
		return t.cpu(key, value, place)
	case "bootloader":
		if strings.HasPrefix(key, "cmdline") {
			return t.cmdline(value, place)
		}
	case "irqbalance":
		switch {
		case key == "enabled" && !truth(value):
			im.irq.set("mode", `"disable"`, place)
			return ""
		case key == "enabled":
			return ""
		case key == "banned_cpus":
			if _, disabled := im.irq.values["mode"]; disabled {
				return "irqbalance is stopped already"
			}
			im.irq.set("mode", `"ban"`, place)
			im.irq.set("banned_cpus", quote(value), "")
			return ""
		}
	case "modules":
		name := strings.TrimPrefix(key, "+")
		if rest := strings.TrimSpace(strings.TrimPrefix(value, "+r")); rest != "" {
			return "a profile loads modules without options"
		}
		im.modules.set(name, quote(name), place)
		return ""
	case "disk":
		if key == "readahead" {
			return `write sysfs = { "/sys/block/NAME/queue/read_ahead_kb" = … } for the disks that it is for`
		}
	case "net":
		return "a profile names the devices: see the nic block"
	case "systemd":
		return "a CPU affinity is inherited by pods: write cpu { allowed_cpus = … } for system.slice and user.slice"
	case "script":
		return "a profile runs no scripts"
	}
	return "there is nothing like it"
}

func (t *tuned) vm(key, value, place string) string {
	switch key {
	case "transparent_hugepages", "transparent_hugepage":
		if !slices.Contains([]string{"always", "madvise", "never"}, value) {
			return "not always, madvise or never"
		}
		t.im.kernel.set("thp", quote(value), place)
		return ""
	case "dirty_ratio", "dirty_background_ratio":
		t.im.sysctlSetting(place, "vm."+key, value, false)
		return ""
	case "dirty_bytes", "dirty_background_bytes":
		if n, percent := strings.CutSuffix(value, "%"); percent {
			t.im.sysctlSetting(place, "vm."+strings.Replace(key, "bytes", "ratio", 1), n, false)
			return ""
		}
		t.im.sysctlSetting(place, "vm."+key, value, false)
		return ""
	}
	return "there is nothing like it"
}

// cpu translates with best_effort throughout: tuned, too, goes on where a machine
// has none of it.
func (t *tuned) cpu(key, value, place string) string {
	// The first of several that the machine has.
	first, alternatives, several := strings.Cut(value, "|")
	if several {
		place += ", or " + alternatives
	}
	set := func(attr, expr string) string {
		t.im.cpu.set(attr, "best_effort("+expr+")", place)
		return ""
	}
	number := func(attr string) string {
		n, ok := new(big.Int).SetString(value, 10)
		if !ok {
			return "not a whole number"
		}
		return set(attr, n.String())
	}
	switch key {
	case "governor":
		return set("governor", quote(first))
	case "energy_performance_preference":
		return set("epp", quote(first))
	case "min_perf_pct":
		return number("min_perf_pct")
	case "boost":
		return set("boost", fmt.Sprint(truth(value)))
	case "no_turbo":
		return set("boost", fmt.Sprint(!truth(value)))
	case "force_latency":
		if name, ok := strings.CutPrefix(first, "cstate.name:"); ok {
			return set("force_latency", quote(name))
		}
		for _, prefix := range []string{"cstate.id_no_zero:", "cstate.id:"} {
			if id, ok := strings.CutPrefix(first, prefix); ok {
				return set("force_latency", quote("C"+id))
			}
		}
		return number("force_latency")
	}
	return "there is nothing like it"
}

// cmdline takes arguments of the kernel, after a sign that says to add them.
func (t *tuned) cmdline(value, place string) string {
	if rest, ok := strings.CutPrefix(value, "-"); ok {
		return "it removes " + rest + ": write kernel { cmdline { remove = [ … ] } }"
	}
	var twice []string
	for arg := range strings.FieldsSeq(strings.TrimLeft(value, "+= ")) {
		name, text, has := strings.Cut(arg, "=")
		expr := "true"
		if has {
			expr = quote(text)
		}
		if old, ok := t.im.cmdline.values[name]; ok && old.expr != expr {
			twice = append(twice, arg)
			continue
		}
		t.im.cmdline.set(name, expr, place)
	}
	if len(twice) > 0 {
		return strings.Join(twice, " ") + ": a profile gives an argument once"
	}
	return ""
}
