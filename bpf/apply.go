package bpf

import (
	"errors"
	"fmt"
	"maps"
	"slices"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"
)

// change is what one service of a batch needs.
type change struct {
	key      Key
	entry    *entry
	isNew    bool
	add, del []Frontend

	flip       bool // to the new generation
	generation uint32
	backends   []Backend
	slots      []sockBackendKey // written and not in use yet
}

// garbage is what readers may still look at: it is deleted after a grace period.
type garbage struct {
	slots []sockBackendKey
	ids   []uint32 // of removed services: their element and name; free again afterwards
}

// Apply brings the services of the batch about. Readers see each service as it
// was or as it is to be, never in between, and existing services keep serving
// throughout. A service that cannot be had (a full map, a frontend of another
// service) is refused alone and stays as it was: the error joins one
// *ServiceError for each.
func (d *Datapath) Apply(b Batch) error {
	d.mu.Lock()
	defer d.mu.Unlock()

	var refused []error
	refuse := func(k Key, err error) { refused = append(refused, &ServiceError{Key: k, Err: err}) }

	changes := d.plan(b, refuse)
	var g garbage

	// Slots of new generations: nobody looks there yet.
	changes = d.step(changes, refuse, d.writeSlots)

	// Frontends go before they come: one may move to another service of the batch.
	for _, k := range b.Delete {
		k = k.Short()
		e := d.table.services[k]
		if e == nil {
			continue
		}
		if err := d.deleteFrontends(slices.Collect(maps.Keys(e.frontends))); err != nil {
			refuse(k, err)
			continue
		}
		for f := range e.frontends {
			delete(d.table.owner, f)
		}
		delete(d.table.services, k)
		g.ids = append(g.ids, e.id)
		g.slots = append(g.slots, e.slots()...)
	}
	changes = d.step(changes, refuse, func(c *change) error { return d.deleteFrontends(c.del) })

	// A service that exists gets its new frontends before its new backends, so
	// that it can still be refused as a whole; a new one gets them last.
	changes = d.step(changes, refuse, func(c *change) error {
		if c.isNew {
			return nil
		}
		return d.insertFrontends(c)
	})
	changes = d.step(changes, refuse, func(c *change) error {
		if c.isNew {
			if err := d.maps[sockMapNamesV1].Put(c.entry.id, c.key.value()); err != nil {
				return full(sockMapNamesV1, err)
			}
		}
		if !c.flip {
			return nil
		}
		s := sockService{Generation: c.generation, Count: uint16(len(c.backends))}
		if err := d.maps[sockMapServicesV1].Put(c.entry.id, s); err != nil {
			return full(sockMapServicesV1, err)
		}
		if !c.isNew {
			g.slots = append(g.slots, c.entry.slots()...)
		}
		c.entry.generation, c.entry.backends = s.Generation, c.backends
		c.slots = nil // they belong to the entry now
		return nil
	})
	changes = d.step(changes, refuse, func(c *change) error {
		if !c.isNew {
			return nil
		}
		return d.insertFrontends(c)
	})

	for _, c := range changes {
		for _, f := range c.del {
			delete(c.entry.frontends, f)
			if d.table.owner[f] == c.key {
				delete(d.table.owner, f)
			}
		}
		for _, f := range c.add {
			c.entry.frontends[f] = true
			d.table.owner[f] = c.key
		}
		d.table.services[c.key] = c.entry
	}
	d.collectLater(g)
	return errors.Join(refused...)
}

// step does one thing for each change; those for which it fails are undone,
// refused, and left out of what is returned.
func (d *Datapath) step(cs []*change, refuse func(Key, error), do func(*change) error) []*change {
	return slices.DeleteFunc(cs, func(c *change) bool {
		err := do(c)
		if err != nil {
			refuse(c.key, errors.Join(err, d.undo(c)))
		}
		return err != nil
	})
}

// undo leaves the service as it was before the batch, but for frontends that it
// was to give up and that others have taken meanwhile.
func (d *Datapath) undo(c *change) error {
	g := garbage{slots: c.slots}
	if c.isNew {
		g.ids = append(g.ids, c.entry.id)
		if c.entry.backends != nil {
			g.slots = append(g.slots, c.entry.slots()...)
		}
	}
	d.collectLater(g)
	var errs []error
	for _, f := range c.del {
		if c.entry.frontends[f] && d.table.owner[f] == c.key {
			err := d.maps[sockMapFrontendsV1].Update(f.key(), f.value(c.entry.id), ebpf.UpdateNoExist)
			var have sockFrontend
			if err == nil || errors.Is(err, ebpf.ErrKeyExist) && d.maps[sockMapFrontendsV1].Lookup(f.key(), &have) == nil && have.Service == c.entry.id {
				continue
			}
			// Another service has it, or its place, now.
			delete(c.entry.frontends, f)
			delete(d.table.owner, f)
			errs = append(errs, fmt.Errorf("frontend %s is lost: %w", f, full(sockMapFrontendsV1, err)))
		}
	}
	return errors.Join(errs...)
}

