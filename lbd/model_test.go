package lbd

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"

	"github.com/nodeprov/nodeprov/bpf"
)

// text renders services as one line each.
func text(services []bpf.Service) string {
	var b strings.Builder
	for _, s := range services {
		var fs, bs []string
		for _, f := range s.Frontends {
			fs = append(fs, f.String())
		}
		for _, x := range s.Backends {
			bs = append(bs, x.Addr.String())
		}
		fmt.Fprintf(&b, "%s: %s -> %s\n", s.Key, strings.Join(fs, ","), strings.Join(bs, ","))
	}
	return b.String()
}

// objects parses manifests.
func objects(t testing.TB, yaml string) (services []*corev1.Service, endpoints []*discoveryv1.EndpointSlice) {
	t.Helper()
	os, err := parseManifest("test.yaml", []byte(yaml))
	if err != nil {
		t.Fatal(err)
	}
	for _, o := range os {
		if o.service != nil {
			services = append(services, o.service)
		} else {
			endpoints = append(endpoints, o.slice)
		}
	}
	return services, endpoints
}

// web is a service with a port; slice is a slice of it.
func web(spec string) string {
	return "apiVersion: v1\nkind: Service\nmetadata: {name: web}\nspec: " + spec + "\n"
}

func slice(name, family, ports, endpoints string) string {
	return fmt.Sprintf("---\napiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\nmetadata: {name: %s, labels: {kubernetes.io/service-name: web}}\naddressType: %s\nports: %s\nendpoints: %s\n", name, family, ports, endpoints)
}

