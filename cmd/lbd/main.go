// Command lbd replaces kube-proxy with eBPF.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"runtime"
	"runtime/debug"
	"strings"
	"syscall"

	"github.com/spf13/cobra"
)

// version is set by the linker; empty means what the build recorded.
var version string

// The exit codes of every verb.
const (
	exitOK    = 0
	exitError = 1
	exitUsage = 64 // EX_USAGE of sysexits(3)
)

// env is all that a run takes from its process.
type env struct {
	args           []string
	stdout, stderr io.Writer
	// journal tells that stderr goes to systemd's journal, which has the time.
	journal bool
}

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	// The second signal ends the process at once.
	context.AfterFunc(ctx, stop)
	os.Exit(run(ctx, env{
		args:    os.Args[1:],
		stdout:  os.Stdout,
		stderr:  os.Stderr,
		journal: os.Getenv("JOURNAL_STREAM") != "",
	}))
}

// run runs one command line and returns the exit code.
func run(ctx context.Context, e env) int {
	root := &cobra.Command{
		Use:   "lbd",
		Short: "A load balancer for Kubernetes services, in place of kube-proxy",
		Long: `lbd connects clients straight to the backends of Kubernetes services, with eBPF
programs on the socket calls of a whole machine. Programs and tables are pinned:
they serve while lbd is stopped, killed or upgraded, and while the API is away.`,
		Example: `  lbd run                              # as kube-proxy's replacement under K3s
  lbd run --manifests /etc/lbd/services # services from files, without Kubernetes
  lbd status --wait 60s                # until everything is in place
  lbd service list                     # what the kernel serves, daemon or not`,
		SilenceErrors: true,
		SilenceUsage:  true,
		Args:          noArgs,
		Run:           func(c *cobra.Command, _ []string) { _ = c.Help() },
	}
	// What goes wrong before a verb runs is a mistake in the command line.
	started := false
	root.PersistentPreRun = func(*cobra.Command, []string) { started = true }
	root.AddCommand(runCommand(e), statusCommand(e), serviceCommand(e), cleanupCommand(e), versionCommand(e))
	helpAndCompletion(root)
	root.SetArgs(e.args)
	root.SetOut(e.stdout)
	root.SetErr(e.stderr)

	cmd, err := root.ExecuteContextC(ctx)
	var usage *usageError
	var quiet *quietError
	switch {
	case err == nil:
		return exitOK
	case errors.As(err, &quiet):
		return exitError
	case !started || errors.As(err, &usage):
		fmt.Fprintf(e.stderr, "lbd: %v\nSee %q.\n", err, cmd.CommandPath()+" --help")
		return exitUsage
	}
	fmt.Fprintf(e.stderr, "lbd: %s\n", strings.ReplaceAll(err.Error(), "\n", "\nlbd: "))
	return exitError
}

// noArgs is cobra's check in our words.
func noArgs(c *cobra.Command, args []string) error {
	switch {
	case len(args) == 0:
		return nil
	case c.HasAvailableSubCommands():
		c.SuggestionsMinimumDistance = 2
		text := fmt.Sprintf("%q is no command of %s", args[0], c.CommandPath())
		if s := c.SuggestionsFor(args[0]); len(s) > 0 {
			text += fmt.Sprintf(" (did you mean %q?)", s[0])
		}
		return &usageError{errors.New(text)}
	}
	return &usageError{fmt.Errorf("%s takes no arguments, and has %q", c.Name(), args)}
}

// helpAndCompletion makes cobra's own verbs refuse what they do not know: they
// would print their help and succeed.
func helpAndCompletion(root *cobra.Command) {
	root.InitDefaultHelpCmd()
	root.InitDefaultCompletionCmd()
	for _, c := range root.Commands() {
		switch c.Name() {
		case "help":
			c.Args = func(_ *cobra.Command, args []string) error {
				if found, rest, err := root.Find(args); err != nil || found == root && len(args) > 0 || len(rest) > 0 {
					return &usageError{fmt.Errorf("help: there is no command %q", strings.Join(args, " "))}
				}
				return nil
			}
		case "completion":
			c.Args = cobra.ArbitraryArgs
			c.RunE = func(_ *cobra.Command, args []string) error {
				if len(args) > 0 {
					return &usageError{fmt.Errorf("completion: %q is no shell that it knows (bash, zsh, fish or powershell)", args[0])}
				}
				return &usageError{errors.New("completion: a shell is missing (bash, zsh, fish or powershell)")}
			}
			for _, shell := range c.Commands() {
				shell.Args = noArgs
			}
		}
	}
}

// usageError is a mistake in the command line that a verb found.
type usageError struct{ err error }

func (e *usageError) Error() string { return e.err.Error() }
func (e *usageError) Unwrap() error { return e.err }

// quietError is an exit code of 1 where all has been said.
type quietError struct{ text string }

func (e *quietError) Error() string { return e.text }

func versionCommand(e env) *cobra.Command {
	return &cobra.Command{
		Use:     "version",
		Short:   "Print the version and how it was built",
		Example: "  lbd version",
		Args:    noArgs,
		RunE: func(*cobra.Command, []string) error {
			_, err := fmt.Fprintf(e.stdout, "lbd %s (%s %s/%s)\n", buildVersion(), runtime.Version(), runtime.GOOS, runtime.GOARCH)
			return err
		},
	}
}

// buildVersion returns the version, or the commit that was built.
func buildVersion() string {
	if version != "" {
		return version
	}
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return "unknown"
	}
	if v := info.Main.Version; v != "" && v != "(devel)" {
		return v
	}
	for _, s := range info.Settings {
		if s.Key == "vcs.revision" {
			return s.Value
		}
	}
	return "devel"
}

// output adds -o and returns whether it says json; what else it says is an error.
func output(cmd *cobra.Command) func() (json bool, err error) {
	format := cmd.Flags().StringP("output", "o", "text", "text or json")
	_ = cmd.RegisterFlagCompletionFunc("output", cobra.FixedCompletions([]string{"text", "json"}, cobra.ShellCompDirectiveNoFileComp))
	return func() (bool, error) {
		switch *format {
		case "text":
			return false, nil
		case "json":
			return true, nil
		}
		return false, &usageError{fmt.Errorf("--output %q: no such format (text or json)", *format)}
	}
}
