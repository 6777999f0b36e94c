package main

import (
	"errors"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/nodeprov/nodeprov/internal/cli"
	"github.com/nodeprov/nodeprov/provision"
)

func (a *app) rollbackCommand() *cobra.Command {
	var to int
	var expired bool
	c := &cobra.Command{
		Use:   "rollback",
		Short: "Restore what was there before",
		Long: `Restores, byte for byte, the values that the last generation has overwritten, or
all that came after the generation named with --to. A generation is a change of
profile; 0 is the machine without nodeprov. It may be killed and repeated.

Values that a reboot resets go back to what they were when this boot began, not
to what an earlier boot had.`,
		Example: `  nodeprov rollback
  nodeprov rollback --to 0   # as before nodeprov
  nodeprov show --all        # the generations`,
		Args: cli.NoArgs,
	}
	output := outputFlag(c)
	c.Flags().BoolVar(&expired, "try-expired", false, "what the timer of apply --try runs: only if it was not confirmed")
	_ = c.Flags().MarkHidden("try-expired")
	c.Flags().IntVar(&to, "to", 0, "generation to have in force afterwards (default the one before the last)")
	c.RunE = func(c *cobra.Command, _ []string) error {
		asJSON, err := output()
		if err != nil {
			return err
		}
		e, err := a.engine("rollback")
		if err != nil {
			return err
		}
		var o provision.RollbackOptions
		if c.Flags().Changed("to") {
			o.To = &to
		}
		if !asJSON {
			o.Progress = func(o provision.Outcome) { _ = o.Write(a.stdout, a.text()) }
		}
		outlastReader()
		if expired {
			r, err := e.ExpireTry(c.Context(), to, o.Progress)
			if r == nil {
				if err == nil {
					fmt.Fprintln(a.stdout, "Nothing to revert: it was confirmed, or rolled back.")
				}
				return err
			}
			return errors.Join(err, r.WriteSummary(a.stdout, a.text()))
		}
		// Only for the words below: a report that cannot be read must not keep
		// values from being restored.
		before, _ := e.Status(c.Context())
		r, err := e.Rollback(c.Context(), o)
		if r == nil {
			return err
		}
		var perr error
		switch {
		case asJSON:
			perr = a.printJSON(r)
		case err == nil && before != nil && r.Generation == before.Generation && len(r.Applied) == 0:
			_, perr = fmt.Fprintf(a.stdout, "Nothing to roll back (generation %d).\n", r.Generation)
		default:
			perr = r.WriteSummary(a.stdout, a.text())
			if err == nil {
				fmt.Fprintln(a.stdout, "The profile is applied again at the next boot or apply; change or remove it to keep this.")
			}
		}
		if err == nil {
			err = unprinted(perr)
		}
		return err
	}
	return c
}
