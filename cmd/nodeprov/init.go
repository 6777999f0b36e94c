package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/nodeprov/nodeprov/internal/cli"
	"github.com/nodeprov/nodeprov/provision"
)

func (a *app) initCommand() *cobra.Command {
	roles := provision.StarterRoles()
	var role string
	var force bool
	c := &cobra.Command{
		Use:   "init [FILE]",
		Short: "Write a starter profile for this host",
		Long: `Writes a commented profile that fits this host: what is good for every node and what
its kernel and devices can do. What needs a decision, and what it cannot do, is in it
as a comment. It changes nothing else. "-" is standard output.`,
		Example: `  nodeprov init
  nodeprov init --role server k3s.hcl
  nodeprov init - | less`,
		Args:              oneFile,
		ValidArgsFunction: completeFile,
	}
	c.Flags().StringVar(&role, "role", roles[0], "what the host shall be: "+strings.Join(roles, ", "))
	c.Flags().BoolVar(&force, "force", false, "replace a FILE that exists")
	_ = c.RegisterFlagCompletionFunc("role", cobra.FixedCompletions(roles, cobra.ShellCompDirectiveNoFileComp))
	c.RunE = func(c *cobra.Command, args []string) error {
		if !slices.Contains(roles, role) {
			return cli.Usage(fmt.Errorf("--role %q: no such role (%s)", role, strings.Join(roles, ", ")))
		}
		e, err := a.live("init")
		if err != nil {
			return err
		}
		name := a.path(args)
		// Before the work, as nobody wants to wait for that.
		if _, err := os.Lstat(name); name != "-" && !force && !errors.Is(err, fs.ErrNotExist) {
			if err == nil {
				err = errors.New("it exists already, and stays as it is (name another file, or say --force to replace it)")
			}
			return fmt.Errorf("init %s: %w", name, err)
		}
		f, err := e.Host.Facts(c.Context())
		if err != nil {
			return err
		}
		text, err := e.Starter(c.Context(), f, role)
		if err != nil {
			return err
		}
		if err := a.writeNew(name, text, force); err != nil {
			return err
		}
		if name != "-" {
			fmt.Fprintf(a.stdout, "Wrote %s. Read it, then see what it would change: nodeprov plan %s\n", name, name)
		}
		return nil
	}
	return c
}
