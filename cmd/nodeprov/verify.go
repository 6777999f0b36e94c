package main

import (
	"fmt"

	"github.com/spf13/cobra"

	"github.com/nodeprov/nodeprov/provision"
)

func (a *app) verifyCommand() *cobra.Command {
	var v varFlags
	var all, noChecks bool
	c := &cobra.Command{
		Use:   "verify [FILE]",
		Short: "Compare this machine with a profile",
		Long: `Reads everything back that the profile asks for, and compares; and runs the
profile's checks. What the host cannot have, and the profile says that this is fine, is
told and is no drift. Exit codes: 0 all is so; 1 something cannot be told; 2
something has drifted, or a check has failed.`,
		Example: `  nodeprov verify
  nodeprov verify --all             # with what is right, too
  nodeprov verify -o json | jq '.drifted[].key'`,
		Args:              oneFile,
		ValidArgsFunction: completeFile,
	}
	v.add(c)
	output := outputFlag(c)
	c.Flags().BoolVar(&noChecks, "no-checks", false, "do not run the profile's checks")
	c.Flags().BoolVar(&all, "all", false, "show the settings that are right, too")
	c.RunE = func(c *cobra.Command, args []string) error {
		asJSON, err := output()
		if err != nil {
			return err
		}
		e, err := a.engine("verify")
		if err != nil {
			return err
		}
		in, ws, err := a.desired(c.Context(), e, args, v, provision.PhaseAll, asJSON)
		if err != nil {
			return err
		}
		var checks []provision.Check
		if !noChecks {
			checks, in.diags = e.Checks(in.profile)
			if err := a.diagnose(in, asJSON); err != nil {
				return err
			}
		}
		res, diags, err := e.Verify(c.Context(), ws, checks)
		if err != nil {
			return err
		}
		in.diags = diags
		if err := a.diagnose(in, asJSON); err != nil {
			return err
		}
		err = a.show(res, asJSON, all)
		switch {
		case err != nil:
			return err
		case len(res.Failed) > 0:
			return &codeError{exitError, fmt.Errorf("verify: %d settings cannot be told", len(res.Failed))}
		case !res.Good():
			return &codeError{code: exitDiffers}
		}
		return nil
	}
	return c
}
