package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"slices"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/nodeprov/nodeprov/bpf"
	"github.com/nodeprov/nodeprov/internal/cli"
	"github.com/nodeprov/nodeprov/lbd"
	"github.com/nodeprov/nodeprov/lbd/config"
)

// statusPoll is how often `status --wait` looks again.
const statusPoll = 100 * time.Millisecond

func statusCommand(e env) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "status",
		Short: "Show how the daemon stands, or what serves without it",
		Long: `Show how the daemon stands: its source of services, its hooks, how much it serves,
and what is wrong. Without a daemon, show what its pins go on serving.

It exits with 0 when lbd runs, all hooks are attached, all services are read and
none was refused, and with 1 otherwise.`,
		Example: `  lbd status
  lbd status --verbose
  lbd status --wait 60s    # wait until it is healthy; say what is missing if it is not
  lbd status -o json | jq .missing`,
		Args: cli.NoArgs,
	}
	verbose := cmd.Flags().BoolP("verbose", "v", false, "show every hook, map and problem")
	wait := cmd.Flags().Duration("wait", 0, "wait for this long until it is healthy, such as 60s")
	asJSON := output(cmd)
	conf := settings(e, cmd, "bpffs", "run_dir")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		inJSON, err := asJSON()
		if err != nil {
			return err
		}
		if *wait < 0 {
			return cli.Usage(fmt.Errorf("--wait %s: it is negative", *wait))
		}
		c, err := conf()
		if err != nil {
			return err
		}
		st, err := await(cmd.Context(), c, *wait)
		if err != nil {
			return err
		}
		if inJSON {
			err = writeJSON(e.stdout, st)
		} else {
			err = writeStatus(e.stdout, st, *verbose)
		}
		if err == nil && !st.Healthy {
			err = &quietError{"not healthy"}
		}
		return err
	}
	return cmd
}

// await returns the status as soon as it is healthy, or as it is after d.
func await(ctx context.Context, c config.Config, d time.Duration) (lbd.Status, error) {
	deadline := time.After(d)
	tick := time.NewTicker(statusPoll)
	defer tick.Stop()
	for {
		st, err := query(ctx, c)
		if err != nil || st.Healthy || d == 0 {
			return st, err
		}
		select {
		case <-tick.C:
		case <-deadline:
			return st, nil
		case <-ctx.Done():
			return st, ctx.Err()
		}
	}
}

// query asks the daemon or, where there is none, its pins.
func query(ctx context.Context, c config.Config) (lbd.Status, error) {
	st, err := lbd.Query(ctx, c.RunDir)
	if !errors.Is(err, lbd.ErrNotRunning) {
		return st, err
	}
	dp, err := bpf.OpenReadOnly(c.BPFFS)
	if errors.Is(err, fs.ErrNotExist) {
		return lbd.Status{BPFFS: c.BPFFS, Hooks: []bpf.Hook{}, Missing: []string{"lbd is not running", "there are no pins in " + c.BPFFS + "/lbd"}}, nil
	}
	if err != nil {
		return lbd.Status{}, err
	}
	defer dp.Close()
	return lbd.PinStatus(c.BPFFS, dp)
}

func writeJSON(w io.Writer, v any) error {
	enc := json.NewEncoder(w)
	enc.SetIndent("", "  ")
	return enc.Encode(v)
}

func writeStatus(out io.Writer, st lbd.Status, verbose bool) error {
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	attached := 0
	for _, h := range st.Hooks {
		if h.Attached {
			attached++
		}
	}
	switch {
	case st.Running:
		fmt.Fprintf(w, "lbd\t%s, pid %d, up %s, node %s\n", st.Version, st.PID, time.Since(st.Started).Round(time.Second), st.Node)
		fmt.Fprintf(w, "Source\t%s\n", st.Source)
	case len(st.Hooks) > 0:
		fmt.Fprintf(w, "lbd\tnot running; its pins in %s/lbd go on serving (start it: systemctl start lbd)\n", st.BPFFS)
	default:
		fmt.Fprintf(w, "lbd\tnot running, and nothing is pinned in %s/lbd (start it: systemctl start lbd)\n", st.BPFFS)
	}
	if st.Running || len(st.Hooks) > 0 {
		fmt.Fprintf(w, "Services\t%d, with %d backends\n", st.Services, st.Backends)
		cgroup := ""
		if st.Cgroup != "" {
			cgroup = " to " + st.Cgroup
		}
		fmt.Fprintf(w, "Hooks\t%d of %d attached%s\n", attached, len(st.Hooks), cgroup)
	}
	if verbose {
		for _, h := range st.Hooks {
			state := "attached, "
			if !h.Attached {
				state = "NOT ATTACHED: "
			}
			fmt.Fprintf(w, "  %s\t%s%s\n", h.Name, state, h.Detail)
		}
		if len(st.Maps) > 0 {
			fmt.Fprintf(w, "Maps\t\n")
		}
		for _, m := range st.Maps {
			fmt.Fprintf(w, "  %s\t%d of %d\n", m.Name, m.Entries, m.Max)
		}
		if len(st.Counters) > 0 {
			fmt.Fprintf(w, "Counters\t\n")
		}
		for _, name := range slices.Sorted(maps.Keys(st.Counters)) {
			fmt.Fprintf(w, "  %s\t%d\n", name, st.Counters[name])
		}
	}
	if len(st.Problems) > 0 {
		fmt.Fprintf(w, "Problems\t%d\n", len(st.Problems))
		for i, p := range st.Problems {
			if i == 5 && !verbose {
				fmt.Fprintf(w, "  … (all with --verbose)\n")
				break
			}
			fmt.Fprintf(w, "  %s\n", p)
		}
	}
	if st.Healthy {
		fmt.Fprintf(w, "Healthy\tyes\n")
	} else {
		fmt.Fprintf(w, "Healthy\tno\n")
		for i, m := range st.Missing {
			if i == 5 && !verbose {
				fmt.Fprintf(w, "  … (all with --verbose)\n")
				break
			}
			fmt.Fprintf(w, "  %s\n", m)
		}
	}
	return w.Flush()
}
