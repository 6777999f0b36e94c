// Package config is the schema of lbd's settings: what /etc/lbd/lbd.hcl may hold
// and what each value means. nodeprov checks the `lbd` block of a profile with it
// and writes the file; lbd reads the file with it. So both agree by construction.
//
// The package is a leaf: it reads nothing of the machine.
package config

import (
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net/netip"
	"path"
	"regexp"
	"slices"
	"strings"
	"unicode"

	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/hclsyntax"
	"github.com/hashicorp/hcl/v2/hclwrite"
	"github.com/zclconf/go-cty/cty"
	"github.com/zclconf/go-cty/cty/convert"
)

// K3sKubeconfig is the identity that K3s writes on every node, with kube-proxy or
// without: it may read Services, EndpointSlices and Nodes, and nothing else. It
// is waited for when Config.Kubeconfig is empty.
const K3sKubeconfig = "/var/lib/rancher/k3s/agent/kubeproxy.kubeconfig"

// File is where lbd looks for its settings when it is told no other place.
const File = "/etc/lbd/lbd.hcl"

// Config is every setting of the daemon. The zero Config is not valid; start from
// Default.
type Config struct {
	// BPFFS is the mount point of a bpffs; the pins go to BPFFS/lbd.
	BPFFS string
	// Cgroup is the cgroup2 directory whose processes are served; empty means
	// the one found in the mounts.
	Cgroup string
	// StateDir holds what outlives a reboot.
	StateDir string
	// RunDir holds the control socket, lbd.sock.
	RunDir string
	// NodeName is this machine's Node; empty means the host name.
	NodeName string
	// Kubeconfig says how to reach the API; empty means K3sKubeconfig, as soon
	// as it is there.
	Kubeconfig string
	// Manifests is a directory of YAML files to take services from instead of
	// the API; empty means the API.
	Manifests string
	// ServiceCIDRs are the networks of ClusterIPs, at least one.
	ServiceCIDRs []netip.Prefix
	// ClusterCIDRs are the networks of pods.
	ClusterCIDRs []netip.Prefix
	// LogLevel is the least level that is logged.
	LogLevel slog.Level
}

// Attr describes one attribute of the file and of a profile's `lbd` block.
type Attr struct {
	Name string
	// Type is what a value is converted to.
	Type cty.Type
	// Doc is one sentence or two for the reference.
	Doc string
	// Default is the value of an attribute that is left out.
	Default cty.Value
}

// Attrs returns all attributes, in the order of the reference.
func Attrs() []Attr {
	fields := table()
	attrs := make([]Attr, len(fields))
	for i, f := range fields {
		attrs[i] = f.Attr
	}
	return attrs
}

// Default returns the settings of an empty file.
func Default() Config {
	var c Config
	for _, f := range table() {
		if err := f.set(&c, f.Default); err != nil {
			panic(fmt.Sprintf("default of %s: %v", f.Name, err))
		}
	}
	return c
}

// FromValues returns Default changed by values, and what is wrong with them by
// attribute. An attribute with an error, a null value, or a value that is not
// wholly known keeps its default.
func FromValues(values map[string]cty.Value) (Config, map[string]error) {
	c := Default()
	fields := table()
	errs := map[string]error{}
	for name := range values {
		if !slices.ContainsFunc(fields, func(f field) bool { return f.Name == name }) {
			names := make([]string, len(fields))
			for i, f := range fields {
				names[i] = f.Name
			}
			errs[name] = fmt.Errorf("no such attribute (known are %s)", strings.Join(names, ", "))
		}
	}
	for _, f := range fields {
		v, ok := values[f.Name]
		if !ok {
			continue
		}
		v, _ = v.UnmarkDeep()
		if !v.IsWhollyKnown() || v.IsNull() {
			continue
		}
		v, err := convert.Convert(v, f.Type)
		if err != nil {
			errs[f.Name] = fmt.Errorf("%w (%s is wanted)", err, describe(f.Type))
			continue
		}
		if err := f.set(&c, v); err != nil {
			errs[f.Name] = err
		}
	}
	if len(errs) == 0 {
		for _, s := range c.ServiceCIDRs {
			for _, p := range c.ClusterCIDRs {
				if s.Overlaps(p) {
					errs["cluster_cidrs"] = fmt.Errorf("%s overlaps %s of service_cidrs (a ClusterIP must never be a pod's address)", p, s)
				}
			}
		}
	}
	return c, errs
}

