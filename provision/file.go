package provision

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"io/fs"
	"math"
	"path"
	"regexp"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/hashicorp/hcl/v2"
	"github.com/zclconf/go-cty/cty"

	"github.com/nodeprov/nodeprov/provision/host"
	"github.com/nodeprov/nodeprov/provision/profile"
)

// fileKind writes files.
func fileKind() Kind {
	return Kind{
		Name: "file",
		Schema: &profile.Schema{
			Type:    "file",
			Label:   "path",
			ForEach: true,
			Doc: "A regular file, replaced in one step, so that a reader sees the old one or the new one. Directories on the way are made with mode 0755, and " +
				"stay when the file goes. A file that is there already is kept in the journal, and a rollback puts it back. " +
				"Secrets are refused, as plan and journal hold the content: give them to the unit that needs them as systemd credentials. " +
				"A file in /etc/systemd/system has systemd read its units again, and restarts the service that it belongs to if that runs; see unit.",
			Attrs: []profile.Attr{
				{Name: "path", Type: cty.String, Doc: "Absolute path of the file; what the label is where this is left out."},
				{Name: "content", Type: cty.String, Doc: "The whole content, as UTF-8, at most 4 MiB."},
				{Name: "content_base64", Type: cty.String, Doc: "The whole content in base64, for what is no text; instead of content."},
				{Name: "mode", Type: cty.String, Default: cty.StringVal("0644"), Doc: "Permissions in octal, as chmod(1) has them: three or four digits."},
				{Name: "owner", Type: cty.String, Default: cty.StringVal("root"), Doc: "Owner, a name in /etc/passwd or a number."},
				{Name: "group", Type: cty.String, Default: cty.StringVal("root"), Doc: "Group, a name in /etc/group or a number."},
				{Name: "state", Type: cty.String, Default: cty.StringVal("present"), Doc: `"present", or "absent" to have no such file.`},
				{Name: "on_error", Type: cty.String, Default: cty.StringVal("warn"),
					Doc: `What a failure to write it does: "warn" goes on and the profile counts as partly applied, "fail" stops.`},
			},
		},
		Wanted:   fileBlockWanted,
		Open:     func(name string) (Setting, error) { return openFile(name) },
		Scope:    Machine,
		Lifetime: Persistent,
		Effect:   "now",
	}
}

// file is a regular file. Its value is one line with mode and owner as numbers,
// "0644 0:0", and after it the content, byte for byte. Links, directories and
// devices in its place are refused. Directories that Write made on the way stay
// when the file goes.
type file struct {
	path string
}

// fileWanted asks for a file of root's. rng is the place in the profile.
func fileWanted(path string, mode fs.FileMode, content []byte, rng hcl.Range) Wanted {
	want := fileValue(host.File{Mode: mode, Content: content})
	return Wanted{
		Setting: file{path},
		Want:    func(Value) (Value, error) { return want, nil },
		Range:   rng,
		OnError: Fail,
	}
}

// Lifetime: what is below /run is gone after a reboot.
func (s file) Lifetime() Lifetime {
	if strings.HasPrefix(s.path, "/run/") {
		return Runtime
	}
	return Persistent
}

func openFile(name string) (file, error) {
	if err := checkFilePath(name); err != nil {
		return file{}, fmt.Errorf("file: %w", err)
	}
	return file{name}, nil
}

func (s file) Key() string { return "file/" + s.path }

func (s file) Read(_ context.Context, h *host.Host) (Value, error) {
	f, err := h.File(s.path)
	if errors.Is(err, fs.ErrNotExist) {
		return Value{Absent: true}, nil
	}
	if err != nil {
		return Value{}, fmt.Errorf("file: %w", err)
	}
	return fileValue(f), nil
}

