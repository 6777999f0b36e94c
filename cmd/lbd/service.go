package main

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"strings"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"github.com/nodeprov/nodeprov/bpf"
	"github.com/nodeprov/nodeprov/internal/cli"
)

func serviceCommand(e env) *cobra.Command {
	cmd := &cobra.Command{
		Use:     "service",
		Short:   "Show services",
		Example: "  lbd service list",
		Args:    cli.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			return cli.Usage(errors.New("service: a verb is missing (list)"))
		},
	}
	cmd.AddCommand(serviceListCommand(e))
	return cmd
}

func serviceListCommand(e env) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "list",
		Short: "List what the kernel serves, whether the daemon runs or not",
		Example: `  lbd service list
  lbd service list -o json | jq '.[] | select(.backends == [])'`,
		Args: cli.NoArgs,
	}
	asJSON := output(cmd)
	conf := settings(e, cmd, "bpffs")
	cmd.RunE = func(*cobra.Command, []string) error {
		inJSON, err := asJSON()
		if err != nil {
			return err
		}
		c, err := conf()
		if err != nil {
			return err
		}
		dp, err := bpf.OpenReadOnly(c.BPFFS)
		if errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("nothing is pinned in %s/lbd (start lbd, or name its bpffs with --bpffs)", c.BPFFS)
		}
		if err != nil {
			return err
		}
		defer dp.Close()
		services, err := dp.Services()
		if err != nil {
			return err
		}
		if inJSON {
			return writeJSON(e.stdout, orEmpty(services))
		}
		return writeServices(e.stdout, services)
	}
	return cmd
}

// orEmpty gives every list in JSON as a list, never as null.
func orEmpty(services []bpf.Service) []bpf.Service {
	out := make([]bpf.Service, len(services))
	for i, s := range services {
		s.Frontends = append([]bpf.Frontend{}, s.Frontends...)
		s.Backends = append([]bpf.Backend{}, s.Backends...)
		out[i] = s
	}
	return out
}

func writeServices(out io.Writer, services []bpf.Service) error {
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "SERVICE\tFRONTEND\tPROTO\tBACKENDS")
	for _, s := range services {
		backends := make([]string, len(s.Backends))
		for i, b := range s.Backends {
			backends[i] = b.Addr.String()
		}
		if len(backends) == 0 {
			backends = []string{"- (refused)"}
		}
		for _, f := range s.Frontends {
			fmt.Fprintf(w, "%s\t%s\t%s\t%s\n", s.Service, f.Addr, f.Protocol, strings.Join(backends, " "))
		}
	}
	return w.Flush()
}
