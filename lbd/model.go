package lbd

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/nodeprov/nodeprov/bpf"
)

// Problem is a part of an object that is not served, and why. The rest of the
// object is.
type Problem struct {
	// Object is "Service ns/name" or "EndpointSlice ns/name".
	Object string `json:"object"`
	Text   string `json:"text"`
}

func (p Problem) String() string { return p.Object + ": " + p.Text }

// ignored tells whether svc is none of lbd's business: kube-proxy makes no entries
// for it either.
func ignored(svc *corev1.Service) bool {
	if svc == nil || svc.Spec.Type == corev1.ServiceTypeExternalName {
		return true
	}
	if _, ok := svc.Labels[labelProxyName]; ok {
		return true
	}
	if _, ok := svc.Labels[corev1.IsHeadlessService]; ok {
		return true
	}
	return svc.Spec.ClusterIP == corev1.ClusterIPNone || svc.Spec.ClusterIP == "" && len(svc.Spec.ClusterIPs) == 0
}

// labelProxyName gives a service to another proxy (pkg/proxy/apis in Kubernetes).
const labelProxyName = "service.kubernetes.io/service-proxy-name"

// Services returns the backend sets of a service, given all of its slices: one for
// each port and IP family. It is pure, and its result does not depend on the order
// of the slices. A nil or headless service, one of type ExternalName, and one that
// is labelled for another proxy has none.
//
// Endpoints are chosen as kube-proxy does it: those that are ready or, when none
// is, those that are serving while they terminate. A service's port is matched by
// name and protocol with a slice's, which is how named target ports work.
func Services(svc *corev1.Service, endpoints []*discoveryv1.EndpointSlice) ([]bpf.Service, []Problem) {
	if ignored(svc) {
		return nil, nil
	}
	m := model{svc: svc, slices: slices.SortedFunc(slices.Values(endpoints), func(a, b *discoveryv1.EndpointSlice) int {
		return cmp.Compare(a.Name, b.Name)
	})}
	return m.services(), m.problems
}

type model struct {
	svc      *corev1.Service
	slices   []*discoveryv1.EndpointSlice
	problems []Problem
}

func (m *model) problem(kind string, o types.NamespacedName, format string, args ...any) {
	p := Problem{Object: kind + " " + o.String(), Text: fmt.Sprintf(format, args...)}
	// Every port sees the same bad address again.
	if !slices.Contains(m.problems, p) {
		m.problems = append(m.problems, p)
	}
}

func (m *model) services() []bpf.Service {
	name := types.NamespacedName{Namespace: m.svc.Namespace, Name: m.svc.Name}
	var v4, v6 []netip.Addr
	ips := m.svc.Spec.ClusterIPs
	if len(ips) == 0 {
		ips = []string{m.svc.Spec.ClusterIP}
	}
	for _, s := range ips {
		a, err := address(s)
		switch {
		case err != nil:
			m.problem("Service", name, "clusterIP %v", err)
		case a.Is4():
			v4 = append(v4, a)
		default:
			v6 = append(v6, a)
		}
	}

	var out []bpf.Service
	keys := map[bpf.Key]bool{}
	taken := map[bpf.Frontend]bool{}
	for i, port := range m.svc.Spec.Ports {
		proto, err := protocol(port.Protocol)
		if err != nil {
			m.problem("Service", name, "port %s: %v", portName(port.Name, i), err)
			continue
		}
		if port.Port < 1 || port.Port > 65535 {
			m.problem("Service", name, "port %s: %d is out of range (1 to 65535)", portName(port.Name, i), port.Port)
			continue
		}
		key := name.String()
		if port.Name != "" {
			key += ":" + port.Name
		}
		for _, family := range []struct {
			ipv6  bool
			addrs []netip.Addr
		}{{false, v4}, {true, v6}} {
			s := bpf.Service{Key: bpf.Key{Service: key, IPv6: family.ipv6}}
			for _, a := range family.addrs {
				f := bpf.Frontend{Addr: netip.AddrPortFrom(a, uint16(port.Port)), Protocol: proto}
				if taken[f] {
					m.problem("Service", name, "port %s: %s is taken by an earlier port", portName(port.Name, i), f)
					continue
				}
				taken[f] = true
				s.Frontends = append(s.Frontends, f)
			}
			if len(s.Frontends) == 0 {
				continue
			}
			if keys[s.Key] {
				m.problem("Service", name, "port %s: the name stands for an earlier port already (give each port its own)", portName(port.Name, i))
				continue
			}
			keys[s.Key] = true
			s.Backends = m.backends(port.Name, port.Protocol, family.ipv6)
			order(&s)
			out = append(out, s)
		}
	}
	return out
}

