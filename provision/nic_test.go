package provision

import (
	"errors"
	"fmt"
	"testing"

	"github.com/vishvananda/netlink"

	"github.com/nodeprov/nodeprov/provision/host"
)

func TestNICWanted(t *testing.T) {
	facts := &host.Facts{NICs: []host.NICFacts{
		{Name: "eth0", Driver: "virtio_net", MTU: 1500, MinMTU: 68, MaxMTU: 9000},
		{Name: "eth1", Driver: "virtio_net", MTU: 1500, MinMTU: 68, MaxMTU: 65535},
		{Name: "tun0", MTU: 1500, MaxMTU: 65535},
	}}
	for _, tc := range []struct {
		name, text string
		facts      *host.Facts
		want       string
	}{
		{"by name", `nic "a" {
  name = "eth0"
  mtu  = 9000
}`, facts, "nic/eth0/mtu = 9000"},
		{"by driver", `nic "a" {
  driver = "virtio_net"
  mtu    = host.nics[0].max_mtu
}`, facts, "nic/eth0/mtu = 9000\nnic/eth1/mtu = 9000"},
		{"host unknown", `nic "a" {
  name = "eth7"
  mtu  = 9000
}
nic "b" {
  driver = host.nics[0].driver
  mtu    = host.nics[0].max_mtu
}
nic "c" {
  driver = host.nics[0].driver
  mtu    = 1
}`, nil, `11,12: error: Invalid mtu: An MTU is a whole number of bytes from 68 to 65535, and 1 is not.`},
		{"missing", `nic "a" {
  name = "eth7"
  mtu  = 9000
}
nic "b" {
  driver     = "ixgbe"
  mtu        = 9000
  on_missing = "skip"
}`, facts, `
2,10: error: No such network device: No device has the name "eth7". There are: eth0 (virtio_net), eth1 (virtio_net), tun0. Correct it, or say on_missing = "skip" to go on without.
6,16: warning: No such network device: No device has the driver "ixgbe". There are: eth0 (virtio_net), eth1 (virtio_net), tun0. The block is skipped, as its on_missing says.`},
		{"no device at all", `nic "a" {
  name = "eth0"
  mtu  = 9000
}`, &host.Facts{}, `2,10: error: No such network device: No device has the name "eth0". This machine has no network device but loopback. Correct it, or say on_missing = "skip" to go on without.`},
		{"matching", `nic "a" {
  name   = "eth0"
  driver = "virtio_net"
  mtu    = 9000
}
nic "b" {
  mtu = 9000
}
nic "c" {
  name = "et/h0"
  mtu  = 9000
}
nic "d" {
  name = "a-name-of-16-byt"
  mtu  = 9000
}
nic "e" {
  driver = ""
  mtu    = 9000
}
nic "f" {
  name       = "eth0"
  mtu        = 9000
  on_missing = "ignore"
  on_error   = "maybe"
}
nic "g" {
  name   = null
  driver = "virtio_net"
  mtu    = 1500
}`, facts, `
nic/eth0/mtu = 1500
nic/eth1/mtu = 1500
3,12: error: Both name and driver: A nic block matches by name or by driver, and this one has both. Remove one of them.
6,1: error: Neither name nor driver: A nic block needs what it matches by: name = "eth0", or driver = "virtio_net".
10,10: error: Invalid name of a device: "et/h0" is no name that a device can have.
14,10: error: Invalid name of a device: "a-name-of-16-byt" is longer than 15 bytes, which no device's name is.
18,12: error: Invalid driver: The driver is empty. nodeprov facts shows the drivers of this machine's devices.
24,16: error: Invalid value of on_missing: Write "fail" or "skip".
25,16: error: Invalid value of on_error: Write "warn" or "fail".`},
		{"loopback", `nic "a" {
  name = "lo"
  mtu  = 1500
}`, &host.Facts{}, `2,10: error: Loopback is left alone: nodeprov sets no loopback device. This machine has no network device but loopback. Correct it, or say on_missing = "skip" to go on without.`},
		{"mtu", `nic "a" {
  driver = "virtio_net"
  mtu    = 9001
}
nic "b" {
  name = "tun0"
  mtu  = 65536
}
nic "c" {
  name = "tun0"
  mtu  = 1500.5
}
nic "d" {
  name = "tun0"
  mtu  = 67
}`, facts, `
nic/eth1/mtu = 9001
3,12: error: MTU out of the device's range: eth0 (virtio_net) takes an MTU of 68 to 9000, not 9001.
7,10: error: Invalid mtu: An MTU is a whole number of bytes from 68 to 65535, and 65536 is not.
11,10: error: Invalid mtu: An MTU is a whole number of bytes from 68 to 65535, and 1500.5 is not.
15,10: error: Invalid mtu: An MTU is a whole number of bytes from 68 to 65535, and 67 is not.`},
		{"two blocks", `nic "a" {
  name = "eth1"
  mtu  = 9000
}
nic "b" {
  driver = "virtio_net"
  mtu    = 1500
}`, facts, `
nic/eth1/mtu = 9000
nic/eth0/mtu = 1500
7,12: error: Setting asked for twice: nic/eth1/mtu is already set at p.hcl:6:10. Remove one of the two.`},
		{"secret", `variable "m" {
  type      = number
  default   = 9000
  sensitive = true
}
nic "a" {
  name = "eth0"
  mtu  = var.m
}`, facts, `8,10: error: Sensitive value: An MTU cannot be set from a sensitive value: everybody can read it from the device, and plan and journal hold it. Use a value that is not secret.`},
	} {
		t.Run(tc.name, func(t *testing.T) { sameText(t, tc.want, wantedText(t, tc.text, tc.facts)) })
	}
}

