package lbd

import (
	"errors"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
)

// take renders what Take returns.
func take(s *Store) string {
	select {
	case <-s.Changed():
	default:
		return "unchanged"
	}
	names, synced := s.Take()
	return fmt.Sprint(names, synced)
}

func TestStore(t *testing.T) {
	s := NewStore()
	services, slices := objects(t, web("{clusterIP: 10.43.0.9}")+slice("a", "IPv4", "[]", "[]")+slice("b", "IPv4", "[]", "[]"))
	name := objectKey{"Service", object{service: services[0]}.key().name}.name
	a, b := slices[0], slices[1]
	check := func(what, want string, slices int) {
		t.Helper()
		if d := cmp.Diff(want, take(s)); d != "" {
			t.Errorf("%s: %s", what, d)
		}
		if _, got := s.Service(name); len(got) != slices {
			t.Errorf("%s: %d slices, want %d", what, len(got), slices)
		}
	}
	check("new", "unchanged", 0)
	s.SetSlice(a)
	s.SetSlice(b)
	s.SetService(services[0])
	check("all at once", "[default/web] false", 2)
	s.SetSynced()
	check("synced", "[] true", 2)
	s.SetSynced()
	check("synced again", "unchanged", 2)

	moved := a.DeepCopy()
	moved.Labels["kubernetes.io/service-name"] = "other"
	s.SetSlice(moved)
	check("moved to another service", "[default/other default/web] true", 1)
	moved = moved.DeepCopy()
	moved.Labels = nil
	s.SetSlice(moved)
	check("of no service", "[default/other] true", 1)
	s.DeleteSlice(objectKey{"", object{slice: moved}.key().name}.name)
	check("deleted though unknown", "unchanged", 1)
	s.DeleteService(name)
	s.DeleteSlice(object{slice: b}.key().name)
	check("deleted", "[default/web] true", 0)
	if len(s.slices)+len(s.owner)+len(s.services)+len(s.Names()) != 0 {
		t.Error("something is left", s.slices, s.owner, s.services)
	}
}

func TestStoreFaults(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := NewStore()
		start := time.Now()
		check := func(what string, synced bool, since time.Duration, faults ...string) {
			t.Helper()
			st := s.State()
			var got []string
			for _, f := range st.Faults {
				got = append(got, fmt.Sprintf("%s %s %s", f.Part, f.Since.Sub(start), f.Error))
			}
			if d := cmp.Diff(faults, got); d != "" || st.Synced != synced || st.Since.Sub(start) != since {
				t.Errorf("%s: synced %v since %v %s", what, st.Synced, st.Since.Sub(start), d)
			}
			time.Sleep(time.Second)
		}
		check("new", false, 0)
		s.SetFault("b", errors.New("x"))
		check("fault", false, 0, "b 1s x")
		s.SetSynced()
		check("synced but for a fault", false, 2*time.Second, "b 1s x")
		s.SetFault("b", nil)
		check("mended", true, 3*time.Second)
		s.SetFault("b", errors.New("y"))
		check("broken again", false, 4*time.Second, "b 4s y")
		s.SetFault("b", errors.New("z"))
		s.SetFault("a", errors.New("w"))
		check("more", false, 4*time.Second, "a 5s w", "b 4s z")
		s.SetFault("a", nil)
		check("less", false, 4*time.Second, "b 4s z")
	})
}