// Parse reads the text of a file. Mistakes are diagnostics on their range, all of
// them at once; the Config is valid only without errors.
func Parse(filename string, text []byte) (Config, hcl.Diagnostics) {
	file, diags := hclsyntax.ParseConfig(text, filename, hcl.InitialPos)
	if diags.HasErrors() {
		return Default(), diags
	}
	schema := &hcl.BodySchema{}
	for _, f := range table() {
		schema.Attributes = append(schema.Attributes, hcl.AttributeSchema{Name: f.Name})
	}
	content, more := file.Body.Content(schema)
	diags = append(diags, more...)

	values := map[string]cty.Value{}
	for name, attr := range content.Attributes {
		// Without an evaluation context: a settings file is data, not a program.
		v, more := attr.Expr.Value(nil)
		diags = append(diags, more...)
		if !more.HasErrors() {
			values[name] = v
		}
	}
	c, errs := FromValues(values)
	for name, err := range errs {
		diags = append(diags, &hcl.Diagnostic{
			Severity: hcl.DiagError,
			Summary:  "Invalid value of " + name,
			Detail:   sentence(err.Error()),
			Subject:  content.Attributes[name].Expr.Range().Ptr(),
			Context:  content.Attributes[name].Range.Ptr(),
		})
	}
	// Attributes are a map; people and tests want the order of the file.
	slices.SortStableFunc(diags, func(a, b *hcl.Diagnostic) int {
		if a.Subject == nil || b.Subject == nil {
			return 0
		}
		return a.Subject.Start.Byte - b.Subject.Start.Byte
	})
	return c, diags
}

// Values returns every attribute's value: FromValues of it is c.
func (c Config) Values() map[string]cty.Value {
	values := map[string]cty.Value{}
	for _, f := range table() {
		values[f.Name] = f.get(c)
	}
	return values
}

// header is the first line of HCL.
const header = "# Settings of lbd. What is not here has its default; see `lbd run --help`.\n"

// HCL returns the text of a file that Parse makes c of. Equal settings give
// equal text.
func (c Config) HCL() []byte {
	file := hclwrite.NewEmptyFile()
	body := file.Body()
	for _, f := range table() {
		if v := f.get(c); !v.RawEquals(f.Default) {
			body.SetAttributeValue(f.Name, v)
		}
	}
	return append([]byte(header), hclwrite.Format(file.Bytes())...)
}

// field is an attribute and its place in Config.
type field struct {
	Attr
	set func(*Config, cty.Value) error
	get func(Config) cty.Value
}

func table() []field {
	return []field{
		text("bpffs", "/sys/fs/bpf", "Mount point of a bpffs; the pins go to its directory lbd.",
			func(c *Config) *string { return &c.BPFFS }, absolute),
		text("cgroup", "", "Directory in a cgroup2 hierarchy whose processes are served. Empty: the whole hierarchy, found in the mounts.",
			func(c *Config) *string { return &c.Cgroup }, optional(absolute)),
		text("state_dir", "/var/lib/lbd", "Directory for what must outlive a reboot.",
			func(c *Config) *string { return &c.StateDir }, absolute),
		text("run_dir", "/run/lbd", "Directory of the control socket, lbd.sock.",
			func(c *Config) *string { return &c.RunDir }, absolute),
		text("node_name", "", "Name of this machine's Node. Empty: the host name.",
			func(c *Config) *string { return &c.NodeName }, optional(nodeName)),
		text("kubeconfig", "", "Kubeconfig for the API. Empty: "+K3sKubeconfig+", which K3s writes; lbd waits for it.",
			func(c *Config) *string { return &c.Kubeconfig }, optional(absolute)),
		text("manifests", "", "Directory of YAML or JSON files with Services and EndpointSlices, taken instead of the API and watched. Empty: the API.",
			func(c *Config) *string { return &c.Manifests }, optional(absolute)),
		prefixes("service_cidrs", []string{"10.43.0.0/16"}, "Networks of ClusterIPs, at least one. A ClusterIP outside of them is served and reported.",
			func(c *Config) *[]netip.Prefix { return &c.ServiceCIDRs }, 1),
		prefixes("cluster_cidrs", []string{"10.42.0.0/16"}, "Networks of pods; they must not overlap service_cidrs.",
			func(c *Config) *[]netip.Prefix { return &c.ClusterCIDRs }, 0),
		{
			Attr: Attr{Name: "log_level", Type: cty.String, Default: cty.StringVal("info"), Doc: "Least level that is logged: debug, info, warn or error."},
			set: func(c *Config, v cty.Value) error {
				for _, l := range []slog.Level{slog.LevelDebug, slog.LevelInfo, slog.LevelWarn, slog.LevelError} {
					if v.AsString() == levelName(l) {
						c.LogLevel = l
						return nil
					}
				}
				return fmt.Errorf("%q is no level (one of debug, info, warn, error)", v.AsString())
			},
			get: func(c Config) cty.Value { return cty.StringVal(levelName(c.LogLevel)) },
		},
	}
}

