package provision

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	gocmp "github.com/google/go-cmp/cmp"
	"github.com/hashicorp/hcl/v2"

	"github.com/nodeprov/nodeprov/provision/host"
)

func TestFileValue(t *testing.T) {
	for want, f := range map[string]host.File{
		"0644 0:0\n":               {Mode: 0o644, Content: []byte{}},
		"0600 7:8\na\nb":           {Mode: 0o600, UID: 7, GID: 8, Content: []byte("a\nb")},
		"7755 0:0\n\x00\xff\r\n\n": {Mode: 0o755 | fs.ModeSetuid | fs.ModeSetgid | fs.ModeSticky, Content: []byte("\x00\xff\r\n\n")},
		"2000 4294967294:1\n\n":    {Mode: fs.ModeSetgid, UID: 4294967294, GID: 1, Content: []byte("\n")},
	} {
		v := fileValue(f)
		if v.Text != want {
			t.Errorf("%q, want %q", v.Text, want)
		}
		got, err := parseFile(v)
		if err != nil {
			t.Error(err)
		}
		if d := gocmp.Diff(f, got); d != "" {
			t.Error(d)
		}
	}
	for _, text := range []string{"", "x", "644 0:0\n", "0888 0:0\n", "0644 root:root\n", "0644 0:0 \n", "0644 4294967296:0\n", "0644 0:-1\n"} {
		if f, err := parseFile(Value{Text: text}); err == nil {
			t.Errorf("%q is taken for %+v", text, f)
		}
	}
}

func FuzzFileValue(f *testing.F) {
	f.Add("0644 0:0\ntext")
	f.Add("7777 1:2\n\x00\xff")
	f.Fuzz(func(t *testing.T, text string) {
		file, err := parseFile(Value{Text: text})
		if err != nil {
			return
		}
		again, err := parseFile(fileValue(file))
		if err != nil {
			t.Fatal(err)
		}
		if d := gocmp.Diff(file, again); d != "" {
			t.Fatal(d)
		}
	})
}

// Apply twice, change, roll back step by step: each time the tree is, byte for
// byte, what it was.
func TestFileApply(t *testing.T) {
	for name, setUp := range map[string]func(p string) error{
		"absent": func(string) error { return nil },
		"present": func(p string) error {
			return errors.Join(os.WriteFile(p, []byte("\x00\xff\nold\n"), 0o600), os.Chown(p, 12, 34), os.Chmod(p, 0o750|fs.ModeSetgid))
		},
	} {
		t.Run(name, func(t *testing.T) {
			h, root, text := treeHost(t, map[string]string{"etc/lbd/other": "x", "proc/sys/kernel/random/boot_id": "b\n"})
			if err := setUp(filepath.Join(root, "etc/lbd/lbd.hcl")); err != nil {
				t.Fatal(err)
			}
			e := &Engine{Host: h, Kinds: Kinds(), State: t.TempDir(), Boot: "b"}
			wanted := func(content string) []Wanted {
				return []Wanted{fileWanted("/etc/lbd/lbd.hcl", 0o640, []byte(content), hcl.Range{Filename: "p"})}
			}
			states := []string{text()}
			for _, content := range []string{"one\n", "two\x00\xff"} {
				mustApply(t, e, wanted(content))
				states = append(states, text())
				if r := mustApply(t, e, wanted(content)); len(r.Applied) != 0 {
					t.Errorf("applied again: %+v", r.Applied)
				}
			}
			if !strings.Contains(states[1], `/etc/lbd/lbd.hcl -rw-r----- "one\n"`) {
				t.Errorf("after the first apply:\n%s", states[1])
			}
			for gen := 1; gen >= 0; gen-- {
				e.Boot += "+" // files outlive a reboot, and so must the way back
				mustRollback(t, e, gen)
				if d := gocmp.Diff(states[gen], text()); d != "" {
					t.Errorf("back to %d: %s", gen, d)
				}
			}
			if f, err := h.File("/etc/lbd/lbd.hcl"); name == "present" && (err != nil || f.UID != 12 || f.GID != 34) {
				t.Errorf("owner %d:%d, %v", f.UID, f.GID, err)
			}
		})
	}
}

func TestFileRefused(t *testing.T) {
	h, root, text := treeHost(t, map[string]string{"etc/real": "x"})
	if err := errors.Join(os.Symlink("real", filepath.Join(root, "etc/link")), os.Mkdir(filepath.Join(root, "etc/dir"), 0o755)); err != nil {
		t.Fatal(err)
	}
	before := text()
	for path, want := range map[string]string{
		"/etc/link": "file: /etc/link is a symbolic link to real: not a regular file (move it away, then apply again)",
		"/etc/dir":  "file: /etc/dir is a directory: not a regular file (move it away, then apply again)",
	} {
		w := fileWanted(path, 0o644, []byte("y"), hcl.Range{})
		_, readErr := w.Read(t.Context(), h)
		for op, err := range map[string]error{
			"read":   readErr,
			"write":  w.Write(t.Context(), h, Value{Text: "0644 0:0\ny"}),
			"remove": w.Write(t.Context(), h, Value{Absent: true}),
		} {
			if fmt.Sprint(err) != want {
				t.Errorf("%s %s: %v", op, path, err)
			}
		}
	}
	if d := gocmp.Diff(before, text()); d != "" {
		t.Error(d)
	}
}

