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

	"github.com/nodeprov/nodeprov/internal/cli"
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
		Args:          cli.NoArgs,
		Run:           func(c *cobra.Command, _ []string) { _ = c.Help() },
	}
	// What goes wrong before a verb runs is a mistake in the command line.
	started := false
	root.PersistentPreRun = func(*cobra.Command, []string) { started = true }
	root.AddCommand(runCommand(e), statusCommand(e), serviceCommand(e), cleanupCommand(e), versionCommand(e))
	cli.Strict(root)
	root.SetArgs(e.args)
	root.SetOut(e.stdout)
	root.SetErr(e.stderr)

	cmd, err := root.ExecuteContextC(ctx)
	var usage *cli.UsageError
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

// quietError is an exit code of 1 where all has been said.
type quietError struct{ text string }

func (e *quietError) Error() string { return e.text }

func versionCommand(e env) *cobra.Command {
	return &cobra.Command{
		Use:     "version",
		Short:   "Print the version and how it was built",
		Example: "  lbd version",
		Args:    cli.NoArgs,
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
		return false, cli.Usage(fmt.Errorf("--output %q: no such format (text or json)", *format))
	}
}