func TestServices(t *testing.T) {
	const one = `{clusterIP: 10.43.0.9, ports: [{port: 80}]}`
	for _, tc := range []struct{ name, yaml, want, problems string }{
		{"one", web(one) + slice("a", "IPv4", "[{port: 8080}]", "[{addresses: [10.42.0.2]}, {addresses: [10.42.0.1]}]"),
			"default/web: 10.43.0.9:80/TCP -> 10.42.0.1:8080,10.42.0.2:8080\n", ""},
		{"no slices", web(one), "default/web: 10.43.0.9:80/TCP -> \n", ""},
		{"both families", web(`{clusterIP: 10.43.0.9, clusterIPs: [10.43.0.9, "fd43::9"], ports: [{name: dns, port: 53, protocol: UDP}, {name: dns-tcp, port: 53}]}`) +
			slice("a", "IPv4", "[{name: dns, port: 5353, protocol: UDP}, {name: dns-tcp, port: 5354}]", "[{addresses: [10.42.0.1]}]") +
			slice("b", "IPv6", "[{name: dns, port: 5353, protocol: UDP}, {name: dns-tcp, port: 5354}]", `[{addresses: ["fd42::1"]}]`),
			`default/web:dns: 10.43.0.9:53/UDP -> 10.42.0.1:5353
default/web:dns (IPv6): [fd43::9]:53/UDP -> [fd42::1]:5353
default/web:dns-tcp: 10.43.0.9:53/TCP -> 10.42.0.1:5354
default/web:dns-tcp (IPv6): [fd43::9]:53/TCP -> [fd42::1]:5354
`, ""},
		{"slices merged, duplicates once, ports differ by slice", web(one) +
			slice("b", "IPv4", "[{port: 8081}]", "[{addresses: [10.42.0.3]}]") +
			slice("a", "IPv4", "[{port: 8080}]", "[{addresses: [10.42.0.1]}, {addresses: [10.42.0.2]}]") +
			slice("c", "IPv4", "[{port: 8080}]", "[{addresses: [10.42.0.1]}]"),
			"default/web: 10.43.0.9:80/TCP -> 10.42.0.1:8080,10.42.0.2:8080,10.42.0.3:8081\n", ""},
		{"ready, and unknown is ready", web(one) + slice("a", "IPv4", "[{port: 1}]", `[
			{addresses: [10.42.0.1], conditions: {ready: true}}, {addresses: [10.42.0.2], conditions: {}},
			{addresses: [10.42.0.3], conditions: {ready: false}}, {addresses: [10.42.0.4], conditions: {ready: false, serving: true, terminating: true}}]`),
			"default/web: 10.43.0.9:80/TCP -> 10.42.0.1:1,10.42.0.2:1\n", ""},
		{"terminating when none is ready", web(one) + slice("a", "IPv4", "[{port: 1}]", `[
			{addresses: [10.42.0.1], conditions: {ready: false, serving: false, terminating: true}},
			{addresses: [10.42.0.3], conditions: {ready: false, serving: true, terminating: false}}, {addresses: [10.42.0.4], conditions: {ready: false, serving: true, terminating: true}}]`),
			"default/web: 10.43.0.9:80/TCP -> 10.42.0.4:1\n", ""},
		{"unknown is serving", web(one) + slice("a", "IPv4", "[{port: 1}]", `[{addresses: [10.42.0.1], conditions: {ready: false, terminating: true}}, {addresses: [10.42.0.2], conditions: {ready: false}}]`),
			"default/web: 10.43.0.9:80/TCP -> 10.42.0.1:1\n", ""},
		{"each port decides for itself", web(`{clusterIP: 10.43.0.9, ports: [{name: a, port: 1}, {name: b, port: 2}]}`) +
			slice("a", "IPv4", "[{name: a, port: 1}]", "[{addresses: [10.42.0.1]}]") +
			slice("b", "IPv4", "[{name: b, port: 2}]", "[{addresses: [10.42.0.2], conditions: {ready: false, serving: true, terminating: true}}]"),
			"default/web:a: 10.43.0.9:1/TCP -> 10.42.0.1:1\ndefault/web:b: 10.43.0.9:2/TCP -> 10.42.0.2:2\n", ""},
		{"name and protocol must match", web(`{clusterIP: 10.43.0.9, ports: [{name: a, port: 1}]}`) +
			slice("a", "IPv4", "[{name: A, port: 1}, {port: 2}, {name: a, port: 3, protocol: UDP}, {name: a}]", "[{addresses: [10.42.0.1]}]"),
			"default/web:a: 10.43.0.9:1/TCP -> \n", ""},
		{"first address of an endpoint", web(one) + slice("a", "IPv4", "[{port: 1}]", "[{addresses: [10.42.0.1, 10.42.0.2]}, {addresses: []}]"),
			"default/web: 10.43.0.9:80/TCP -> 10.42.0.1:1\n", "EndpointSlice default/a: an endpoint has no address"},
		{"headless", web(`{clusterIP: None, ports: [{port: 80}]}`), "", ""},
		{"without an address yet", web(`{ports: [{port: 80}]}`), "", ""},
		{"ExternalName", web(`{type: ExternalName, externalName: x, clusterIP: 10.43.0.9, ports: [{port: 80}]}`), "", ""},
		{"NodePort has a ClusterIP", web(`{type: NodePort, clusterIP: 10.43.0.9, ports: [{port: 80, nodePort: 30080}]}`), "default/web: 10.43.0.9:80/TCP -> \n", ""},
		{"another's", strings.Replace(web(one), "{name: web}", `{name: web, labels: {service.kubernetes.io/service-proxy-name: x}}`, 1), "", ""},
		{"labelled headless", strings.Replace(web(one), "{name: web}", `{name: web, labels: {service.kubernetes.io/headless: ""}}`, 1), "", ""},
		{"mistakes of a service", web(`{clusterIP: 10.43.0.9, clusterIPs: [10.43.0.9, 010.0.0.1, "fe80::1", 127.0.0.1], ports: [{port: 0}, {name: s, port: 1, protocol: SCTP}, {name: u, port: 2, protocol: udp}, {name: x, port: 99999}, {name: ok, port: 5}, {name: ok, port: 6}, {name: again, port: 5}]}`),
			"default/web:ok: 10.43.0.9:5/TCP -> \n",
			`Service default/web: clusterIP "010.0.0.1" is no IP address
Service default/web: clusterIP "fe80::1" is refused: it is a link-local address
Service default/web: clusterIP "127.0.0.1" is refused: it is a loopback address
Service default/web: port #1: 0 is out of range (1 to 65535)
Service default/web: port "s": protocol "SCTP" is not balanced (TCP and UDP are)
Service default/web: port "u": protocol "udp" is not balanced (TCP and UDP are)
Service default/web: port "x": 99999 is out of range (1 to 65535)
Service default/web: port "ok": the name stands for an earlier port already (give each port its own)
Service default/web: port "again": 10.43.0.9:5/TCP is taken by an earlier port`},
		{"mistakes of a slice", web(one) + slice("a", "IPv4", "[{port: 8080}]", `[{addresses: ["fd42::1"]}, {addresses: [x]}, {addresses: [127.0.0.1]}, {addresses: [169.254.169.254]}, {addresses: [224.0.0.1]}, {addresses: [0.0.0.0]}, {addresses: [255.255.255.255]}, {addresses: ["fd42::1%eth0"]}, {addresses: ["::ffff:10.42.0.7"]}]`) +
			slice("b", "IPv4", "[{port: -1}]", `[{addresses: [10.42.0.1]}]`) + slice("c", "FQDN", "[{port: 1}]", "[{addresses: [example.org]}]"),
			"default/web: 10.43.0.9:80/TCP -> 10.42.0.7:8080\n",
			`EndpointSlice default/a: endpoint "fd42::1" does not fit addressType IPv4
EndpointSlice default/a: endpoint "x" is no IP address
EndpointSlice default/a: endpoint "127.0.0.1" is refused: it is a loopback address
EndpointSlice default/a: endpoint "169.254.169.254" is refused: it is a link-local address
EndpointSlice default/a: endpoint "224.0.0.1" is refused: it is a multicast or broadcast address
EndpointSlice default/a: endpoint "0.0.0.0" is refused: it is the unspecified address
EndpointSlice default/a: endpoint "255.255.255.255" is refused: it is a multicast or broadcast address
EndpointSlice default/a: endpoint "fd42::1%eth0" is no IP address
EndpointSlice default/b: port #1: -1 is out of range (1 to 65535)`},
	} {
		t.Run(tc.name, func(t *testing.T) {
			services, endpoints := objects(t, tc.yaml)
			got, problems := Services(services[0], endpoints)
			if d := cmp.Diff(tc.want, text(got)); d != "" {
				t.Error(d)
			}
			var lines []string
			for _, p := range problems {
				lines = append(lines, p.String())
			}
			if d := cmp.Diff(tc.problems, strings.Join(lines, "\n")); d != "" {
				t.Error(d)
			}
			slices.Reverse(endpoints)
			again, _ := Services(services[0], endpoints)
			if d := cmp.Diff(text(got), text(again)); d != "" {
				t.Errorf("the order of the slices matters: %s", d)
			}
		})
	}
	if s, p := Services(nil, nil); s != nil || p != nil {
		t.Error(s, p)
	}
}
