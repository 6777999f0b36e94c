// Package provision is nodeprov's engine: it turns an evaluated profile into
// settings, compares them with the host, journals what is there, writes, reads
// back, and can go back. Each kind of setting has a file of its own; Kinds is
// their table.
package provision
