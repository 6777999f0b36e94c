package config

import (
	"fmt"
	"log/slog"
	"net/netip"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/zclconf/go-cty/cty"
)

func prefix(s string) netip.Prefix { return netip.MustParsePrefix(s) }

var comparePrefix = cmp.Comparer(func(a, b netip.Prefix) bool { return a == b })

func TestDefault(t *testing.T) {
	want := Config{
		BPFFS:        "/sys/fs/bpf",
		StateDir:     "/var/lib/lbd",
		RunDir:       "/run/lbd",
		ServiceCIDRs: []netip.Prefix{prefix("10.43.0.0/16")},
		ClusterCIDRs: []netip.Prefix{prefix("10.42.0.0/16")},
		LogLevel:     slog.LevelInfo,
	}
	if d := cmp.Diff(want, Default(), comparePrefix); d != "" {
		t.Error(d)
	}
	got, diags := Parse("empty.hcl", nil)
	if diags.HasErrors() || !got.Equal(want) {
		t.Errorf("empty file: %v %v", got, diags)
	}
}

func TestAttrsHaveDocsAndConformingDefaults(t *testing.T) {
	for _, a := range Attrs() {
		if a.Doc == "" || !a.Default.Type().Equals(a.Type) {
			t.Errorf("%s: doc %q, default %#v for %#v", a.Name, a.Doc, a.Default, a.Type)
		}
	}
}

func TestRoundTrip(t *testing.T) {
	c := Default()
	c.BPFFS = "/run/a ${b} %{c} \"d\""
	c.Cgroup = "/sys/fs/cgroup/unified"
	c.StateDir = "/s"
	c.RunDir = "/r"
	c.NodeName = "node-1.example"
	c.Kubeconfig = "/etc/kube"
	c.Manifests = "/etc/lbd/manifests"
	c.ServiceCIDRs = []netip.Prefix{prefix("10.96.0.0/16"), prefix("fd00:96::/112")}
	c.ClusterCIDRs = nil
	c.LogLevel = slog.LevelDebug
	want := `# Settings of lbd. What is not here has its default; see ` + "`lbd run --help`" + `.
bpffs         = "/run/a $${b} %%{c} \"d\""
cgroup        = "/sys/fs/cgroup/unified"
state_dir     = "/s"
run_dir       = "/r"
node_name     = "node-1.example"
kubeconfig    = "/etc/kube"
manifests     = "/etc/lbd/manifests"
service_cidrs = ["10.96.0.0/16", "fd00:96::/112"]
cluster_cidrs = []
log_level     = "debug"
`
	if d := cmp.Diff(want, string(c.HCL())); d != "" {
		t.Error(d)
	}
	got, diags := Parse("x.hcl", c.HCL())
	if diags.HasErrors() {
		t.Fatal(diags)
	}
	if d := cmp.Diff(c, got, comparePrefix); d != "" {
		t.Error(d)
	}
	if d := cmp.Diff(header, string(Default().HCL())); d != "" {
		t.Errorf("defaults are written: %s", d)
	}
}

