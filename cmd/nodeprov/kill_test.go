package main

import (
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/safchain/ethtool"
	"github.com/vishvananda/netlink"
)

// killed applies a profile of every kind that a network namespace has, kills it
// at a random moment, and rolls back: the kernel must have what it had, whatever
// the journal says. It runs inside TestInNetNS, where /sys shows the namespace.
func killed(t *testing.T) {
	const kills = 200
	dir := t.TempDir()
	state := filepath.Join(dir, "state")
	link := &netlink.Veth{
		LinkAttrs: netlink.LinkAttrs{Name: "kill0", MTU: 1500, NumTxQueues: 4, NumRxQueues: 4},
		PeerName:  "kill1", PeerNumTxQueues: 4, PeerNumRxQueues: 4,
	}
	if err := netlink.LinkAdd(link); err != nil {
		t.Fatal(err)
	}
	defer netlink.LinkDel(link)

	// Two profiles, so that a kill also meets an apply that restores keys.
	var p [2]string
	for i := range p {
		var b strings.Builder
		fmt.Fprintf(&b, "nodeprov {\n  schema = 1\n}\nsysctl = {\n  \"net.ipv4.ip_forward\" = 1\n  \"net.core.somaxconn\" = %d\n", 5000+i)
		for _, nic := range []string{"kill0", "kill1"}[:2-i] {
			for _, key := range []string{"rp_filter", "arp_announce", "log_martians", "send_redirects", "accept_redirects", "proxy_arp"} {
				fmt.Fprintf(&b, "  \"net.ipv4.conf.%s.%s\" = %d\n", nic, key, map[bool]int{true: 2, false: 1}[key[0] == 'r' || key == "arp_announce"])
			}
			fmt.Fprintf(&b, "  \"net.ipv6.conf.%s.accept_ra\" = %d\n", nic, 2*i)
		}
		b.WriteString("}\n")
		for j, nic := range []string{"kill0", "kill1"}[:2-i] {
			fmt.Fprintf(&b, "nic %q {\n  name = %q\n  mtu  = %d\n", nic, nic, 9000-100*j-i)
			fmt.Fprintf(&b, "  txqueuelen = %d\n  features = { \"tx-nocache-copy\" = true, \"rx-gro\" = %t }\n", 2000+i, i == 0)
			fmt.Fprintf(&b, "  xps = \"per-queue\"\n  rps = \"all\"\n  rfs = %d\n", 1024<<i)
			fmt.Fprintf(&b, "  qdisc \"pfifo\" {\n    options = { limit = %d }\n  }\n}\n", 3000+i)
		}
		p[i] = filepath.Join(dir, fmt.Sprintf("p%d.hcl", i))
		if err := os.WriteFile(p[i], []byte(b.String()), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	nodeprov := func(args ...string) *exec.Cmd {
		c := exec.CommandContext(t.Context(), "nodeprov", append(args, "--state-dir", state)...)
		c.Env = append(os.Environ(), "GORACE=atexit_sleep_ms=0")
		return c
	}
	must := func(args ...string) {
		t.Helper()
		if out, err := nodeprov(args...).CombinedOutput(); err != nil {
			t.Fatalf("nodeprov %v: %v\n%s", args, err, out)
		}
	}

	before := kernel(t)
	start := time.Now()
	must("apply", p[0])
	took := time.Since(start)
	if cmp.Equal(before, kernel(t)) {
		t.Fatal("the profile changes nothing")
	}
	must("apply", p[1])
	must("rollback", "--to", "0")
	if d := cmp.Diff(before, kernel(t)); d != "" {
		t.Fatalf("after a rollback of what was not killed:\n%s", d)
	}

	// Most of the time goes into starting a process and into reading. The moment
	// follows the machine's speed, until enough kills have met an apply at its
	// writes.
	i, midway := 0, 0
	for ; i < kills || midway < kills/5; i++ {
		if i == 20*kills {
			t.Fatalf("%d kills within %s, and %d have met an apply at its writes", i, took, midway)
		}
		if i%2 == 1 {
			must("apply", p[0])
		}
		held := kernel(t)
		c := nodeprov("apply", p[1])
		if err := c.Start(); err != nil {
			t.Fatal(err)
		}
		delay := took/2 + rand.N(took)
		time.Sleep(delay) // the random moment, no synchronisation
		c.Process.Kill()
		switch finished := c.Wait() == nil; {
		case finished:
			took = took * 19 / 20
		case cmp.Equal(held, kernel(t)):
			took = took * 21 / 20
		default:
			midway++
		}
		must("rollback", "--to", "0")
		if d := cmp.Diff(before, kernel(t)); d != "" {
			t.Fatalf("kill %d, after %s of %s:\n%s", i, delay, took, d)
		}
	}
	t.Logf("%d kills within %s; %d of them met an apply that had changed something", i, took, midway)
}

// handles are the numbers of qdiscs.
var handles = regexp.MustCompile(`(qdisc [a-z_]+|parent) [0-9a-f]+:`)

// kernel is all that the network namespace has of settings.
func kernel(t *testing.T) map[string]string {
	t.Helper()
	all := map[string]string{}
	err := filepath.WalkDir("/proc/sys/net", func(path string, e fs.DirEntry, err error) error {
		if err != nil || e.IsDir() || strings.HasSuffix(path, "_count") {
			return err
		}
		if b, err := os.ReadFile(path); err == nil { // some are for writing alone
			all[path] = string(b)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	links, err := netlink.LinkList()
	if err != nil {
		t.Fatal(err)
	}
	for _, l := range links {
		all["mtu of "+l.Attrs().Name] = fmt.Sprint(l.Attrs().MTU)
		all["txqueuelen of "+l.Attrs().Name] = fmt.Sprint(l.Attrs().TxQLen)
		for _, glob := range []string{"rx-*/rps_*", "tx-*/xps_cpus"} {
			paths, err := filepath.Glob("/sys/class/net/" + l.Attrs().Name + "/queues/" + glob)
			if err != nil {
				t.Fatal(err)
			}
			for _, path := range paths {
				if b, err := os.ReadFile(path); err == nil {
					all[path] = string(b)
				}
			}
		}
	}
	out, err := exec.CommandContext(t.Context(), "tc", "qdisc", "show").CombinedOutput()
	if err != nil {
		t.Fatalf("tc: %v\n%s (install iproute2)", err, out)
	}
	// A new discipline has another handle.
	all["qdiscs"] = handles.ReplaceAllString(string(out), "$1 :")
	e, err := ethtool.NewEthtool()
	if err != nil {
		t.Fatal(err)
	}
	defer e.Close()
	features, err := e.Features("kill0")
	if err != nil {
		t.Fatal(err)
	}
	all["features"] = fmt.Sprint(features) // sorted by key
	return all
}
