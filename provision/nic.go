package provision

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"strconv"
	"strings"

	"github.com/hashicorp/hcl/v2"
	"github.com/zclconf/go-cty/cty"

	"github.com/nodeprov/nodeprov/provision/host"
	"github.com/nodeprov/nodeprov/provision/profile"
)

// minMTU is the smallest MTU in bytes that IPv4 works with (RFC 791).
const minMTU = 68

// nicKind sets network devices.
func nicKind() Kind {
	return Kind{
		Name: "nic",
		Schema: &profile.Schema{
			Type:  "nic",
			Label: "label",
			Doc: "Settings of the network devices that have this name, or of all that have this driver. The label is for you: it names the " +
				"block and matches nothing.",
			Attrs: []profile.Attr{
				{Name: "name", Type: cty.String, Doc: "Name of the device, as in eth0. Either this or driver is needed."},
				{Name: "driver", Type: cty.String, Doc: "Driver of the devices, as in virtio_net; nodeprov facts shows it."},
				{Name: "mtu", Type: cty.Number, Required: true, Doc: "MTU in bytes, 68 to 65535, and within what the device takes. Setting it interrupts the link on most drivers."},
				{Name: "on_missing", Type: cty.String, Default: cty.StringVal("fail"), Doc: `What to do when no device matches: "fail" refuses the profile, "skip" goes on with a warning.`},
				{Name: "on_error", Type: cty.String, Default: cty.StringVal("warn"), Doc: `What a failure to set it does: "warn" goes on and the profile counts as partly applied, "fail" stops.`},
			},
		},
		Wanted:   nicWanted,
		Open:     openNIC,
		Scope:    NetNS,
		Lifetime: Runtime,
		Effect:   "now",
	}
}

// nicMTU is the MTU of one device. Its value is the number of bytes in decimal.
type nicMTU struct {
	nic string
}

func openNIC(name string) (Setting, error) {
	nic, ok := strings.CutSuffix(name, "/mtu")
	if err := checkNICName(nic); !ok || err != nil {
		return nil, fmt.Errorf("nic: %q is no setting of a device (known is NAME/mtu)", name)
	}
	return nicMTU{nic}, nil
}

func (s nicMTU) Key() string { return "nic/" + s.nic + "/mtu" }

func (s nicMTU) Read(_ context.Context, h *host.Host) (Value, error) {
	l, err := h.Link(s.nic)
	if errors.Is(err, fs.ErrNotExist) {
		return Value{Absent: true}, nil
	}
	if err != nil {
		return Value{}, err
	}
	return Value{Text: strconv.Itoa(l.MTU)}, nil
}

func (s nicMTU) Write(_ context.Context, h *host.Host, v Value) error {
	if v.Absent {
		return fmt.Errorf("link %s: its MTU cannot be absent (nodeprov removes no device)", s.nic)
	}
	mtu, err := strconv.Atoi(v.Text)
	if err != nil {
		return fmt.Errorf("link %s: MTU %q: %w", s.nic, v.Text, err)
	}
	return h.SetMTU(s.nic, mtu)
}

func (s nicMTU) unsupported(*host.Host) error {
	return fmt.Errorf("link %s: the device has vanished (plug it in, or say on_missing = \"skip\")", s.nic)
}

func nicWanted(b profile.Block, t Target) ([]Wanted, hcl.Diagnostics) {
	onMissing, diags := oneOf(b, "on_missing", "fail", "skip")
	onError, more := oneOf(b, "on_error", string(Warn), string(Fail))
	diags = append(diags, more...)

	mtu, known, more := nicBytes(b)
	diags = append(diags, more...)
	match, what, more := nicMatch(b)
	diags = append(diags, more...)
	if diags.HasErrors() || match == nil || t.Facts == nil {
		return nil, diags
	}

	var nics []host.NICFacts
	for _, n := range t.Facts.NICs {
		if match(n) {
			nics = append(nics, n)
		}
	}
	if len(nics) == 0 {
		d := wrongAt(b.Range, "No such network device", "No device has %s. %s", what.text, nicList(t.Facts))
		if what.text == `the name "lo"` {
			d = wrongAt(b.Range, "Loopback is left alone", "nodeprov sets no loopback device. %s", nicList(t.Facts))
		}
		d.Subject = what.rng.Ptr()
		if onMissing == "skip" {
			d.Severity = hcl.DiagWarning
			d.Detail += ` The block is skipped, as its on_missing says.`
		} else {
			d.Detail += ` Correct it, or say on_missing = "skip" to go on without.`
		}
		return nil, append(diags, d)
	}
	if !known {
		return nil, diags
	}

	var ws []Wanted
	for _, n := range nics {
		if mtu < n.MinMTU || mtu > n.MaxMTU {
			diags = append(diags, wrongAt(b.Attrs["mtu"].Range, "MTU out of the device's range",
				"%s takes an MTU of %d to %d, not %d.", nicText(n), n.MinMTU, n.MaxMTU, mtu))
			continue
		}
		s := nicMTU{n.Name}
		want := Value{Text: strconv.Itoa(mtu)}
		ws = append(ws, Wanted{
			Setting:     s,
			Want:        func(Value) (Value, error) { return want, nil },
			Range:       b.Attrs["mtu"].Range,
			OnError:     Class(onError),
			Unsupported: s.unsupported,
		})
	}
	return ws, diags
}

