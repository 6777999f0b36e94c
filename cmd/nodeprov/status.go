package main

import (
	"github.com/spf13/cobra"

	"github.com/nodeprov/nodeprov/internal/cli"
)

func (a *app) statusCommand() *cobra.Command {
	c := &cobra.Command{
		Use:   "status",
		Short: "Show the last apply, and what has changed since",
		Long: `Shows how the last apply or rollback ended, the generation in force, and the
applied values that are different now; what is only tried, needs a reboot or is
tolerated; and what nodeprov-watch does. It needs no profile. The exit code is 0 whatever
the state is.`,
		Example: `  nodeprov status
  nodeprov status -o json | jq -r .state`,
		Args: cli.NoArgs,
	}
	output := outputFlag(c)
	c.RunE = func(c *cobra.Command, _ []string) error {
		asJSON, err := output()
		if err != nil {
			return err
		}
		e, err := a.engine("status")
		if err != nil {
			return err
		}
		s, err := e.Status(c.Context())
		if err != nil {
			return err
		}
		if asJSON {
			return a.printJSON(s)
		}
		return s.Write(a.stdout, a.text())
	}
	return c
}
