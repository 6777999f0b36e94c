package host_test

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/safchain/ethtool"
	"github.com/vishvananda/netlink"

	"github.com/nodeprov/nodeprov/provision/host"
)

// What is done to a device is heard of, each thing by its own event.
func TestLinkMonitor(t *testing.T) {
	h := live(t)
	inNetNS(t, func() error {
		m, err := h.MonitorLinks()
		if err != nil {
			return err
		}
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		events, done := make(chan string, 1000), make(chan error, 1)
		go func() { done <- m.Run(ctx, func(device string) { events <- device }) }()
		// heard waits for an event of the device, then lets the others of the same
		// change pass.
		heard := func(device string) error {
			deadline := time.After(5 * time.Second)
			for got := ""; got != device; {
				select {
				case got = <-events:
				case <-deadline:
					return fmt.Errorf("nothing was heard of %s", device)
				}
			}
			for {
				select {
				case <-events:
				case <-time.After(50 * time.Millisecond): // only makes the next step sharper
					return nil
				}
			}
		}
		attrs := netlink.NewLinkAttrs()
		attrs.Name, attrs.NumTxQueues, attrs.NumRxQueues = "np0", 4, 4
		eth, err := ethtool.NewEthtool()
		if err != nil {
			return err
		}
		defer eth.Close()
		for _, step := range []struct {
			what string
			do   func() error
		}{
			{"appear", func() error { return netlink.LinkAdd(&netlink.Veth{LinkAttrs: attrs, PeerName: "np1"}) }},
			{"up", func() error { return netlink.LinkSetUp(&netlink.Device{LinkAttrs: attrs}) }},
			{"mtu", func() error { return h.SetMTU("np0", 1400) }},
			{"down", func() error { return netlink.LinkSetDown(&netlink.Device{LinkAttrs: attrs}) }},
			{"feature", func() error { return eth.Change("np0", map[string]bool{"tx-checksum-ip-generic": false}) }},
			{"channels", func() error {
				c, err := eth.GetChannels("np0")
				if err == nil {
					c.RxCount, c.TxCount = 2, 2
					_, err = eth.SetChannels("np0", c)
				}
				return err
			}},
		} {
			if err := errors.Join(step.do(), heard("np0")); err != nil {
				return fmt.Errorf("%s: %w", step.what, err)
			}
		}
		// A device that went is none to be looked after.
		if err := netlink.LinkDel(&netlink.Device{LinkAttrs: attrs}); err != nil {
			return err
		}
		if err := netlink.LinkAdd(&netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: "np2"}, PeerName: "np3"}); err != nil {
			return err
		}
		if err := heard("np3"); err != nil {
			return err
		}
		cancel()
		return <-done
	})
}

func TestLinkMonitorOffline(t *testing.T) {
	h, _ := tree(t, nil)
	if _, err := h.MonitorLinks(); !errors.Is(err, host.ErrOffline) {
		t.Error(err)
	}
}
