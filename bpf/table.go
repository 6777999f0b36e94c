package bpf

import (
	"bytes"
	"cmp"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"slices"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"
)

// table is the writer's copy of what the maps hold.
type table struct {
	services map[Key]*entry
	owner    map[Frontend]Key
	ids      ids
}

// entry is one service of the table.
type entry struct {
	id         uint32
	generation uint32    // that readers use
	latest     uint32    // that was ever written to
	backends   []Backend // by slot
	frontends  map[Frontend]bool
}

// ids hands out the numbers 1 to max-1, the lowest free one first.
type ids struct {
	used []bool
	low  uint32 // none below is free
}

func (i *ids) take() (uint32, bool) {
	for i.low = max(i.low, 1); int(i.low) < len(i.used); i.low++ {
		if !i.used[i.low] {
			i.used[i.low] = true
			return i.low, true
		}
	}
	return 0, false
}

func (i *ids) release(id uint32) {
	i.used[id] = false
	i.low = min(i.low, id)
}

// view is a copy of the maps. The kernel gives no snapshot of several maps, so a
// view that was taken beside a writer may hold services in between.
type view struct {
	frontends map[sockFrontendKey]sockFrontend
	services  map[uint32]sockService // of those that have a name
	backends  map[sockBackendKey]sockBackend
	names     map[uint32]sockServiceName
}

func (d *Datapath) view() (v view, err error) {
	if v.names, err = dump[uint32, sockServiceName](d.maps[sockMapNamesV1]); err != nil {
		return v, err
	}
	if v.frontends, err = dump[sockFrontendKey, sockFrontend](d.maps[sockMapFrontendsV1]); err != nil {
		return v, err
	}
	if v.backends, err = dump[sockBackendKey, sockBackend](d.maps[sockMapBackendsV1]); err != nil {
		return v, err
	}
	v.services = make(map[uint32]sockService, len(v.names))
	for id := range v.names {
		var s sockService
		if err := d.maps[sockMapServicesV1].Lookup(id, &s); err != nil {
			return v, fmt.Errorf("map %s: service %d: %w", sockMapServicesV1, id, err)
		}
		v.services[id] = s
	}
	return v, nil
}

// dump returns all of a hash map.
func dump[K comparable, V any](m *ebpf.Map) (map[K]V, error) {
	out := map[K]V{}
	var cursor ebpf.MapBatchCursor
	for n := 4096; ; {
		keys, values := make([]K, n), make([]V, n)
		got, err := m.BatchLookup(&cursor, keys, values, nil)
		if errors.Is(err, unix.ENOSPC) { // a bucket has more than n elements
			n *= 2
			continue
		}
		end := errors.Is(err, ebpf.ErrKeyNotExist)
		if err != nil && !end {
			return nil, fmt.Errorf("map %s: %w", m.String(), err)
		}
		for i := range got {
			out[keys[i]] = values[i]
		}
		if end {
			return out, nil
		}
	}
}

// Services returns what the maps hold, sorted by Key; it asks the kernel. Beside
// a writer, a service that changes at this moment is read again until it is
// whole.
func (d *Datapath) Services() ([]Service, error) {
	v, err := d.view()
	if err != nil {
		return nil, err
	}
	byID := make(map[uint32]*Service, len(v.names))
	for id, n := range v.names {
		byID[id] = &Service{ID: id, Key: n.key()}
	}
	for k, f := range v.frontends {
		if s := byID[f.Service]; s != nil {
			s.Frontends = append(s.Frontends, k.frontend())
		}
	}
	var out []Service
	for id, s := range byID {
		if len(s.Frontends) == 0 {
			continue // being made or removed
		}
		if s.Backends, err = d.backends(v, id); err != nil {
			return nil, err
		}
		slices.SortFunc(s.Frontends, compareFrontends)
		slices.SortFunc(s.Backends, func(a, b Backend) int { return a.Addr.Compare(b.Addr) })
		out = append(out, *s)
	}
	slices.SortFunc(out, func(a, b Service) int { return compareKeys(a.Key, b.Key) })
	return out, nil
}

// backends returns the backends of one service, from the view if that has them
// all, else from the kernel.
func (d *Datapath) backends(v view, id uint32) ([]Backend, error) {
	if bs, ok := v.slots(id); ok {
		return bs, nil
	}
	// Each retry means that a writer has finished another batch meanwhile.
	for range 100 {
		var s sockService
		if err := d.maps[sockMapServicesV1].Lookup(id, &s); err != nil {
			return nil, fmt.Errorf("map %s: service %d: %w", sockMapServicesV1, id, err)
		}
		bs := make([]Backend, 0, s.Count)
		for slot := range uint32(s.Count) {
			var b sockBackend
			err := d.maps[sockMapBackendsV1].Lookup(sockBackendKey{Service: id, Generation: s.Generation, Slot: slot}, &b)
			if errors.Is(err, ebpf.ErrKeyNotExist) {
				break
			}
			if err != nil {
				return nil, fmt.Errorf("map %s: service %d: %w", sockMapBackendsV1, id, err)
			}
			bs = append(bs, b.backend())
		}
		if len(bs) == int(s.Count) {
			return bs, nil
		}
	}
	return nil, fmt.Errorf("map %s: service %d has fewer backends than its count (restart lbd to rebuild it)", sockMapBackendsV1, id)
}

func (v view) slots(id uint32) ([]Backend, bool) {
	s := v.services[id]
	bs := make([]Backend, s.Count)
	for slot := range bs {
		b, ok := v.backends[sockBackendKey{Service: id, Generation: s.Generation, Slot: uint32(slot)}]
		if !ok {
			return nil, false
		}
		bs[slot] = b.backend()
	}
	return bs, true
}