// plan compares the batch with the table.
func (d *Datapath) plan(b Batch, refuse func(Key, error)) []*change {
	var cs []*change
	seen := map[Key]bool{}
	leaves := map[Frontend]bool{} // frontends that their owner gives up in this batch
	for _, k := range b.Delete {
		if e := d.table.services[k.Short()]; e != nil {
			for f := range e.frontends {
				leaves[f] = true
			}
		}
		seen[k.Short()] = true
	}
	for _, s := range b.Set {
		key := s.Short()
		if seen[key] {
			refuse(s.Key, errors.New("named twice in one batch"))
			continue
		}
		seen[key] = true
		if err := s.check(); err != nil {
			refuse(s.Key, err)
			continue
		}
		c := &change{key: key, entry: d.table.services[key]}
		if c.entry == nil {
			c.isNew = true
			c.entry = &entry{frontends: map[Frontend]bool{}}
		}
		want := map[Frontend]bool{}
		for _, f := range s.Frontends {
			if !want[f] && !c.entry.frontends[f] {
				c.add = append(c.add, f)
			}
			want[f] = true
		}
		for f := range c.entry.frontends {
			if !want[f] {
				c.del = append(c.del, f)
				leaves[f] = true
			}
		}
		c.backends = arrange(c.entry.backends, s.Backends)
		c.flip = c.isNew || !slices.Equal(c.backends, c.entry.backends)
		if c.flip || len(c.add) > 0 || len(c.del) > 0 {
			cs = append(cs, c)
		}
	}
	comes := map[Frontend]Key{}
	return slices.DeleteFunc(cs, func(c *change) bool {
		for _, f := range c.add {
			owner, taken := d.table.owner[f]
			if taken && leaves[f] {
				taken = false
			}
			if k, ok := comes[f]; ok {
				owner, taken = k, true
			}
			if taken {
				refuse(c.key, fmt.Errorf("frontend %s belongs to service %s", f, owner))
				return true
			}
		}
		for _, f := range c.add {
			comes[f] = c.key
		}
		if c.isNew {
			id, ok := d.table.ids.take()
			if !ok {
				refuse(c.key, fmt.Errorf("map %s is full: it has place for %d services", sockMapServicesV1, len(d.table.ids.used)-1))
				return true
			}
			c.entry.id = id
		}
		return false
	})
}

// check refuses what the maps cannot express.
func (s Service) check() error {
	if len(s.Frontends) == 0 {
		return errors.New("it has no frontend")
	}
	if len(s.Backends) > MaxBackends {
		return fmt.Errorf("it has %d backends, more than %d", len(s.Backends), MaxBackends)
	}
	for _, f := range s.Frontends {
		if a := f.Addr.Addr(); !f.Addr.IsValid() || f.Addr.Port() == 0 || a.Unmap() != a || a.Is6() != s.IPv6 {
			return fmt.Errorf("frontend %s: not an address and port of the service's family", f)
		}
		if f.Protocol != TCP && f.Protocol != UDP {
			return fmt.Errorf("frontend %s: the protocol is neither TCP nor UDP", f)
		}
	}
	for _, b := range s.Backends {
		if a := b.Addr.Addr(); !b.Addr.IsValid() || b.Addr.Port() == 0 || a.Unmap() != a || a.Is6() != s.IPv6 {
			return fmt.Errorf("backend %s: not an address and port of the service's family", b.Addr)
		}
	}
	return nil
}

