package bpf

import (
	"fmt"
	"net/netip"
)

// Protocol is an IP protocol number.
type Protocol uint8

// The protocols that are balanced.
const (
	TCP Protocol = 6
	UDP Protocol = 17
)

// String returns "TCP", "UDP" or the number.
func (p Protocol) String() string {
	switch p {
	case TCP:
		return "TCP"
	case UDP:
		return "UDP"
	}
	return fmt.Sprintf("protocol %d", uint8(p))
}

// MarshalText is String, for JSON.
func (p Protocol) MarshalText() ([]byte, error) { return []byte(p.String()), nil }

// UnmarshalText reads what MarshalText wrote.
func (p *Protocol) UnmarshalText(b []byte) error {
	switch string(b) {
	case "TCP":
		*p = TCP
	case "UDP":
		*p = UDP
	default:
		var n uint8
		if _, err := fmt.Sscanf(string(b), "protocol %d", &n); err != nil {
			return fmt.Errorf("protocol %q: unknown (TCP and UDP are known)", b)
		}
		*p = Protocol(n)
	}
	return nil
}

// Key names a backend set: a port of a Kubernetes Service in one IP family.
type Key struct {
	// Service is "namespace/name:port", without ":port" for a port that has no
	// name.
	Service string `json:"service"`
	// IPv6 is the family of all frontends and backends.
	IPv6 bool `json:"ipv6,omitempty"`
}

func (k Key) String() string {
	if k.IPv6 {
		return k.Service + " (IPv6)"
	}
	return k.Service
}

// Frontend is an address that clients connect to. IPv4-mapped IPv6 addresses
// are IPv4 addresses.
type Frontend struct {
	Addr     netip.AddrPort `json:"addr"`
	Protocol Protocol       `json:"protocol"`
}

func (f Frontend) String() string { return f.Addr.String() + "/" + f.Protocol.String() }

// Backend is an address that serves.
type Backend struct {
	Addr netip.AddrPort `json:"addr"`
}

// Service is one backend set with the frontends that lead to it. Without
// backends its frontends refuse connections.
type Service struct {
	Key
	// ID is the datapath's number for the Key, 1 or more. It is stable for as
	// long as the Key is there, over restarts too. Ignored by Apply.
	ID        uint32     `json:"id"`
	Frontends []Frontend `json:"frontends"`
	Backends  []Backend  `json:"backends"`
}

// MaxBackends is the largest number of backends of one service: the count is
// 16 bits of the element that is flipped at once.
const MaxBackends = 1<<16 - 1

// Batch is a set of changes to the table of services.
type Batch struct {
	// Set makes each service be exactly as given, whether it was there or not.
	Set []Service
	// Delete removes services; a Key that is not there is no error.
	Delete []Key
}

// ServiceError says why one service of a Batch was refused. What was there of
// it before is unchanged.
type ServiceError struct {
	Key Key
	Err error
}

func (e *ServiceError) Error() string { return fmt.Sprintf("service %s: %v", e.Key, e.Err) }
func (e *ServiceError) Unwrap() error { return e.Err }