// restore reads the table of an earlier life, and removes what a writer that was
// killed left half-done. Nothing that a frontend leads to is touched.
func (d *Datapath) restore() error {
	v, err := d.view()
	if err != nil {
		return err
	}
	d.table = table{
		services: map[Key]*entry{},
		owner:    map[Frontend]Key{},
		ids:      ids{used: make([]bool, d.maps[sockMapServicesV1].MaxEntries())},
	}
	frontends := map[uint32][]Frontend{}
	for k, f := range v.frontends {
		frontends[f.Service] = append(frontends[f.Service], k.frontend())
	}
	current := map[sockBackendKey]bool{}
	var g garbage
	for _, id := range slices.Sorted(maps.Keys(v.names)) {
		key := v.names[id].key()
		backends, whole := v.slots(id)
		_, twice := d.table.services[key]
		if int(id) >= len(d.table.ids.used) || id == 0 || twice || !whole || len(frontends[id]) == 0 {
			if err := d.deleteFrontends(frontends[id]); err != nil {
				return err
			}
			delete(frontends, id)
			g.ids = append(g.ids, id)
			if int(id) < len(d.table.ids.used) {
				d.table.ids.used[id] = true // until it is collected
			}
			continue
		}
		e := &entry{id: id, generation: v.services[id].Generation, backends: backends, frontends: map[Frontend]bool{}}
		e.latest = e.generation
		for _, f := range frontends[id] {
			e.frontends[f] = true
			d.table.owner[f] = key
		}
		for slot := range backends {
			current[sockBackendKey{Service: id, Generation: e.generation, Slot: uint32(slot)}] = true
		}
		delete(frontends, id)
		d.table.services[key] = e
		d.table.ids.used[id] = true
	}
	for _, fs := range frontends { // of services without a name
		if err := d.deleteFrontends(fs); err != nil {
			return err
		}
	}
	byID := map[uint32]*entry{}
	for _, e := range d.table.services {
		byID[e.id] = e
	}
	for k := range v.backends {
		if !current[k] {
			g.slots = append(g.slots, k)
			if e := byID[k.Service]; e != nil {
				e.latest = max(e.latest, k.Generation)
			} else if int(k.Service) < len(d.table.ids.used) && !d.table.ids.used[k.Service] {
				// Of a service that had no name yet. Given away before they are
				// collected, its ID would lead the collector to new slots.
				d.table.ids.used[k.Service] = true
				g.ids = append(g.ids, k.Service)
			}
		}
	}
	d.collectLater(g)
	return nil
}

func compareKeys(a, b Key) int {
	if c := cmp.Compare(a.Service, b.Service); c != 0 {
		return c
	}
	switch {
	case a.IPv6 == b.IPv6:
		return 0
	case b.IPv6:
		return -1
	}
	return 1
}

func compareFrontends(a, b Frontend) int {
	if c := a.Addr.Compare(b.Addr); c != 0 {
		return c
	}
	return cmp.Compare(a.Protocol, b.Protocol)
}

// The edge between Go and the maps: ports and addresses are in network order
// there, IPv4 addresses in the form ::ffff:a.b.c.d.

func words(a netip.Addr) (w [4]uint32) {
	b := a.As16()
	for i := range w {
		w[i] = binary.NativeEndian.Uint32(b[4*i:])
	}
	return w
}

func addrPort(w [4]uint32, port uint16) netip.AddrPort {
	var b [16]byte
	for i := range w {
		binary.NativeEndian.PutUint32(b[4*i:], w[i])
	}
	return netip.AddrPortFrom(netip.AddrFrom16(b).Unmap(), swap(port))
}

// swap turns a port from host to network order and back.
func swap(port uint16) uint16 {
	var b [2]byte
	binary.BigEndian.PutUint16(b[:], port)
	return binary.NativeEndian.Uint16(b[:])
}

func (f Frontend) key() (k sockFrontendKey) {
	k.Addr.Word, k.Port, k.Protocol = words(f.Addr.Addr()), swap(f.Addr.Port()), uint8(f.Protocol)
	return k
}

// value is what the map has for f; its check is that of check() in sock.c.
func (f Frontend) value(service uint32) sockFrontend {
	k, h := f.key(), service
	for _, w := range k.Addr.Word {
		h = (h ^ w) * 0x9e3779b1
	}
	h = (h ^ (uint32(k.Port) | uint32(k.Protocol)<<16 | uint32(k.Scope)<<24)) * 0x9e3779b1
	return sockFrontend{Service: service, Check: h}
}

func (k sockFrontendKey) frontend() Frontend {
	return Frontend{Addr: addrPort(k.Addr.Word, k.Port), Protocol: Protocol(k.Protocol)}
}

func (b Backend) value() (v sockBackend) {
	v.Addr.Word, v.Port = words(b.Addr.Addr()), swap(b.Addr.Port())
	return v
}

func (v sockBackend) backend() Backend { return Backend{Addr: addrPort(v.Addr.Word, v.Port)} }

func (k Key) value() (n sockServiceName) {
	n.Family = 4
	if k.IPv6 {
		n.Family = 6
	}
	copy(n.Name[:], k.Short().Service)
	return n
}

func (n sockServiceName) key() Key {
	name, _, _ := bytes.Cut(n.Name[:], []byte{0})
	return Key{Service: string(name), IPv6: n.Family == 6}
}

// Short returns the key under which the maps know k: a name longer than the
// element ends in a digest of the whole.
func (k Key) Short() Key {
	if limit := len(sockServiceName{}.Name); len(k.Service) > limit {
		sum := fmt.Sprintf("~%x", sha256.Sum256([]byte(k.Service)))[:17]
		k.Service = k.Service[:limit-len(sum)] + sum
	}
	return k
}