func TestNICOnError(t *testing.T) {
	f := &host.Facts{NICs: []host.NICFacts{{Name: "eth0", MaxMTU: 65535}}}
	for text, want := range map[string]Class{"": Warn, `on_error = "fail"`: Fail, `on_error = "warn"`: Warn} {
		p := evaluate(t, "nic \"a\" {\n  name = \"eth0\"\n  mtu = 1500\n"+text+"\n}", f.Value())
		ws, diags := (&Engine{Kinds: Kinds()}).Desired(p, f, PhaseAll)
		if diags.HasErrors() || len(ws) != 1 || ws[0].OnError != want {
			t.Errorf("%q: %v %v", text, ws, diags)
		}
	}
}

// On a real device: apply, apply again, roll back; a device that vanishes.
func TestNICKernel(t *testing.T) {
	h, err := host.New(host.Options{})
	if err != nil {
		t.Fatal(err)
	}
	ownNetNS(t, func() error {
		attrs := netlink.NewLinkAttrs()
		attrs.Name, attrs.MTU = "np0", 1400
		if err := netlink.LinkAdd(&netlink.Veth{LinkAttrs: attrs, PeerName: "np1"}); err != nil {
			return err
		}
		f, err := h.Facts(t.Context())
		if err != nil {
			return err
		}
		p := evaluate(t, "nic \"a\" {\n  driver = \"veth\"\n  mtu = 9000\n}", f.Value())
		e := &Engine{Host: h, Kinds: Kinds(), State: t.TempDir()}
		ws, diags := e.Desired(p, &f, PhaseAll)
		if diags.HasErrors() || len(ws) != 2 {
			return fmt.Errorf("%v %w", ws, diags)
		}
		mtus := func() (s string) {
			for _, n := range []string{"np0", "np1"} {
				l, err := h.Link(n)
				if err != nil {
					t.Error(err)
				}
				s += fmt.Sprintf("%s %d ", n, l.MTU)
			}
			return s
		}
		before := mtus()
		r := mustApply(t, e, ws)
		if got := mtus(); got != "np0 9000 np1 9000 " || len(r.Applied) != 2 {
			return fmt.Errorf("after apply: %s %+v", got, r)
		}
		if r := mustApply(t, e, ws); len(r.Applied) != 0 {
			return fmt.Errorf("second apply: %+v", r.Applied)
		}
		mustRollback(t, e, 0)
		if got := mtus(); got != before {
			return fmt.Errorf("after rollback: %s, want %s", got, before)
		}

		if err := netlink.LinkDel(&netlink.Device{LinkAttrs: attrs}); err != nil {
			return err
		}
		plan, _, err := e.Plan(t.Context(), ws, PhaseAll)
		if err != nil {
			return err
		}
		for _, c := range plan.Changes {
			if c.Action != Unsupported {
				return fmt.Errorf("%s vanished: %s", c.Key, c.Action)
			}
		}
		if err := (nicMTU{"np0"}).Write(t.Context(), h, Value{Absent: true}); err == nil {
			return errors.New("a device was removed")
		}
		return nil
	})
}