func TestFileBlock(t *testing.T) {
	h, _, _ := treeHost(t, map[string]string{
		"etc/passwd": "root:x:0:0::/root:/bin/sh\nbroken\nchrony:x:105:112::/:/bin/false\n",
		"etc/group":  "root:x:0:\nadm:x:4:\n",
	})
	for _, tc := range []struct {
		name, text string
		h          *host.Host
		want       string
	}{
		{"content", "file \"/etc/motd\" {\n  content = \"hello\"\n}", h, "file//etc/motd = 0644 0:0\nhello"},
		{"owners", "file \"/etc/x\" {\n  content = \"\"\n  owner = \"chrony\"\n  group = \"adm\"\n  mode = \"2750\"\n  on_error = \"fail\"\n}", h, "file//etc/x = 2750 105:4\n (fail)"},
		{"numbers, path, base64", "file \"x\" {\n  path = \"/etc/x\"\n  content_base64 = \"aGkK\"\n  owner = \"105\"\n  group = 4\n  mode = \"600\"\n}", nil, "file//etc/x = 0600 105:4\nhi\n"},
		{"absent", "file \"/etc/motd\" {\n  state = \"absent\"\n}", h, "file//etc/motd ="},
		{"names of an unknown machine", "file \"/etc/motd\" {\n  content = \"\"\n  owner = \"nobody\"\n}", nil, ""},
		{"unknown content", "file \"/etc/motd\" {\n  content = host.hostname\n  mode = \"999\"\n}", nil,
			`3,10: Invalid value of mode: "999" is no mode: write three or four octal digits, as in "0644".`},
		{"mistakes", `file "etc/motd" {
  content        = "x"
  content_base64 = "eA=="
  owner          = "nobody"
}
file "/sys/x" {
  content_base64 = "%"
}
file "/etc/../x" {
}
file "/dev/null" {
  state   = "absent"
  content = ""
}`, h, `
1,1: Invalid path: "etc/motd" is no absolute path.
3,20: Invalid value of content_base64: The block has content as well. Remove one of the two.
4,20: Invalid value of owner: /etc/passwd of this machine has no "nobody". Write a name that it has, or a number.
6,1: Invalid path: "/sys/x" is no file on a disk (write keys below /sys in sysfs).
7,20: Invalid value of content_base64: It is no base64: illegal base64 data at input byte 0.
9,1: Invalid path: "/etc/../x" is not the plain path of a file (it has ".", ".." or a slash too many).
9,1: Missing content: A file block needs content, as in content = "text\n", or state = "absent".
11,1: Invalid path: "/dev/null" is no file on a disk (devices are udev's).
11,1: Content of an absent file: The file shall be absent, and yet it has content. Remove one of the two.`},
		{"secret", `variable "s" {
  type      = string
  default   = "x"
  sensitive = true
}
file "/etc/token" {
  content = var.s
  mode    = "0600"
}`, h, `7,13: Sensitive value: content cannot be made of a secret: plan and journal hold files byte for byte. Give the secret to the unit that needs it, as a systemd credential (LoadCredential= in a drop-in of the unit).`},
	} {
		t.Run(tc.name, func(t *testing.T) { sameText(t, tc.want, wantedOnMachine(t, tc.text, tc.h, nil)) })
	}
}

// Directories come with the file; the same again changes nothing.
func TestFileBlockApply(t *testing.T) {
	h, _, text := treeHost(t, map[string]string{"etc/gone": "bye", "proc/sys/kernel/random/boot_id": "b\n"})
	before := text()
	e := &Engine{Host: h, Kinds: Kinds(), State: t.TempDir(), Boot: "b"}
	p := evaluate(t, `
file "each" {
  for_each       = { one = "MQo=", two = "AP8=" }
  path           = "/etc/a/b/${each.key}"
  content_base64 = each.value
}
file "/etc/gone" {
  state = "absent"
}`, unknownHost())
	ws, diags := e.Desired(p, nil, PhaseAll)
	if diags.HasErrors() {
		t.Fatal(diags)
	}
	mustApply(t, e, ws)
	sameText(t, `
/etc/a/b/one -rw-r--r-- "1\n"
/etc/a/b/two -rw-r--r-- "\x00\xff"
/proc/sys/kernel/random/boot_id -rw-r--r-- "b\n"`, text())
	if r := mustApply(t, e, ws); len(r.Applied) != 0 {
		t.Errorf("applied again: %+v", r.Applied)
	}
	mustRollback(t, e, 0)
	if d := gocmp.Diff(before, text()); d != "" {
		t.Error(d)
	}
}
