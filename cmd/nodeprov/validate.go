package main

import (
	"fmt"

	"github.com/spf13/cobra"

	"github.com/nodeprov/nodeprov/provision"
	"github.com/nodeprov/nodeprov/provision/profile"
)

func (a *app) validateCommand() *cobra.Command {
	var v varFlags
	c := &cobra.Command{
		Use:   "validate [FILE]",
		Short: "Check a profile, without a machine",
		Long: `Checks a profile and prints everything that is wrong with it. Facts of the host
are unknown: what follows from them is checked by plan, on the machine. "-" is
standard input.`,
		Example: `  nodeprov validate profile.hcl
  nodeprov validate --var role=agent -o json profile.hcl
  nodeprov validate --root /mnt/image`,
		Args:              oneFile,
		ValidArgsFunction: completeFile,
	}
	v.add(c)
	output := outputFlag(c)
	c.RunE = func(_ *cobra.Command, args []string) error {
		asJSON, err := output()
		if err != nil {
			return err
		}
		in, err := a.input(a.path(args), v)
		if err != nil {
			return err
		}
		in.wanted(&provision.Engine{Kinds: provision.Kinds()}, nil, provision.PhaseAll)
		if asJSON {
			bad := in.diags.HasErrors()
			if err := a.printJSON(profile.JSON(in.files(), in.diags)); err != nil {
				return err
			}
			if bad {
				return &codeError{code: exitError}
			}
			return nil
		}
		if err := a.diagnose(in, false); err != nil {
			return err
		}
		_, err = fmt.Fprintf(a.stdout, "%s is valid.\n", in.src.Name)
		return err
	}
	return c
}
