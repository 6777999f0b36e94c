package main

import (
	"bytes"
	"context"
	"os"
	"os/exec"
	"regexp"
	"strconv"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
	"github.com/vishvananda/netlink"
)

// watch runs `nodeprov watch` until the script ends.
func watch(ts *testscript.TestScript, _ bool, _ []string) {
	c := exec.Command("nodeprov", "watch", "--state-dir", ts.Getenv("STATE"))
	c.Env = append(os.Environ(), "RUNTIME_DIRECTORY="+ts.Getenv("RUNTIME_DIRECTORY"), "GORACE=atexit_sleep_ms=0")
	var out bytes.Buffer
	c.Stdout, c.Stderr = &out, &out
	ts.Check(c.Start())
	ts.Defer(func() {
		ts.Check(c.Process.Signal(os.Interrupt))
		if err := c.Wait(); err != nil {
			ts.Fatalf("watch: %v\n%s", err, out.Bytes())
		}
		ts.Logf("watch:\n%s", out.Bytes())
	})
}

// within TIME FILE PATTERN waits for a file that matches.
func within(ts *testscript.TestScript, _ bool, args []string) {
	limit, err := time.ParseDuration(args[0])
	ts.Check(err)
	re := regexp.MustCompile(args[2])
	var b []byte
	for end := time.Now().Add(limit); time.Now().Before(end); time.Sleep(5 * time.Millisecond) {
		if b, _ = os.ReadFile(args[1]); re.Match(b) {
			return
		}
	}
	ts.Fatalf("%s does not match %q:\n%s", args[1], args[2], b)
}

// healed DEVICE MTU waits for the kernel's word that the device has the MTU, for a
// second.
func healed(ts *testscript.TestScript, _ bool, args []string) {
	begin := time.Now()
	if !hasMTU(ts, args[0], args[1]) {
		ts.Fatalf("%s has no MTU of %s after a second", args[0], args[1])
	}
	ts.Logf("%s healed after %s", args[0], time.Since(begin).Round(time.Millisecond))
}

// fight DEVICE FILE sets the device's MTU again and again, until the watch leaves it
// as it is.
func fight(ts *testscript.TestScript, _ bool, args []string) {
	for round := range 10 {
		l, err := netlink.LinkByName(args[0])
		ts.Check(err)
		ts.Check(netlink.LinkSetMTU(l, 1400+round))
		if !hasMTU(ts, args[0], "9000") {
			// It may have counted an attempt that we were faster than.
			if round < 2 || round > 5 {
				ts.Fatalf("the watch gave up after %d rounds", round)
			}
			return
		}
	}
	ts.Fatalf("the watch fights for ever")
}

// hasMTU waits for a second.
func hasMTU(ts *testscript.TestScript, device, mtu string) bool {
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	updates := make(chan netlink.LinkUpdate)
	ts.Check(netlink.LinkSubscribe(updates, ctx.Done()))
	for {
		if l, err := netlink.LinkByName(device); err == nil && strconv.Itoa(l.Attrs().MTU) == mtu {
			return true
		}
		select {
		case <-updates:
		case <-ctx.Done():
			return false
		}
	}
}
