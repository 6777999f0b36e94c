package provision

import (
	"strings"
	"testing"

	"github.com/hashicorp/hcl/v2"

	"github.com/nodeprov/nodeprov/lbd/config"
	"github.com/nodeprov/nodeprov/provision/host"
)

func TestLBDWanted(t *testing.T) {
	facts := &host.Facts{Hostname: "n1"}
	for _, tc := range []struct {
		name, text string
		facts      *host.Facts
		want       string
	}{
		{"defaults", "lbd {\n}", facts, "file//etc/lbd/lbd.hcl\nunit/lbd.service = enabled, started"},
		{"without the service", "lbd {\n  service = false\n}", nil, "file//etc/lbd/lbd.hcl"},
		{"null service", "lbd {\n  service = null\n}", nil, "file//etc/lbd/lbd.hcl\nunit/lbd.service = enabled, started"},
		{"unknown host", "lbd {\n  node_name = host.hostname\n  log_level = \"loud\"\n}", nil,
			`3,15: error: Invalid value of log_level: "loud" is no level (one of debug, info, warn, error).`},
		{"unknown host, all right", "lbd {\n  node_name = host.hostname\n}", nil, ""},
		{"unknown service", "lbd {\n  service = host.cpu.count > 1\n}", nil, ""},
		{"bad networks", "lbd {\n  service_cidrs = [\"10.43.0.0\"]\n  state_dir = \"var\"\n}", facts, `
2,19: error: Invalid value of service_cidrs: "10.43.0.0" is an address, not a network (add a length, such as 10.43.0.0/32).
3,15: error: Invalid value of state_dir: "var" is no absolute path (it must begin with /).`},
		{"overlap", "lbd {\n  cluster_cidrs = [\"10.43.0.0/17\"]\n}", facts,
			`2,19: error: Invalid value of cluster_cidrs: 10.43.0.0/17 overlaps 10.43.0.0/16 of service_cidrs (a ClusterIP must never be a pod's address).`},
		{"secret", `variable "n" {
  type      = string
  default   = "n1"
  sensitive = true
}
lbd {
  node_name = var.n
}`, facts, `7,15: error: Sensitive value: node_name cannot be set from a sensitive value: everybody can read /etc/lbd/lbd.hcl. Use a value that is not secret.`},
	} {
		t.Run(tc.name, func(t *testing.T) {
			// The file's text has its own test below.
			var lines []string
			for line := range strings.SplitSeq(wantedText(t, tc.text, tc.facts), "\n") {
				if name, ok := strings.CutSuffix(line, " = 0644 0:0"); ok {
					lines = append(lines, name)
				} else if line != "" && !strings.HasPrefix(line, "#") {
					lines = append(lines, line)
				}
			}
			sameText(t, tc.want, strings.Join(lines, "\n"))
		})
	}
}

// The file says to lbd what the block said to us.
func TestLBDFile(t *testing.T) {
	p := evaluate(t, `lbd {
  node_name     = host.hostname
  service_cidrs = ["10.96.0.0/12", "fd00:43::/112"]
  log_level     = "debug"
}`, (host.Facts{Hostname: "n1"}).Value())
	ws, diags := (&Engine{Kinds: Kinds()}).Desired(p, &host.Facts{Hostname: "n1"}, PhaseAll)
	if diags.HasErrors() || len(ws) != 2 {
		t.Fatal(ws, diags)
	}
	for _, w := range ws {
		if w.OnError != Fail {
			t.Errorf("%s: class %s", w.Key(), w.OnError)
		}
	}
	v, err := ws[0].Want(Value{Absent: true})
	if err != nil {
		t.Fatal(err)
	}
	f, err := parseFile(v)
	if err != nil {
		t.Fatal(err)
	}
	got, diags := config.Parse(config.File, f.Content)
	if diags.HasErrors() {
		t.Fatal(diags)
	}
	values := map[string]string{}
	for name, v := range got.Values() {
		if v.Type().FriendlyName() == "string" {
			values[name] = v.AsString()
		}
	}
	if values["node_name"] != "n1" || values["log_level"] != "debug" || len(got.ServiceCIDRs) != 2 || f.Mode != 0o644 {
		t.Errorf("%+v, mode %o", got, f.Mode)
	}
	// Nothing of it depends on the order or the time.
	again, _ := (&Engine{Kinds: Kinds()}).Desired(p, &host.Facts{Hostname: "n1"}, PhaseAll)
	if v2, err := again[0].Want(Value{}); err != nil || v2 != v {
		t.Errorf("%v, %v", v2, err)
	}
}

// In an image without lbd, the unit says why it cannot be.
func TestLBDImage(t *testing.T) {
	h, _, _ := treeHost(t, nil)
	w := unitWanted(lbdUnit, hcl.Range{})
	v, err := w.Read(t.Context(), h)
	if err != nil || !v.Absent {
		t.Errorf("%v, %v", v, err)
	}
	if err := w.Unsupported(h); err == nil || err.Error() != "unit lbd.service: it is not installed (run `nodeprov install`)" {
		t.Errorf("%v", err)
	}
}