func text(name, def, doc string, at func(*Config) *string, check func(string) (string, error)) field {
	return field{
		Attr: Attr{Name: name, Type: cty.String, Default: cty.StringVal(def), Doc: doc},
		set: func(c *Config, v cty.Value) error {
			s, err := check(v.AsString())
			if err != nil {
				return err
			}
			*at(c) = s
			return nil
		},
		get: func(c Config) cty.Value { return cty.StringVal(*at(&c)) },
	}
}

func prefixes(name string, def []string, doc string, at func(*Config) *[]netip.Prefix, least int) field {
	list := func(texts []string) cty.Value {
		if len(texts) == 0 {
			return cty.ListValEmpty(cty.String)
		}
		vals := make([]cty.Value, len(texts))
		for i, s := range texts {
			vals[i] = cty.StringVal(s)
		}
		return cty.ListVal(vals)
	}
	return field{
		Attr: Attr{Name: name, Type: cty.List(cty.String), Default: list(def), Doc: doc},
		set: func(c *Config, v cty.Value) error {
			var ps []netip.Prefix
			var errs []error
			for _, e := range v.AsValueSlice() {
				if e.IsNull() {
					errs = append(errs, errors.New("null is no network"))
					continue
				}
				p, err := network(e.AsString())
				if err != nil {
					errs = append(errs, err)
					continue
				}
				ps = append(ps, p)
			}
			if err := errors.Join(errs...); err != nil {
				return err
			}
			if len(ps) < least {
				return errors.New("the list is empty (name at least one network)")
			}
			*at(c) = ps
			return nil
		},
		get: func(c Config) cty.Value {
			var texts []string
			for _, p := range *at(&c) {
				texts = append(texts, p.String())
			}
			return list(texts)
		},
	}
}

func optional(check func(string) (string, error)) func(string) (string, error) {
	return func(s string) (string, error) {
		if s == "" {
			return "", nil
		}
		return check(s)
	}
}

func absolute(s string) (string, error) {
	if !strings.HasPrefix(s, "/") {
		return "", fmt.Errorf("%q is no absolute path (it must begin with /)", s)
	}
	if strings.ContainsFunc(s, func(r rune) bool { return unicode.IsControl(r) || r == unicode.ReplacementChar }) {
		return "", fmt.Errorf("%q holds a character that no path should have", s)
	}
	return path.Clean(s), nil
}

// nodeName checks for what Kubernetes takes as the name of a Node: an RFC 1123
// subdomain.
func nodeName(s string) (string, error) {
	const label = `[a-z0-9]([-a-z0-9]*[a-z0-9])?`
	if len(s) > 253 || !regexp.MustCompile(`^`+label+`(\.`+label+`)*$`).MatchString(s) {
		return "", fmt.Errorf("%q is no name of a Node (lower-case letters, digits, '-' and '.', at most 253)", s)
	}
	return s, nil
}

func network(s string) (netip.Prefix, error) {
	p, err := netip.ParsePrefix(s)
	if err != nil {
		if a, err := netip.ParseAddr(s); err == nil {
			return p, fmt.Errorf("%q is an address, not a network (add a length, such as %s/%d)", s, a, a.BitLen())
		}
		return p, fmt.Errorf("%q is no network (like 10.43.0.0/16 or fd00:43::/112)", s)
	}
	if p.Addr().Is4In6() {
		return p, fmt.Errorf("%q is an IPv4 network in IPv6 form (write it as IPv4)", s)
	}
	if m := p.Masked(); m != p {
		return p, fmt.Errorf("%q has bits set behind its length (did you mean %s?)", s, m)
	}
	return p, nil
}

func levelName(l slog.Level) string { return strings.ToLower(l.String()) }

func describe(t cty.Type) string {
	if t.IsListType() {
		return "a list of strings"
	}
	return "a " + t.FriendlyName()
}

// sentence makes an error's text fit among HCL's own details.
func sentence(s string) string {
	r := []rune(s)
	r[0] = unicode.ToUpper(r[0])
	return string(r) + "."
}

// Equal tells whether both hold the same settings.
func (c Config) Equal(o Config) bool {
	return maps.EqualFunc(c.Values(), o.Values(), cty.Value.RawEquals)
}
