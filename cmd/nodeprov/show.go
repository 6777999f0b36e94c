package main

import (
	"fmt"
	"strconv"

	"github.com/spf13/cobra"

	"github.com/nodeprov/nodeprov/internal/cli"
	"github.com/nodeprov/nodeprov/provision"
)

func (a *app) showCommand() *cobra.Command {
	var all bool
	c := &cobra.Command{
		Use:   "show [GENERATION]",
		Short: "Show what a generation asked for",
		Long: `Shows what the generation in force asked for, or the one named: when, from which
profile, and where the machine has something else now. It needs no profile.`,
		Example: `  nodeprov show
  nodeprov show 3
  nodeprov show --all                                  # the generations, one a line
  nodeprov show -o json | jq '.settings[] | select(.same | not)'`,
		Args: func(c *cobra.Command, args []string) error {
			if len(args) > 1 || all && len(args) > 0 {
				return cli.Usage(fmt.Errorf("show takes one GENERATION or --all, and has %q", args))
			}
			return nil
		},
		ValidArgsFunction: cobra.NoFileCompletions,
	}
	output := outputFlag(c)
	c.Flags().BoolVar(&all, "all", false, "the generations, one a line")
	c.RunE = func(c *cobra.Command, args []string) error {
		asJSON, err := output()
		if err != nil {
			return err
		}
		var generation *int
		if len(args) == 1 {
			n, err := strconv.Atoi(args[0])
			if err != nil {
				return cli.Usage(fmt.Errorf("show: %q is no GENERATION (nodeprov show --all lists them)", args[0]))
			}
			generation = &n
		}
		e, err := a.engine("show")
		if err != nil {
			return err
		}
		if all {
			hs, err := e.Generations()
			switch {
			case err != nil:
				return err
			case asJSON:
				return a.printJSON(map[string]any{"format": 1, "generations": hs})
			}
			return provision.WriteGenerations(a.stdout, hs)
		}
		s, err := e.Show(c.Context(), generation)
		if err != nil {
			return err
		}
		return a.show(s, asJSON, false)
	}
	return c
}
