// Package k3s holds the facts of a K3s installation that other parts of the
// project need. It is a leaf: it imports nothing of the project.
package k3s

// Units returns the systemd units of K3s, server and agent, as its own installer
// names them.
func Units() []string { return []string{"k3s.service", "k3s-agent.service"} }
