package main

import (
	"fmt"

	"github.com/spf13/cobra"
)

func (a *app) planCommand() *cobra.Command {
	var v varFlags
	var detailed, all bool
	c := &cobra.Command{
		Use:   "plan [FILE]",
		Short: "Show what apply would change, and change nothing",
		Long: `Reads the machine and shows what apply would change, value by value:

  ~ set   + create   - remove   < restore what was there before nodeprov
  ! not possible here           . left to a later run`,
		Example: `  nodeprov plan
  nodeprov plan --detailed-exitcode profile.hcl   # exit 2 if something would change
  nodeprov plan -o json | jq '.changes[] | select(.action == "set") | .key'`,
		Args:              oneFile,
		ValidArgsFunction: completeFile,
	}
	v.add(c)
	output, phase := outputFlag(c), phaseFlag(c)
	c.Flags().BoolVar(&detailed, "detailed-exitcode", false, "exit 2 if there are changes")
	c.Flags().BoolVar(&all, "all", false, "show the settings that are right already, too")
	c.RunE = func(c *cobra.Command, args []string) error {
		asJSON, err := output()
		if err != nil {
			return err
		}
		ph, err := phase()
		if err != nil {
			return err
		}
		e, err := a.live("plan")
		if err != nil {
			return err
		}
		in, ws, err := a.desired(c.Context(), e, args, v, ph, asJSON)
		if err != nil {
			return err
		}
		p, diags, err := e.Plan(c.Context(), ws, ph)
		if err != nil {
			return err
		}
		in.diags = diags
		if err := a.diagnose(in, asJSON); err != nil {
			return err
		}
		if err := a.show(p, asJSON, all); err != nil {
			return err
		}
		s := p.Summary()
		switch {
		case s.Bad() > 0:
			return &codeError{exitError, fmt.Errorf("plan: %d of the settings cannot be applied here", s.Bad())}
		case detailed && s.Due() > 0:
			return &codeError{code: exitDiffers}
		}
		return nil
	}
	return c
}
