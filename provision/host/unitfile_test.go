package host

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// newTree is a host in a directory with these files.
func newTree(tb testing.TB, files map[string]string) *Host {
	tb.Helper()
	root := tb.TempDir()
	for name, content := range files {
		p := filepath.Join(root, name)
		if err := errors.Join(os.MkdirAll(filepath.Dir(p), 0o755), os.WriteFile(p, []byte(content), 0o644)); err != nil {
			tb.Fatal(err)
		}
	}
	h, err := New(Options{Root: root})
	if err != nil {
		tb.Fatal(err)
	}
	return h
}

func TestParseUnitInstall(t *testing.T) {
	got, err := ParseUnitInstall([]byte("# a\n[Unit]\nWantedBy=no.target\n[Install]\nWantedBy=gone.target\nWantedBy=\nWantedBy=a.target b.target\nRequiredBy=c.target\nAlias=d.service\nAlso=e.socket\nDefaultInstance=f\n"))
	want := UnitInstall{Found: true, WantedBy: []string{"a.target", "b.target"}, RequiredBy: []string{"c.target"}, Alias: []string{"d.service"}, Also: []string{"e.socket"}, DefaultInstance: "f"}
	if d := cmp.Diff(want, got); d != "" || err != nil {
		t.Error(d, err)
	}
	if in, err := ParseUnitInstall([]byte("[Service]\nExecStart=x\n")); err != nil || in.Found {
		t.Errorf("%+v, %v", in, err)
	}
	if in, err := ParseUnitInstall([]byte("\n; c\nNice=1\n[Service]\n")); err == nil {
		t.Errorf("%+v", in)
	}
}

func TestUnitFiles(t *testing.T) {
	h := newTree(t, map[string]string{
		"usr/lib/systemd/system/a.service":                "[Install]\nWantedBy=multi-user.target\nAlso=a.socket missing.socket\n",
		"usr/lib/systemd/system/a.socket":                 "[Install]\nRequiredBy=sockets.target\n",
		"usr/lib/systemd/system/s.service":                "[Service]\n",
		"usr/lib/systemd/system/t@.service":               "[Install]\nWantedBy=dev-%i.target\n",
		"usr/lib/systemd/system/u.service":                "[Install]\nWantedBy=%H.target\n",
		"usr/lib/systemd/system/empty.path":               "",
		"etc/systemd/system/own.service":                  "[Install]\nWantedBy=x.target\n",
		"opt/linked.service":                              "[Install]\nWantedBy=x.target\n",
		"etc/systemd/system/x.target.wants/other.service": "",
	})
	if err := os.Symlink("/opt/linked.service", h.Path(UnitDir+"/linked.service")); err != nil {
		t.Fatal(err)
	}
	u := h.UnitFiles()
	state := func(name string) string {
		st, err := u.Unit(t.Context(), name)
		if err != nil {
			return err.Error()
		}
		return st.LoadState + " " + st.UnitFileState
	}
	link := func(name string) string {
		to, err := os.Readlink(h.Path(UnitDir + "/" + name))
		if err != nil {
			return ""
		}
		return to
	}
	want := map[string]string{
		"a.service": "loaded disabled", "s.service": "loaded static", "t@x.service": "loaded disabled", "none.service": "not-found ",
		"empty.path": "masked masked", "own.service": "loaded disabled", "linked.service": "loaded disabled",
		"t@.service": "unit file of t@.service: it is a template (name an instance, or give its file a DefaultInstance=)",
		"u.service":  `unit file of u.service: its [Install] section has a specifier other than %i in "/etc/systemd/system/%H.target.wants/u.service" (enable it on the machine itself)`,
	}
	got := map[string]string{}
	for name := range want {
		got[name] = state(name)
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Error(d)
	}

	for range 2 { // twice: no change
		for _, name := range []string{"a.service", "t@x.service", "own.service"} {
			if err := u.Enable(t.Context(), name); err != nil {
				t.Error(err)
			}
			if state(name) != "loaded enabled" {
				t.Error(name, state(name))
			}
		}
	}
	for l, to := range map[string]string{
		"multi-user.target.wants/a.service": "/usr/lib/systemd/system/a.service",
		"sockets.target.requires/a.socket":  "/usr/lib/systemd/system/a.socket",
		"dev-x.target.wants/t@x.service":    "/usr/lib/systemd/system/t@.service",
		"x.target.wants/own.service":        "/etc/systemd/system/own.service",
	} {
		if got := link(l); got != to {
			t.Errorf("%s -> %q", l, got)
		}
	}
	for range 2 {
		for _, name := range []string{"a.service", "t@x.service", "own.service"} {
			if err := u.Disable(t.Context(), name); err != nil || state(name) != "loaded disabled" {
				t.Error(name, state(name), err)
			}
		}
	}
	if _, err := os.Stat(h.Path(UnitDir + "/multi-user.target.wants")); err == nil {
		t.Error("an empty directory of links is left")
	}
	if _, err := os.Stat(h.Path(UnitDir + "/x.target.wants/other.service")); err != nil {
		t.Error(err)
	}

	for range 2 {
		if err := u.Mask(t.Context(), "a.service"); err != nil || state("a.service") != "masked masked" {
			t.Error(state("a.service"), err)
		}
	}
	if err := u.Enable(t.Context(), "a.service"); err == nil {
		t.Error("a masked unit was enabled")
	}
	for range 2 {
		if err := u.Unmask(t.Context(), "a.service"); err != nil || state("a.service") != "loaded disabled" {
			t.Error(state("a.service"), err)
		}
	}
	if err := u.Mask(t.Context(), "own.service"); err == nil || state("own.service") != "loaded disabled" {
		t.Errorf("the administrator's file gave way to a mask: %v", err)
	}
	if err := u.Enable(t.Context(), "s.service"); err == nil {
		t.Error("a unit without [Install] was enabled")
	}
}