// Write replaces or removes the file. If it is a unit's file or drop-in, systemd
// reads its units again. If a service that runs reads it when it starts, that
// service is restarted, without waiting. This belongs to the file because going
// back needs it as well, where the file is put back after the unit. If we are
// killed in between, the unit reads as "with an older configuration".
func (s file) Write(ctx context.Context, h *host.Host, v Value) error {
	if v.Absent {
		if err := h.Remove(s.path); err != nil {
			return fmt.Errorf("file: %w", err)
		}
	} else {
		f, err := parseFile(v)
		if err != nil {
			return fmt.Errorf("file %s: %w", s.path, err)
		}
		if err := h.WriteFile(s.path, f); err != nil {
			return fmt.Errorf("file: %w", err)
		}
	}
	if !isUnitFile(s.path) && unitOf(s.path) == "" {
		return nil
	}
	m, err := systemd(ctx, h)
	if errors.Is(err, host.ErrOffline) || errors.Is(err, host.ErrNoSystemd) {
		return nil
	}
	if err == nil {
		err = s.announce(ctx, m)
	}
	if err != nil {
		return fmt.Errorf("file %s: it is written, but what reads it may run with the older one: %w", s.path, err)
	}
	return nil
}

// announce tells those of the new file that read it.
func (s file) announce(ctx context.Context, m manager) error {
	if isUnitFile(s.path) {
		if err := m.Reload(ctx); err != nil {
			return err
		}
	}
	if name := unitOf(s.path); name != "" {
		return restartRunning(ctx, m, name)
	}
	return nil
}

// isUnitFile tells whether systemd reads the file.
func isUnitFile(path string) bool { return strings.HasPrefix(path, host.UnitDir+"/") }

// special are the bits above the permissions, as chmod(1) numbers them.
func special() map[fs.FileMode]uint32 {
	return map[fs.FileMode]uint32{fs.ModeSetuid: 0o4000, fs.ModeSetgid: 0o2000, fs.ModeSticky: 0o1000}
}

func fileValue(f host.File) Value {
	mode := uint32(f.Mode.Perm())
	for bit, n := range special() {
		if f.Mode&bit != 0 {
			mode |= n
		}
	}
	return Value{Text: fmt.Sprintf("%04o %d:%d\n%s", mode, f.UID, f.GID, f.Content)}
}

func parseFile(v Value) (host.File, error) {
	head, content, _ := strings.Cut(v.Text, "\n")
	m := regexp.MustCompile(`^([0-7]{4}) (\d+):(\d+)$`).FindStringSubmatch(head)
	if m == nil {
		return host.File{}, fmt.Errorf("the value begins with %q, not with mode and owner as in \"0644 0:0\"", head)
	}
	mode, err := strconv.ParseUint(m[1], 8, 12)
	if err != nil {
		return host.File{}, err
	}
	uid, err := strconv.ParseUint(m[2], 10, 32)
	if err != nil {
		return host.File{}, fmt.Errorf("owner: %w", err)
	}
	gid, err := strconv.ParseUint(m[3], 10, 32)
	if err != nil {
		return host.File{}, fmt.Errorf("group: %w", err)
	}
	f := host.File{Mode: fs.FileMode(mode).Perm(), UID: int(uid), GID: int(gid), Content: []byte(content)}
	for bit, n := range special() {
		if uint32(mode)&n != 0 {
			f.Mode |= bit
		}
	}
	return f, nil
}

// checkFilePath takes absolute paths of one spelling, of files that are no
// interface of the kernel.
func checkFilePath(p string) error {
	switch {
	case !strings.HasPrefix(p, "/"):
		return fmt.Errorf("%q is no absolute path", p)
	case path.Clean(p) != p || p == "/":
		return fmt.Errorf("%q is not the plain path of a file (it has \".\", \"..\" or a slash too many)", p)
	case strings.ContainsFunc(p, unicode.IsControl) || !utf8.ValidString(p):
		return fmt.Errorf("%q has a control character, or is no UTF-8", p)
	}
	for dir, instead := range map[string]string{
		"/proc": "write keys below /proc/sys in sysctl", "/sys": "write keys below /sys in sysfs", "/dev": "devices are udev's",
	} {
		if strings.HasPrefix(p+"/", dir+"/") {
			return fmt.Errorf("%q is no file on a disk (%s)", p, instead)
		}
	}
	return nil
}

