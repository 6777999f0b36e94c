package main

import (
	"strings"
	"testing"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

// Every flag that takes a value has a completion, and every verb says what it
// completes.
func TestCompletion(t *testing.T) {
	var walk func(c *cobra.Command)
	walk = func(c *cobra.Command) {
		if c.Name() == "help" || c.Name() == "completion" {
			return
		}
		c.LocalFlags().VisitAll(func(f *pflag.Flag) {
			_, registered := c.GetFlagCompletionFunc(f.Name)
			if f.Value.Type() != "bool" && !registered && f.Annotations == nil {
				t.Errorf("%s --%s: no completion", c.CommandPath(), f.Name)
			}
			takesFile := strings.Contains(f.Name, "file") || f.Name == "out"
			if takesFile && f.Annotations == nil && !c.Hidden {
				t.Errorf("%s --%s: completes no files", c.CommandPath(), f.Name)
			}
		})
		for _, sub := range c.Commands() {
			walk(sub)
		}
	}
	walk((&app{}).command())
}

// Every verb has help with an example.
func TestHelp(t *testing.T) {
	var walk func(c *cobra.Command)
	walk = func(c *cobra.Command) {
		if c.Name() == "help" || c.Name() == "completion" || c.Hidden {
			return
		}
		if c.Short == "" || c.Example == "" || strings.HasSuffix(c.Short, ".") {
			t.Errorf("%s: short %q, example %q", c.CommandPath(), c.Short, c.Example)
		}
		for _, sub := range c.Commands() {
			walk(sub)
		}
	}
	walk((&app{}).command())
}