// arrange returns want as slots. A backend that stays keeps its slot where that
// is possible, so that sockets find theirs again (see recall in sock.c): new
// ones take the places of those that leave, and the last ones move down.
func arrange(have, want []Backend) []Backend {
	missing := make(map[Backend]bool, len(want))
	for _, b := range want {
		missing[b] = true
	}
	out := slices.Clone(have)
	var holes []int
	for i, b := range out {
		if missing[b] {
			delete(missing, b)
		} else {
			holes = append(holes, i)
		}
	}
	for _, b := range want { // in the order given
		if !missing[b] {
			continue
		}
		delete(missing, b)
		if len(holes) > 0 {
			out[holes[0]] = b
			holes = holes[1:]
		} else {
			out = append(out, b)
		}
	}
	for i := len(holes) - 1; i >= 0; i-- { // from the end, so that the last one is never a hole itself
		out[holes[i]] = out[len(out)-1]
		out = out[:len(out)-1]
	}
	return out
}

func (e *entry) slots() []sockBackendKey { return slotKeys(e.id, e.generation, len(e.backends)) }

func slotKeys(id, generation uint32, n int) []sockBackendKey {
	ks := make([]sockBackendKey, n)
	for i := range ks {
		ks[i] = sockBackendKey{Service: id, Generation: generation, Slot: uint32(i)}
	}
	return ks
}

func (d *Datapath) writeSlots(c *change) error {
	if !c.flip {
		return nil
	}
	// Never the number of an attempt that was undone: its slots are garbage, and
	// will be deleted.
	c.entry.latest++
	c.generation = c.entry.latest
	if len(c.backends) == 0 {
		return nil
	}
	values := make([]sockBackend, len(c.backends))
	for i, b := range c.backends {
		values[i] = b.value()
	}
	c.slots = slotKeys(c.entry.id, c.generation, len(c.backends))
	if _, err := d.maps[sockMapBackendsV1].BatchUpdate(c.slots, values, nil); err != nil {
		return full(sockMapBackendsV1, err)
	}
	return nil
}

// insertFrontends inserts c.add, all or none.
func (d *Datapath) insertFrontends(c *change) error {
	for i, f := range c.add {
		if err := d.maps[sockMapFrontendsV1].Update(f.key(), f.value(c.entry.id), ebpf.UpdateNoExist); err != nil {
			return errors.Join(full(sockMapFrontendsV1, err), d.deleteFrontends(c.add[:i]))
		}
	}
	return nil
}

func (d *Datapath) deleteFrontends(fs []Frontend) error {
	for _, f := range fs {
		if err := d.maps[sockMapFrontendsV1].Delete(f.key()); err != nil && !errors.Is(err, ebpf.ErrKeyNotExist) {
			return fmt.Errorf("map %s: %s: %w", sockMapFrontendsV1, f, err)
		}
	}
	return nil
}

// collectLater deletes g when no reader can see it any more.
func (d *Datapath) collectLater(g garbage) {
	if len(g.slots) == 0 && len(g.ids) == 0 {
		return
	}
	d.garbage = append(d.garbage, g)
	if len(d.garbage) > 1 {
		return // the collector is at work and will see it
	}
	d.reaping.Go(func() {
		for {
			d.mu.Lock()
			gs := slices.Clone(d.garbage)
			d.mu.Unlock()
			if len(gs) == 0 {
				return
			}
			d.barrier.wait()
			d.mu.Lock()
			for _, g := range gs {
				d.collect(g)
			}
			d.garbage = d.garbage[len(gs):]
			done := len(d.garbage) == 0
			d.mu.Unlock()
			if done {
				return
			}
		}
	})
}

// collect deletes g. What cannot be deleted now is found by restore in the next
// life; an ID that still has anything is not given again.
func (d *Datapath) collect(g garbage) {
	var left error
	if len(g.slots) > 0 {
		if _, err := d.maps[sockMapBackendsV1].BatchDelete(g.slots, nil); err != nil {
			for _, k := range g.slots { // a batch stops at the first key that is not there
				if err := d.maps[sockMapBackendsV1].Delete(k); err != nil && !errors.Is(err, ebpf.ErrKeyNotExist) {
					left = err
				}
			}
		}
	}
	for _, id := range g.ids {
		err := errors.Join(left, d.maps[sockMapServicesV1].Put(id, sockService{}))
		if e := d.maps[sockMapNamesV1].Delete(id); e != nil && !errors.Is(e, ebpf.ErrKeyNotExist) {
			err = errors.Join(err, e)
		}
		if err == nil && int(id) < len(d.table.ids.used) {
			d.table.ids.release(id)
		}
	}
}

// full names the map and says when it is full.
func full(name string, err error) error {
	if errors.Is(err, unix.E2BIG) {
		return fmt.Errorf("map %s is full: %w", name, err)
	}
	return fmt.Errorf("map %s: %w", name, err)
}