// nicBytes reads the mtu; known is false where it is unknown, wrong or left out.
func nicBytes(b profile.Block) (mtu int, known bool, diags hcl.Diagnostics) {
	v, ok := given(b, "mtu")
	switch {
	case !ok:
		return 0, false, hcl.Diagnostics{wrongAt(b.Range, "Missing mtu", "A nic block needs mtu, the number of bytes, as in mtu = 9000.")}
	case v.ContainsMarked():
		return 0, false, hcl.Diagnostics{sensitiveAt(v, "An MTU", "everybody can read it from the device, and plan and journal hold it")}
	case !v.IsKnown():
		return 0, false, nil
	case v.Type() != cty.Number:
		return 0, false, hcl.Diagnostics{wrongAt(v.Range, "Invalid mtu", "A number of bytes is needed, not a value of type %s.", v.Type().FriendlyName())}
	}
	n, acc := v.AsBigFloat().Int64()
	if acc != 0 || n < minMTU || n > host.MaxMTU {
		return 0, false, hcl.Diagnostics{wrongAt(v.Range, "Invalid mtu", "An MTU is a whole number of bytes from %d to %d, and %s is not.", minMTU, host.MaxMTU, v.AsBigFloat().Text('g', 12))}
	}
	return int(n), true, nil
}

// criterion is what a nic block matches by, in words, and its place.
type criterion struct {
	text string
	rng  hcl.Range
}

// nicMatch returns the block's predicate; it is nil where that is unknown.
func nicMatch(b profile.Block) (func(host.NICFacts) bool, criterion, hcl.Diagnostics) {
	name, byName := given(b, "name")
	driver, byDriver := given(b, "driver")
	switch {
	case byName && byDriver:
		return nil, criterion{}, hcl.Diagnostics{wrongAt(driver.Range, "Both name and driver",
			"A nic block matches by name or by driver, and this one has both. Remove one of them.")}
	case !byName && !byDriver:
		return nil, criterion{}, hcl.Diagnostics{wrongAt(b.Range, "Neither name nor driver",
			`A nic block needs what it matches by: name = "eth0", or driver = "virtio_net".`)}
	}
	v, attr := name, "name"
	if byDriver {
		v, attr = driver, "driver"
	}
	if v.ContainsMarked() {
		return nil, criterion{}, hcl.Diagnostics{sensitiveAt(v, "What a nic block matches by", "keys of settings are made of it, and plan and journal hold them")}
	}
	if !v.IsKnown() {
		return nil, criterion{}, nil
	}
	if v.Type() != cty.String {
		return nil, criterion{}, hcl.Diagnostics{wrongAt(v.Range, "Invalid "+attr, "A string is needed, not a value of type %s.", v.Type().FriendlyName())}
	}
	text := v.AsString()
	if byDriver {
		if text == "" {
			return nil, criterion{}, hcl.Diagnostics{wrongAt(v.Range, "Invalid driver", "The driver is empty. nodeprov facts shows the drivers of this machine's devices.")}
		}
		return func(n host.NICFacts) bool { return n.Driver == text }, criterion{fmt.Sprintf("the driver %q", text), v.Range}, nil
	}
	if err := checkNICName(text); err != nil {
		return nil, criterion{}, hcl.Diagnostics{wrongAt(v.Range, "Invalid name of a device", "%q %v.", text, err)}
	}
	return func(n host.NICFacts) bool { return n.Name == text }, criterion{fmt.Sprintf("the name %q", text), v.Range}, nil
}

// checkNICName applies the kernel's rule (dev_valid_name).
func checkNICName(name string) error {
	switch {
	case name == "":
		return errors.New("is empty")
	case len(name) > 15:
		return errors.New("is longer than 15 bytes, which no device's name is")
	case name == "." || name == ".." || strings.ContainsAny(name, "/:\x00 \t\n\v\f\r"):
		return errors.New("is no name that a device can have")
	}
	return nil
}

func nicText(n host.NICFacts) string {
	if n.Driver == "" {
		return n.Name
	}
	return n.Name + " (" + n.Driver + ")"
}

// nicList is a sentence that names the devices that are there.
func nicList(f *host.Facts) string {
	if len(f.NICs) == 0 {
		return "This machine has no network device but loopback."
	}
	names := make([]string, len(f.NICs))
	for i, n := range f.NICs {
		names[i] = nicText(n)
	}
	return "There are: " + strings.Join(names, ", ") + "."
}