func fileBlockWanted(b profile.Block, t Target) ([]Wanted, hcl.Diagnostics) {
	r := &attrReader{block: b}
	r.classes()
	name, at := b.Label, b.Range
	if v, ok := given(b, "path"); ok {
		name, _ = r.text("path")
		at = v.Range
	}
	if name != "" {
		if err := checkFilePath(name); err != nil {
			r.diags = append(r.diags, wrongAt(at, "Invalid path", "%v.", err))
		}
	}
	state, ds := oneOf(b, "state", "present", "absent")
	r.diags = append(r.diags, ds...)
	f, complete := r.file(t.Host, state == "absent")
	if r.diags.HasErrors() || r.unknown || !complete || name == "" {
		return nil, r.diags
	}
	want := fileValue(f)
	if state == "absent" {
		want = Value{Absent: true}
	}
	return []Wanted{{Setting: file{name}, Want: fixed(want), Range: b.Range, OnError: r.class(profile.Value{})}}, r.diags
}

// file reads the attributes of a file block; complete is false where something
// follows from a machine that is not known.
func (r *attrReader) file(h *host.Host, absent bool) (f host.File, complete bool) {
	content, has := r.content("content")
	encoded, hasEncoded := r.content("content_base64")
	_, given1 := given(r.block, "content")
	v2, given2 := given(r.block, "content_base64")
	switch {
	case given1 && given2:
		r.wrong(v2, "content_base64", "The block has content as well. Remove one of the two.")
	case absent && (given1 || given2):
		r.diags = append(r.diags, wrongAt(r.block.Range, "Content of an absent file", "The file shall be absent, and yet it has content. Remove one of the two."))
	case !absent && !given1 && !given2:
		r.diags = append(r.diags, wrongAt(r.block.Range, "Missing content", "A file block needs content, as in content = \"text\\n\", or state = \"absent\"."))
	case has:
		f.Content = []byte(content)
	case hasEncoded:
		raw, err := base64.StdEncoding.DecodeString(encoded)
		if err != nil {
			r.wrong(v2, "content_base64", "It is no base64: %v.", err)
		}
		f.Content = raw
	}
	if len(f.Content) > host.MaxFileSize {
		r.diags = append(r.diags, wrongAt(r.block.Range, "File too large", "The content has %d bytes, and %d are the most: the journal is no place for more. Bring it with a package, or in the image.", len(f.Content), host.MaxFileSize))
	}
	if mode, ok := r.text("mode"); ok {
		if !regexp.MustCompile(`^[0-7]{3,4}$`).MatchString(mode) {
			r.wrong(r.block.Attrs["mode"], "mode", "%q is no mode: write three or four octal digits, as in \"0644\".", mode)
		}
		parsed, err := parseFile(Value{Text: fmt.Sprintf("%04s 0:0\n", mode)})
		if err == nil {
			f.Mode = parsed.Mode
		}
	}
	uid, ok1 := r.id(h, "owner", "/etc/passwd")
	gid, ok2 := r.id(h, "group", "/etc/group")
	f.UID, f.GID = uid, gid
	return f, ok1 && ok2
}

// content is text that a secret must not be in.
func (r *attrReader) content(name string) (string, bool) {
	v, ok := given(r.block, name)
	if ok && v.ContainsMarked() {
		r.diags = append(r.diags, wrongAt(v.Range, "Sensitive value", "%s cannot be made of a secret: plan and journal hold files byte for byte. "+
			"Give the secret to the unit that needs it, as a systemd credential (LoadCredential= in a drop-in of the unit).", name))
		return "", false
	}
	return r.text(name)
}

// id resolves a user or a group with the file of the host that lists them, not
// with the machine that runs us: with --root those differ.
func (r *attrReader) id(h *host.Host, attr, list string) (int, bool) {
	name, ok := r.text(attr)
	if !ok {
		return 0, false
	}
	if name == "root" {
		return 0, true
	}
	if n, err := strconv.ParseUint(name, 10, 32); err == nil && n != math.MaxUint32 { // which stands for "unchanged"
		return int(n), true
	}
	if h == nil {
		return 0, false
	}
	b, err := h.ReadFile(list)
	if err != nil {
		r.wrong(r.block.Attrs[attr], attr, "%q is no number, and the names cannot be read: %v.", name, err)
		return 0, false
	}
	for line := range strings.Lines(string(b)) {
		if f := strings.Split(line, ":"); len(f) > 2 && f[0] == name {
			if n, err := strconv.ParseUint(strings.TrimSpace(f[2]), 10, 32); err == nil {
				return int(n), true
			}
		}
	}
	r.wrong(r.block.Attrs[attr], attr, "%s of this machine has no %q. Write a name that it has, or a number.", list, name)
	return 0, false
}
