// Package cli is what the command lines of nodeprov and lbd have in common: how
// they refuse what is not a command line of theirs.
package cli

import (
	"errors"
	"fmt"
	"strings"

	"github.com/spf13/cobra"
)

// UsageError is a mistake in the command line.
type UsageError struct{ err error }

// Usage makes err a mistake in the command line.
func Usage(err error) error { return &UsageError{err} }

func (e *UsageError) Error() string { return e.err.Error() }
func (e *UsageError) Unwrap() error { return e.err }

// NoArgs refuses arguments. For a command that has others below it, it suggests
// the one that was meant.
func NoArgs(c *cobra.Command, args []string) error {
	switch {
	case len(args) == 0:
		return nil
	case c.HasAvailableSubCommands():
		c.SuggestionsMinimumDistance = 2
		text := fmt.Sprintf("%q is no command of %s", args[0], c.CommandPath())
		if s := c.SuggestionsFor(args[0]); len(s) > 0 {
			text += fmt.Sprintf(" (did you mean %q?)", s[0])
		}
		return Usage(errors.New(text))
	}
	return Usage(fmt.Errorf("%s takes no arguments, and has %q", c.Name(), args))
}

// Strict makes cobra's own verbs, help and completion, refuse what they do not
// know: they would print their help and succeed.
func Strict(root *cobra.Command) {
	root.InitDefaultHelpCmd()
	root.InitDefaultCompletionCmd()
	for _, c := range root.Commands() {
		switch c.Name() {
		case "help":
			c.Args = func(_ *cobra.Command, args []string) error {
				if found, rest, err := root.Find(args); err != nil || found == root && len(args) > 0 || len(rest) > 0 {
					return Usage(fmt.Errorf("help: there is no command %q", strings.Join(args, " ")))
				}
				return nil
			}
		case "completion":
			c.Args = cobra.ArbitraryArgs
			c.RunE = func(_ *cobra.Command, args []string) error {
				if len(args) > 0 {
					return Usage(fmt.Errorf("completion: %q is no shell that it knows (bash, zsh, fish or powershell)", args[0]))
				}
				return Usage(errors.New("completion: a shell is missing (bash, zsh, fish or powershell)"))
			}
			for _, shell := range c.Commands() {
				shell.Args = NoArgs
			}
		}
	}
}
