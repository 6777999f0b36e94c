package lbd

import (
	"cmp"
	"maps"
	"slices"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	"k8s.io/apimachinery/pkg/types"
)

// Store holds the objects that a Source found, and which services have changed
// since somebody looked. All methods may be called from any goroutine; objects
// that were given to it must not be changed any more.
type Store struct {
	changed chan struct{}

	mu       sync.Mutex
	services map[types.NamespacedName]*corev1.Service
	// slices are by the service that they belong to, then by their own name.
	slices map[types.NamespacedName]map[types.NamespacedName]*discoveryv1.EndpointSlice
	// owner is the service that a slice belongs to: its label may be edited.
	owner  map[types.NamespacedName]types.NamespacedName
	dirty  map[types.NamespacedName]struct{}
	synced bool
	faults map[string]Fault
	since  time.Time
}

// Fault is something wrong with a source, so that what it holds may be old.
type Fault struct {
	// Part is what of the source is concerned: a file, a kind of object.
	Part  string    `json:"part"`
	Since time.Time `json:"since"`
	Error string    `json:"error"`
}

// NewStore returns an empty Store that is not synced.
func NewStore() *Store {
	return &Store{
		changed:  make(chan struct{}, 1),
		services: map[types.NamespacedName]*corev1.Service{},
		slices:   map[types.NamespacedName]map[types.NamespacedName]*discoveryv1.EndpointSlice{},
		owner:    map[types.NamespacedName]types.NamespacedName{},
		dirty:    map[types.NamespacedName]struct{}{},
		faults:   map[string]Fault{},
		since:    time.Now(),
	}
}

// Changed receives after any change since it received last.
func (s *Store) Changed() <-chan struct{} { return s.changed }

// SetService adds or replaces a service.
func (s *Store) SetService(svc *corev1.Service) {
	name := types.NamespacedName{Namespace: svc.Namespace, Name: svc.Name}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.services[name] = svc
	s.mark(name)
}

// DeleteService removes a service; its slices stay until they are deleted too.
func (s *Store) DeleteService(name types.NamespacedName) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.services, name)
	s.mark(name)
}

// SetSlice adds or replaces a slice. One without the label that names its service
// serves nothing.
func (s *Store) SetSlice(slice *discoveryv1.EndpointSlice) {
	name := types.NamespacedName{Namespace: slice.Namespace, Name: slice.Name}
	service := types.NamespacedName{Namespace: slice.Namespace, Name: slice.Labels[discoveryv1.LabelServiceName]}
	s.mu.Lock()
	defer s.mu.Unlock()
	if old, ok := s.owner[name]; ok && old != service {
		s.remove(name)
	}
	if service.Name == "" {
		return
	}
	s.owner[name] = service
	if s.slices[service] == nil {
		s.slices[service] = map[types.NamespacedName]*discoveryv1.EndpointSlice{}
	}
	s.slices[service][name] = slice
	s.mark(service)
}

// DeleteSlice removes a slice.
func (s *Store) DeleteSlice(name types.NamespacedName) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.remove(name)
}

func (s *Store) remove(slice types.NamespacedName) {
	service, ok := s.owner[slice]
	if !ok {
		return
	}
	delete(s.owner, slice)
	delete(s.slices[service], slice)
	if len(s.slices[service]) == 0 {
		delete(s.slices, service)
	}
	s.mark(service)
}

// SetSynced says that the store has held everything that the source has. It holds
// for ever: from then on, what is not in the store is gone.
func (s *Store) SetSynced() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.synced {
		return
	}
	s.synced = true
	s.since = time.Now()
	s.signal()
}

// SetFault says what is wrong with a part of the source; nil says that it is well.
func (s *Store) SetFault(part string, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	old, had := s.faults[part]
	switch {
	case err == nil && !had, err != nil && had && old.Error == err.Error():
		return
	case err == nil:
		delete(s.faults, part)
		if s.synced && len(s.faults) == 0 {
			s.since = time.Now()
		}
	default:
		if s.synced && len(s.faults) == 0 {
			s.since = time.Now()
		}
		if !had {
			old.Since = time.Now()
		}
		s.faults[part] = Fault{Part: part, Since: old.Since, Error: err.Error()}
	}
	s.signal()
}

// Take returns the services that have changed since the last Take, sorted, and
// whether the store was synced when it held them like this.
func (s *Store) Take() (names []types.NamespacedName, synced bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	names = slices.SortedFunc(maps.Keys(s.dirty), compareName)
	clear(s.dirty)
	return names, s.synced
}

// Names returns all services that the store has an object for.
func (s *Store) Names() []types.NamespacedName {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.SortedFunc(maps.Keys(s.services), compareName)
}

// Service returns a service, nil when there is none, and its slices.
func (s *Store) Service(name types.NamespacedName) (*corev1.Service, []*discoveryv1.EndpointSlice) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.services[name], slices.Collect(maps.Values(s.slices[name]))
}

// SourceState is how a Store and its Source stand.
type SourceState struct {
	// Synced tells that the store holds what the source has, as of now.
	Synced bool `json:"synced"`
	// Since is when Synced became what it is.
	Since  time.Time `json:"since"`
	Faults []Fault   `json:"faults,omitempty"`
}

// State returns how the source stands.
func (s *Store) State() SourceState {
	s.mu.Lock()
	defer s.mu.Unlock()
	return SourceState{
		Synced: s.synced && len(s.faults) == 0,
		Since:  s.since,
		Faults: slices.SortedFunc(maps.Values(s.faults), func(a, b Fault) int { return cmp.Compare(a.Part, b.Part) }),
	}
}

func (s *Store) mark(name types.NamespacedName) {
	s.dirty[name] = struct{}{}
	s.signal()
}

func (s *Store) signal() {
	select {
	case s.changed <- struct{}{}:
	default:
	}
}

func compareName(a, b types.NamespacedName) int {
	return cmp.Or(cmp.Compare(a.Namespace, b.Namespace), cmp.Compare(a.Name, b.Name))
}
