package units

import (
	"slices"
	"strings"
	"testing"
)

func TestFiles(t *testing.T) {
	files, err := Files(Options{BinDir: "/opt/node/bin/"})
	if err != nil {
		t.Fatal(err)
	}
	// What each is wanted by; udev and the timer start the others.
	want := map[string][]string{
		"/etc/systemd/system/lbd.service":             {"multi-user.target"},
		"/etc/systemd/system/nodeprov-apply.service":  {"multi-user.target"},
		"/etc/systemd/system/nodeprov-early.service":  {"sysinit.target"},
		"/etc/systemd/system/nodeprov-nic@.service":   nil,
		"/etc/systemd/system/nodeprov-verify.service": nil,
		"/etc/systemd/system/nodeprov-verify.timer":   {"timers.target"},
		"/etc/systemd/system/nodeprov-watch.service":  {"multi-user.target"},
		"/etc/udev/rules.d/82-nodeprov.rules":         nil,
	}
	if len(files) != len(want) {
		t.Errorf("%d files, want %d", len(files), len(want))
	}
	for i, f := range files {
		text := string(f.Text)
		if strings.HasSuffix(f.Path, ".service") != strings.Contains(text, "\nExecStart=/opt/node/bin/") || strings.Contains(text, "{{") || strings.Contains(text, "<no value>") {
			t.Errorf("%s:\n%s", f.Path, text)
		}
		by, err := WantedBy(f)
		if _, known := want[f.Path]; err != nil || !known || !slices.Equal(by, want[f.Path]) {
			t.Errorf("%s is wanted by %q, %v", f.Path, by, err)
		}
		if f.Mode != 0o644 {
			t.Errorf("%s: mode %o", f.Path, f.Mode)
		}
		// A reader of a diff expects an order.
		if i > 0 && files[i-1].Path >= f.Path {
			t.Errorf("%s is not sorted", f.Path)
		}
		// Each of these made a cycle, or hung a boot, in the field.
		for _, bad := range []string{"cloud-init.target", "cloud-final", "network-online.target", "Requires="} {
			for line := range strings.Lines(text) {
				if !strings.HasPrefix(line, "#") && strings.Contains(line, bad) {
					t.Errorf("%s: %s", f.Path, line)
				}
			}
		}
	}
}

func TestFilesRefuses(t *testing.T) {
	for _, dir := range []string{"", "bin", "/opt/my node/bin", "/opt/%n"} {
		if _, err := Files(Options{BinDir: dir}); err == nil {
			t.Errorf("%q was accepted", dir)
		}
	}
}

// What writes or compares every setting must see the machine as it is, not a view of its
// own; and what may write files, all of them.
func TestViews(t *testing.T) {
	files, err := Files(Options{BinDir: "/usr/local/bin"})
	if err != nil {
		t.Fatal(err)
	}
	own := []string{"ProtectHome=", "PrivateTmp=", "ProtectHostname=", "ProtectKernelModules=", "ProtectKernelTunables=", "ProtectControlGroups=", "PrivateDevices="}
	for unit, capability := range map[string]string{
		"nodeprov-apply.service": "CAP_DAC_OVERRIDE", "nodeprov-watch.service": "CAP_DAC_READ_SEARCH", "nodeprov-verify.service": "",
	} {
		i := slices.IndexFunc(files, func(f File) bool { return f.Path == Dir+"/"+unit })
		bounded := ""
		for line := range strings.Lines(string(files[i].Text)) {
			if slices.ContainsFunc(own, func(s string) bool { return strings.HasPrefix(line, s) }) {
				t.Errorf("%s: %s", unit, line)
			}
			if set, ok := strings.CutPrefix(line, "CapabilityBoundingSet="); ok {
				bounded = set
			}
		}
		if bounded != "" && !slices.Contains(strings.Fields(bounded), capability) {
			t.Errorf("%s: without %s", unit, capability)
		}
	}
}
