package host

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/coreos/go-systemd/v22/dbus"
	"github.com/google/go-cmp/cmp"
)

// What is handed to systemd, with D-Bus signatures.
func TestTimerProperties(t *testing.T) {
	timer, service := Timer{Name: "x", Description: "Try", After: 90 * time.Second, Command: []string{"/bin/nodeprov", "rollback", "--to", "3"}}.properties()
	var b strings.Builder
	for _, ps := range [][]dbus.Property{timer, service} {
		for _, p := range ps {
			fmt.Fprintf(&b, "%s %s %v\n", p.Name, p.Value.Signature(), p.Value.Value())
		}
	}
	want := `Description s Try
TimersMonotonic a(st) [{OnActiveSec 90000000}]
AccuracyUSec t 100000
RemainAfterElapse b false
Description s Try
Type s oneshot
ExecStart a(sasb) [{/bin/nodeprov [/bin/nodeprov rollback --to 3] false}]
CollectMode s inactive-or-failed
`
	if d := cmp.Diff(want, b.String()); d != "" {
		t.Errorf("(-want +got):\n%s", d)
	}
}

func TestOffline(t *testing.T) {
	h, err := New(Options{Root: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	for name, err := range map[string]error{
		"StartTimer": h.StartTimer(t.Context(), Timer{Name: "x", Command: []string{"/bin/true"}}),
		"StopTimer":  h.StopTimer(t.Context(), "x"),
		"Reboot":     h.Reboot(t.Context()),
		"HasSystemd": h.HasSystemd(t.Context()),
	} {
		if !errors.Is(err, ErrOffline) {
			t.Errorf("%s: %v", name, err)
		}
	}
}
