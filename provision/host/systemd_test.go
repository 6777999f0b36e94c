package host

import (
	"testing"

	"github.com/google/go-cmp/cmp"
	"k8s.io/utils/cpuset"
)

// The form is that of systemd's D-Bus interface: 0x02 0x78 0x04 are the CPUs 1,
// 11-14 and 18.
func TestCPUMask(t *testing.T) {
	for list, want := range map[string][]byte{
		"":           {},
		"0":          {1},
		"7-8":        {0x80, 1},
		"1,11-14,18": {0x02, 0x78, 0x04},
		"64":         {0, 0, 0, 0, 0, 0, 0, 0, 1},
	} {
		cpus, err := cpuset.Parse(list)
		if err != nil {
			t.Fatal(err)
		}
		if d := cmp.Diff(want, cpuMask(cpus)); d != "" {
			t.Errorf("%q: %s", list, d)
		}
		// systemd answers with whole words.
		if got := maskCPUs(append(cpuMask(cpus), 0, 0, 0)); got.String() != list {
			t.Errorf("%q comes back as %q", list, got)
		}
	}
}

func TestUnitType(t *testing.T) {
	for name, want := range map[string]string{"a.slice": "Slice", "a.b.service": "Service", "x.scope": "Scope"} {
		if got := unitType(name); got != want {
			t.Errorf("%s: %s", name, got)
		}
	}
}

// A host whose connections are closed can be used again.
func TestCloseHost(t *testing.T) {
	h := newTree(t, nil)
	h.Close()
	h.Close()
}
