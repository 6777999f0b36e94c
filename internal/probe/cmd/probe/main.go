// Command probe is described in internal/probe.
package main

import (
	"os"

	"github.com/nodeprov/nodeprov/internal/probe"
)

func main() { os.Exit(probe.Run(os.Args[1:], os.Stdout, os.Stderr)) }
