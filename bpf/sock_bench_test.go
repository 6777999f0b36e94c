package bpf

import (
	"fmt"
	"net/netip"
	"path/filepath"
	"testing"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"

	"github.com/nodeprov/nodeprov/internal/testbed"
)

// BenchmarkConnect4 tells how long the connect4 program runs per call, from the
// kernel's own statistics, by number of services. One iteration is a thousand
// connections or so.
func BenchmarkConnect4(b *testing.B) {
	o := Options{BPFFS: testbed.BPFFS(b), Cgroup: testbed.Cgroup(b)}
	d, err := Open(o)
	if err != nil {
		b.Fatal(err)
	}
	defer d.Close()
	if err := d.Attach(); err != nil {
		b.Fatal(err)
	}
	ns := testbed.NewNetNS(b)
	pod := testbed.Place{NetNS: ns, Cgroup: o.Cgroup}
	pod.Serve(b, "127.0.0.1:80", "x")
	stats, err := ebpf.EnableStats(uint32(unix.BPF_STATS_RUN_TIME))
	if err != nil {
		b.Fatal(err)
	}
	defer stats.Close()
	prog, err := ebpf.LoadPinnedProgram(filepath.Join(d.pin("programs"), sockProgConnect4), nil)
	if err != nil {
		b.Fatal(err)
	}
	defer prog.Close()

	for _, n := range []int{1, 1000, 10000} {
		var batch Batch
		for i := range n {
			batch.Set = append(batch.Set, Service{
				Key:       Key{Service: fmt.Sprint(i)},
				Frontends: []Frontend{{Addr: netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, 96, byte(i >> 8), byte(i)}), 80), Protocol: TCP}},
				Backends:  []Backend{{Addr: netip.MustParseAddrPort("127.0.0.1:80")}},
			})
		}
		if err := d.Apply(batch); err != nil {
			b.Fatal(err)
		}
		for _, target := range []struct{ name, addr string }{
			{"service", fmt.Sprintf("10.96.%d.%d:80", (n-1)>>8, (n-1)&255)},
			{"none", "127.0.0.1:80"},
		} {
			b.Run(fmt.Sprintf("services=%d/to=%s", n, target.name), func(b *testing.B) {
				var runs, ns float64
				for b.Loop() {
					before, err := prog.Stats()
					if err != nil {
						b.Fatal(err)
					}
					pod.Probe(b, "load", "--for", "300ms", target.addr)
					after, err := prog.Stats()
					if err != nil {
						b.Fatal(err)
					}
					runs += float64(after.RunCount - before.RunCount)
					ns += float64(after.Runtime - before.Runtime)
				}
				b.ReportMetric(ns/runs, "ns/call")
				b.ReportMetric(runs/float64(b.N), "calls/op")
			})
		}
	}
}