func TestParseMistakes(t *testing.T) {
	for _, tc := range []struct{ name, text, want string }{
		{"unknown", "service_cidr = []\n", `x.hcl:1,1-13: Unsupported argument; An argument named "service_cidr" is not expected here. Did you mean "service_cidrs"?`},
		{"block", "manifests {\n}\n", `x.hcl:1,1-10: Unsupported block type; Blocks of type "manifests" are not expected here. Did you mean to define argument "manifests"? If so, use the equals sign to assign it a value.`},
		{"twice", "bpffs = \"/a\"\nbpffs = \"/b\"\n", `x.hcl:2,1-6: Attribute redefined; The argument "bpffs" was already set at x.hcl:1,1-6. Each argument may be set only once.`},
		{"type", "service_cidrs = \"10.43.0.0/16\"\n", `x.hcl:1,17-31: Invalid value of service_cidrs; List of string required, but have string (a list of strings is wanted).`},
		{"type of string", "bpffs = [1]\n", `x.hcl:1,9-12: Invalid value of bpffs; String required, but have tuple (a string is wanted).`},
		{"variable", "bpffs = var.x\n", `x.hcl:1,9-12: Variables not allowed; Variables may not be used here.`},
		{"relative", "\n  run_dir = \"run\"\n", `x.hcl:2,13-18: Invalid value of run_dir; "run" is no absolute path (it must begin with /).`},
		{"newline", `manifests = "/a\nb"`, `x.hcl:1,13-20: Invalid value of manifests; "/a\nb" holds a character that no path should have.`},
		{"empty path", `bpffs = ""`, `x.hcl:1,9-11: Invalid value of bpffs; "" is no absolute path (it must begin with /).`},
		{"node", `node_name = "Node_1"`, `x.hcl:1,13-21: Invalid value of node_name; "Node_1" is no name of a Node (lower-case letters, digits, '-' and '.', at most 253).`},
		{"level", `log_level = "loud"`, `x.hcl:1,13-19: Invalid value of log_level; "loud" is no level (one of debug, info, warn, error).`},
		{"no cidr", `service_cidrs = []`, `x.hcl:1,17-19: Invalid value of service_cidrs; The list is empty (name at least one network).`},
		{"bad cidrs", `service_cidrs = ["10.43.0.1/16", "x", "10.0.0.1", "::ffff:10.0.0.0/112", null]`, `x.hcl:1,17-79: Invalid value of service_cidrs; "10.43.0.1/16" has bits set behind its length (did you mean 10.43.0.0/16?)
"x" is no network (like 10.43.0.0/16 or fd00:43::/112)
"10.0.0.1" is an address, not a network (add a length, such as 10.0.0.1/32)
"::ffff:10.0.0.0/112" is an IPv4 network in IPv6 form (write it as IPv4)
null is no network.`},
		{"overlap", `cluster_cidrs = ["10.0.0.0/8"]`, `x.hcl:1,17-31: Invalid value of cluster_cidrs; 10.0.0.0/8 overlaps 10.43.0.0/16 of service_cidrs (a ClusterIP must never be a pod's address).`},
		{"all at once", "log_level = 1\nfoo = 1\nbpffs = \"x\"\n", `x.hcl:1,13-14: Invalid value of log_level; "1" is no level (one of debug, info, warn, error).
x.hcl:2,1-4: Unsupported argument; An argument named "foo" is not expected here.
x.hcl:3,9-12: Invalid value of bpffs; "x" is no absolute path (it must begin with /).`},
		{"syntax", "bpffs = \n", `x.hcl:1,9-2,1: Invalid expression; Expected the start of an expression, but found an invalid expression token.`},
	} {
		t.Run(tc.name, func(t *testing.T) {
			_, diags := Parse("x.hcl", []byte(tc.text))
			var lines []string
			for _, d := range diags {
				lines = append(lines, fmt.Sprintf("%s: %s; %s", d.Subject, d.Summary, d.Detail))
			}
			if d := cmp.Diff(tc.want, strings.Join(lines, "\n")); d != "" {
				t.Error(d)
			}
		})
	}
}

func TestFromValues(t *testing.T) {
	c, errs := FromValues(map[string]cty.Value{
		"bpffs":         cty.UnknownVal(cty.String),
		"run_dir":       cty.NullVal(cty.String),
		"service_cidrs": cty.TupleVal([]cty.Value{cty.StringVal("10.1.0.0/16"), cty.UnknownVal(cty.String)}),
		"state_dir":     cty.StringVal("/s//t/").Mark("secret"),
		"node_name":     cty.StringVal("UPPER"),
		"typo":          cty.True,
	})
	want := Default()
	want.StateDir = "/s/t"
	if d := cmp.Diff(want, c, comparePrefix); d != "" {
		t.Error(d)
	}
	if len(errs) != 2 || errs["node_name"] == nil || errs["typo"] == nil {
		t.Errorf("errors: %v", errs)
	}
}

func FuzzConfig(f *testing.F) {
	f.Add([]byte(`bpffs = "/a"`))
	f.Add([]byte("service_cidrs = [\"10.0.0.0/24\", \"fd00::/112\"]\nlog_level=\"warn\" # x"))
	f.Add([]byte(`manifests = "/$${x}é\u0301"`))
	f.Add([]byte("node_name = <<EOT\na\nEOT\n"))
	f.Fuzz(func(t *testing.T, text []byte) {
		c, diags := Parse("f.hcl", text)
		if diags.HasErrors() {
			return
		}
		again, diags := Parse("g.hcl", c.HCL())
		if diags.HasErrors() {
			t.Fatalf("own text does not parse: %v\n%s", diags, c.HCL())
		}
		if d := cmp.Diff(c, again, comparePrefix); d != "" {
			t.Fatal(d)
		}
	})
}
