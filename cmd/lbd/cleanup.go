package main

import (
	"errors"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/nodeprov/nodeprov/bpf"
	"github.com/nodeprov/nodeprov/internal/cli"
)

func cleanupCommand(e env) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "cleanup",
		Short: "Detach and unpin everything of lbd's, and nothing else",
		Long: `Detach lbd's programs and remove its pins, and print what was removed. From then on
no service is served. It refuses to while a daemon runs.`,
		Example: `  systemctl stop lbd && lbd cleanup
  lbd cleanup --bpffs /run/test/bpf`,
		Args: cli.NoArgs,
	}
	conf := settings(e, cmd, "bpffs")
	cmd.RunE = func(*cobra.Command, []string) error {
		c, err := conf()
		if err != nil {
			return err
		}
		removed, err := bpf.Cleanup(c.BPFFS)
		for _, path := range removed {
			if _, werr := fmt.Fprintf(e.stdout, "removed %s\n", path); werr != nil {
				return errors.Join(err, werr)
			}
		}
		if err == nil && len(removed) == 0 {
			_, err = fmt.Fprintf(e.stdout, "nothing is pinned in %s/lbd\n", c.BPFFS)
		}
		return err
	}
	return cmd
}
