package main

import (
	"errors"
	"fmt"
	"path/filepath"
	"strings"

	"github.com/google/renameio/v2"
	"github.com/spf13/cobra"

	"github.com/nodeprov/nodeprov/internal/cli"
	"github.com/nodeprov/nodeprov/profiles"
	"github.com/nodeprov/nodeprov/provision"
)

func (a *app) planCommand() *cobra.Command {
	var v varFlags
	var detailed, all bool
	var out string
	c := &cobra.Command{
		Use:   "plan [FILE]",
		Short: "Show what apply would change, and change nothing",
		Long: `Reads the machine and shows what apply would change, value by value:

    ~ change   + create   - remove   < restore what was there before nodeprov
    ! not possible here   o the same, and the profile says that this is fine
    . left to a later run, or to the boot of an image

With --out the plan is kept in a file, and "apply FILE" does exactly that: it refuses
where the profile, the host, the generation or a value has changed since. The file
holds no secret: sensitive variables have to be given again.`,
		Example: `  nodeprov plan
  nodeprov plan --detailed-exitcode profile.hcl   # exit 2 if something would change
  nodeprov plan --out next.plan && nodeprov apply next.plan
  nodeprov plan -o json | jq '.changes[] | select(.action == "set") | .key'`,
		Args:              oneFile,
		ValidArgsFunction: completeFile,
	}
	v.add(c)
	output, phase := outputFlag(c), phaseFlag(c)
	c.Flags().BoolVar(&detailed, "detailed-exitcode", false, "exit 2 if there are changes")
	c.Flags().StringVar(&out, "out", "", "file to keep the plan in, for apply")
	_ = c.MarkFlagFilename("out")
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
		e, err := a.engine("plan")
		if err != nil {
			return err
		}
		name := a.path(args)
		if c.Flags().Changed("out") && (out == "" || name == "-" || ph != provision.PhaseAll || a.root != "") {
			return cli.Usage(errors.New("--out needs a file's name, and a whole profile in a file, of this machine (no standard input, --phase or --root)"))
		}
		if out != "" && !strings.HasPrefix(name, profiles.Scheme) {
			// An apply of the plan finds the profile from any directory.
			if name, err = filepath.Abs(name); err != nil {
				return fmt.Errorf("plan: %w", err)
			}
		}
		in, err := a.input(name, v)
		if err != nil {
			return err
		}
		f, err := facts(c.Context(), e)
		if err != nil {
			return err
		}
		ws := in.wanted(e, f, ph)
		if err := a.diagnose(in, asJSON); err != nil {
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
		if out != "" && s.Bad() == 0 {
			text, err := e.Save(p, in.profile.Sources, in.vars, in.profile.Sensitive, f)
			if err != nil {
				return err
			}
			if err := renameio.WriteFile(out, text, 0o600, renameio.WithStaticPermissions(0o600)); err != nil {
				return fmt.Errorf("plan: %w", err)
			}
		}
		switch {
		case s.Bad() > 0 && out != "":
			return &codeError{exitError, fmt.Errorf("plan: %d of the settings cannot be applied here; %s was not written", s.Bad(), out)}
		case s.Bad() > 0:
			return &codeError{exitError, fmt.Errorf("plan: %d of the settings cannot be applied here", s.Bad())}
		case detailed && s.Due() > 0:
			return &codeError{code: exitDiffers}
		}
		return nil
	}
	return c
}
