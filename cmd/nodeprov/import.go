package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/google/renameio/v2"
	"github.com/spf13/cobra"

	"github.com/nodeprov/nodeprov/internal/cli"
	"github.com/nodeprov/nodeprov/provision"
	"github.com/nodeprov/nodeprov/provision/host"
)

func (a *app) importCommand() *cobra.Command {
	c := &cobra.Command{
		Use:   "import",
		Short: "Write a profile from what other tools are configured by",
		Long: `Reads what another tool is configured by, and prints a profile that says the same.
What a profile cannot say is in it as a comment, with the reason. It changes
nothing on this machine.`,
		Example: `  nodeprov import sysctl                  # all of this machine's sysctl.d
  nodeprov import tuned /usr/lib/tuned/network-latency
  nodeprov import live net.core.somaxconn vm.swappiness`,
		Args: cli.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			return cli.Usage(errors.New("import: say what from (sysctl, tuned or live)"))
		},
	}
	c.AddCommand(a.importSysctl(), a.importTuned(), a.importLive())
	return c
}

func (a *app) importSysctl() *cobra.Command {
	c := &cobra.Command{
		Use:   "sysctl [FILE|DIR...]",
		Short: "From files of sysctl.d",
		Long: `Reads files in the syntax of sysctl.d(5), a DIR standing for its *.conf. Without any,
those of the system are read, in the order of "sysctl --system". Of several values of
a key the last one is taken; the comment after it says where it comes from.`,
		Example: `  nodeprov import sysctl --out /etc/nodeprov/imported.hcl
  nodeprov import sysctl /etc/sysctl.d/90-kubernetes.conf`,
	}
	out := a.outFlag(c)
	c.RunE = func(_ *cobra.Command, args []string) error {
		return a.imported(*out, args, provision.ImportSysctl)
	}
	return c
}

func (a *app) importTuned() *cobra.Command {
	c := &cobra.Command{
		Use:   "tuned PROFILE-DIR|FILE",
		Short: "From a profile of tuned",
		Long: `Reads a profile of tuned, its directory or its tuned.conf, with the profiles that it
includes, and what its variables stand for.`,
		Example: `  nodeprov import tuned /usr/lib/tuned/cpu-partitioning
  nodeprov import tuned /etc/tuned/mine/tuned.conf --out mine.hcl`,
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) != 1 || args[0] == "" {
				return cli.Usage(fmt.Errorf("import tuned takes one directory or file, and has %q", args))
			}
			return nil
		},
	}
	out := a.outFlag(c)
	c.RunE = func(_ *cobra.Command, args []string) error {
		return a.imported(*out, args, func(h *host.Host, paths []string) (provision.Imported, error) {
			return provision.ImportTuned(h, paths[0])
		})
	}
	return c
}

func (a *app) importLive() *cobra.Command {
	c := &cobra.Command{
		Use:   "live KEY...",
		Short: "From the values that kernel keys have now",
		Example: `  nodeprov import live net.core.somaxconn net.ipv4.tcp_rmem
  sysctl -aN | grep ^net.ipv4.tcp_ | xargs nodeprov import live`,
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) == 0 {
				return cli.Usage(errors.New("import live: a KEY is missing"))
			}
			return nil
		},
		ValidArgsFunction: a.completeSysctl,
	}
	out := a.outFlag(c)
	c.RunE = func(_ *cobra.Command, args []string) error {
		h, err := host.New(host.Options{Root: a.root})
		if err != nil {
			return fmt.Errorf("host: %w", err)
		}
		im, err := provision.ImportLive(h, args)
		if err != nil {
			return err
		}
		return a.writeNew(*out, im.Text, false)
	}
	return c
}

func (a *app) outFlag(c *cobra.Command) *string {
	out := c.Flags().String("out", "", "write to this new file, not to standard output")
	_ = c.MarkFlagFilename("out", "hcl")
	return out
}

// completeSysctl completes a key of the running kernel, part by part.
func (a *app) completeSysctl(_ *cobra.Command, _ []string, begun string) ([]string, cobra.ShellCompDirective) {
	h, err := host.New(host.Options{Root: a.root})
	if err != nil {
		return nil, cobra.ShellCompDirectiveError
	}
	var parts []string
	if i := strings.LastIndexByte(begun, '.'); i >= 0 {
		if parts, err = host.SplitSysctl(begun[:i]); err != nil {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
	}
	var keys []string
	for _, name := range h.SysctlNames(parts) {
		full := slices.Concat(parts, []string{name})
		key := host.JoinSysctl(full)
		if len(h.SysctlNames(full)) > 0 {
			key += "."
		}
		keys = append(keys, key)
	}
	return keys, cobra.ShellCompDirectiveNoFileComp | cobra.ShellCompDirectiveNoSpace
}

// imported runs an import of files; the paths are made absolute, and are below
// --root.
func (a *app) imported(out string, args []string, run func(*host.Host, []string) (provision.Imported, error)) error {
	h, err := host.New(host.Options{Root: a.root})
	if err != nil {
		return fmt.Errorf("host: %w", err)
	}
	paths := make([]string, len(args))
	for i, p := range args {
		if a.root != "" {
			paths[i] = filepath.Join("/", p)
			continue
		}
		if paths[i], err = filepath.Abs(p); err != nil {
			return fmt.Errorf("import: %w", err)
		}
	}
	im, err := run(h, paths)
	if err != nil {
		return err
	}
	if err := a.writeNew(out, im.Text, false); err != nil {
		return err
	}
	switch n := len(im.Lost); n {
	case 0:
	case 1:
		fmt.Fprintln(a.stderr, "nodeprov: 1 thing could not be imported; a comment at the beginning says which, and why")
	default:
		fmt.Fprintf(a.stderr, "nodeprov: %d things could not be imported; comments at the beginning say which, and why\n", n)
	}
	return nil
}

// writeNew writes a profile to a new file, at once or not at all, or to stdout
// where the name is empty or "-". With force, it may replace one.
func (a *app) writeNew(name string, text []byte, force bool) error {
	if name == "" || name == "-" {
		_, err := a.stdout.Write(text)
		return err
	}
	if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
		return fmt.Errorf("profile: %w", err)
	}
	tmp, err := renameio.NewPendingFile(name, renameio.WithPermissions(0o644), renameio.WithTempDir(filepath.Dir(name)))
	if err != nil {
		return fmt.Errorf("profile: %w (make the directory writable, or name another file)", err)
	}
	defer func() { _ = tmp.Cleanup() }()
	if _, err := tmp.Write(text); err != nil {
		return fmt.Errorf("profile: %w", err)
	}
	if force {
		err = tmp.CloseAtomicallyReplace()
	} else if err = tmp.Sync(); err == nil {
		// A link, as it never replaces: nobody's file is lost in a race.
		err = os.Link(tmp.Name(), name)
	}
	switch {
	case errors.Is(err, os.ErrExist):
		return fmt.Errorf("profile %s: it exists already, and stays as it is (name another file, or move it away)", name)
	case err != nil:
		return fmt.Errorf("profile: %w", err)
	}
	return nil
}