func (m *model) backends(portname string, proto corev1.Protocol, ipv6 bool) []bpf.Backend {
	ready, terminating := map[bpf.Backend]bool{}, map[bpf.Backend]bool{}
	family := discoveryv1.AddressTypeIPv4
	if ipv6 {
		family = discoveryv1.AddressTypeIPv6
	}
	for _, slice := range m.slices {
		if slice.AddressType != family {
			continue
		}
		name := types.NamespacedName{Namespace: slice.Namespace, Name: slice.Name}
		for i, p := range slice.Ports {
			// A port without a number means "any", which only a service without
			// ports of its own can use.
			if value(p.Name, "") != portname || value(p.Protocol, corev1.ProtocolTCP) != cmp.Or(proto, corev1.ProtocolTCP) || p.Port == nil {
				continue
			}
			if *p.Port < 1 || *p.Port > 65535 {
				m.problem("EndpointSlice", name, "port %s: %d is out of range (1 to 65535)", portName(portname, i), *p.Port)
				continue
			}
			for _, e := range slice.Endpoints {
				if len(e.Addresses) == 0 {
					m.problem("EndpointSlice", name, "an endpoint has no address")
					continue
				}
				// The addresses of one endpoint are fungible; like kube-proxy we take
				// the first.
				a, err := address(e.Addresses[0])
				if err == nil && a.Is6() != ipv6 {
					err = fmt.Errorf("%q does not fit addressType %s", e.Addresses[0], slice.AddressType)
				}
				if err != nil {
					m.problem("EndpointSlice", name, "endpoint %v", err)
					continue
				}
				b := bpf.Backend{Addr: netip.AddrPortFrom(a, uint16(*p.Port))}
				switch {
				case value(e.Conditions.Ready, true):
					ready[b] = true
				case value(e.Conditions.Serving, true) && value(e.Conditions.Terminating, false):
					terminating[b] = true
				}
			}
		}
	}
	if len(ready) == 0 {
		ready = terminating
	}
	out := make([]bpf.Backend, 0, len(ready))
	for b := range ready {
		out = append(out, b)
	}
	return out
}

// address parses an address that traffic may be sent to. An address that means
// "this host", "this link" or "everybody" is another machine's on every node, so
// that nobody can say what would be reached.
func address(s string) (netip.Addr, error) {
	a, err := netip.ParseAddr(s)
	if err != nil || a.Zone() != "" {
		return netip.Addr{}, fmt.Errorf("%q is no IP address", s)
	}
	a = a.Unmap()
	switch {
	case a.IsUnspecified():
		return a, fmt.Errorf("%q is refused: it is the unspecified address", s)
	case a.IsLoopback():
		return a, fmt.Errorf("%q is refused: it is a loopback address", s)
	case a.IsLinkLocalUnicast():
		return a, fmt.Errorf("%q is refused: it is a link-local address", s)
	case a.IsMulticast(), a == netip.AddrFrom4([4]byte{255, 255, 255, 255}):
		return a, fmt.Errorf("%q is refused: it is a multicast or broadcast address", s)
	}
	return a, nil
}

func protocol(p corev1.Protocol) (bpf.Protocol, error) {
	switch p {
	case corev1.ProtocolTCP, "":
		return bpf.TCP, nil
	case corev1.ProtocolUDP:
		return bpf.UDP, nil
	}
	return 0, fmt.Errorf("protocol %q is not balanced (TCP and UDP are)", string(p))
}

func portName(name string, i int) string {
	if name == "" {
		return fmt.Sprintf("#%d", i+1)
	}
	return fmt.Sprintf("%q", name)
}

func value[T any](p *T, absent T) T {
	if p == nil {
		return absent
	}
	return *p
}

// order sorts what is a set, so that equal services are equal.
func order(s *bpf.Service) {
	slices.SortFunc(s.Frontends, compareFrontend)
	slices.SortFunc(s.Backends, compareBackend)
}

func compareFrontend(a, b bpf.Frontend) int {
	return cmp.Or(a.Addr.Compare(b.Addr), cmp.Compare(a.Protocol, b.Protocol))
}

func compareBackend(a, b bpf.Backend) int { return a.Addr.Compare(b.Addr) }
