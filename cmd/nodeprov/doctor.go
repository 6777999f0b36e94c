package main

import (
	"github.com/spf13/cobra"

	"github.com/nodeprov/nodeprov/internal/cli"
	"github.com/nodeprov/nodeprov/provision"
)

func (a *app) doctorCommand() *cobra.Command {
	c := &cobra.Command{
		Use:   "doctor",
		Short: "Show what this host can do, what it does, and what to do about it",
		Long: `Goes through the list of what makes a Kubernetes node's network fast. For each item:
whether kernel, devices, hypervisor and this version of nodeprov allow it; whether it
is on, whoever did that; why not; and what to write in a profile. It reads only.`,
		Example: `  nodeprov doctor
  nodeprov doctor -o json | jq -r '.[] | select(.possible == "yes" and .on != "yes") | .do'`,
		Args:              cli.NoArgs,
		ValidArgsFunction: cobra.NoFileCompletions,
	}
	output := outputFlag(c)
	c.RunE = func(c *cobra.Command, _ []string) error {
		asJSON, err := output()
		if err != nil {
			return err
		}
		e, err := a.live("doctor")
		if err != nil {
			return err
		}
		f, err := e.Host.Facts(c.Context())
		if err != nil {
			return err
		}
		return a.show(provision.Doctor(c.Context(), e.Host, f, e.Kinds), asJSON, false)
	}
	return c
}
