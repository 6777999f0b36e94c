// Command nodeprov makes a Linux machine match a node profile.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"

	"github.com/hashicorp/hcl/v2"
	"github.com/spf13/cobra"

	"golang.org/x/term"

	"github.com/nodeprov/nodeprov/internal/cli"
	"github.com/nodeprov/nodeprov/provision"
	"github.com/nodeprov/nodeprov/provision/host"
	"github.com/nodeprov/nodeprov/provision/profile"
)

// The exit codes.
const (
	exitOK    = 0
	exitError = 1
	// exitDiffers: plan --detailed-exitcode has changes, verify found drift or a check
	// failed.
	exitDiffers = 2
	// exitReboot: apply is complete, and some of it holds after a reboot only.
	exitReboot = 3
	// exitPartial: apply did not do everything, or fell back.
	exitPartial = 4
	exitUsage   = 64 // EX_USAGE of sysexits(3)
)

const (
	defaultProfile = "/etc/nodeprov/profile.hcl"
	defaultState   = "/var/lib/nodeprov"
)

// env is all that a run takes from its process.
type env struct {
	args           []string
	environ        []string // "NAME=value"
	stdin          io.Reader
	stdout, stderr io.Writer
	// color tells that stdout and stderr are terminals; width is their columns,
	// 0 when not known.
	color bool
	width int
	// executable is where this program's file is.
	executable func() (string, error)
}

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	// The second signal ends the process at once.
	context.AfterFunc(ctx, stop)
	os.Exit(run(ctx, processEnv()))
}

func processEnv() env {
	e := env{
		args: os.Args[1:], environ: os.Environ(),
		stdin: os.Stdin, stdout: os.Stdout, stderr: os.Stderr,
		color:      term.IsTerminal(int(os.Stdout.Fd())) && term.IsTerminal(int(os.Stderr.Fd())),
		executable: os.Executable,
	}
	if w, _, err := term.GetSize(int(os.Stdout.Fd())); err == nil {
		e.width = w
	}
	return e
}

// app is one run: the environment and the flags that all verbs share.
type app struct {
	env
	stateDir string
	root     string
	noColor  bool
	// printed: stdout has its JSON document.
	printed bool
}

// run runs one command line and returns the exit code.
func run(ctx context.Context, e env) int {
	a := &app{env: e}
	root := a.command()
	cmd, err := root.ExecuteContextC(ctx)
	var code *codeError
	var usage *cli.UsageError
	switch {
	case err == nil:
		return exitOK
	case errors.As(err, &usage):
		fmt.Fprintf(e.stderr, "nodeprov: %v\nSee %q.\n", err, cmd.CommandPath()+" --help")
		return exitUsage
	case errors.As(err, &code):
		if code.err != nil {
			a.complain(code.err)
		}
		return code.code
	}
	a.complain(err)
	// Who asked for JSON gets some, always, and in the form that mistakes of a profile
	// have.
	if o := cmd.Flags().Lookup("output"); o != nil && o.Value.String() == "json" && !a.printed {
		_ = a.printJSON(profile.JSON(nil, hcl.Diagnostics{{Severity: hcl.DiagError, Summary: err.Error()}}))
	}
	return exitError
}

func (a *app) command() *cobra.Command {
	root := &cobra.Command{
		Use:   "nodeprov",
		Short: "Make this machine match a node profile",
		Long: `nodeprov makes this machine match a node profile: kernel tunables, network
devices, the service load balancer lbd. It shows what it would change, keeps what
was there before, reads back what it wrote, and can go back, byte for byte.

Where FILE is left out, it is ` + defaultProfile + `. "builtin://NAME" is a profile
that comes with nodeprov.`,
		Example: `  nodeprov validate profile.hcl   # anywhere: it needs no machine
  nodeprov plan                   # what would change here
  nodeprov apply                  # change it
  nodeprov verify                 # is everything still so?
  nodeprov rollback               # undo the last profile`,
		SilenceErrors: true,
		SilenceUsage:  true,
		Args:          cli.NoArgs,
		RunE:          func(c *cobra.Command, _ []string) error { return c.Help() },
	}
	f := root.PersistentFlags()
	f.StringVar(&a.stateDir, "state-dir", defaultState, "directory of the journal, the report and the last good profile")
	f.StringVar(&a.root, "root", "", "directory of another system, an image: all paths are below it")
	f.BoolVar(&a.noColor, "no-color", false, "no colours, as with NO_COLOR in the environment")
	_ = root.MarkPersistentFlagDirname("state-dir")
	_ = root.MarkPersistentFlagDirname("root")
	root.SetFlagErrorFunc(func(_ *cobra.Command, err error) error { return cli.Usage(err) })
	root.PersistentPreRunE = func(c *cobra.Command, _ []string) error {
		// A script's unset variable must not become this machine, or the
		// directory that happens to be the current one.
		for _, name := range []string{"root", "state-dir"} {
			if f := c.Flag(name); f != nil && f.Changed && f.Value.String() == "" {
				return cli.Usage(fmt.Errorf("--%s is empty (name a directory, or leave it out)", name))
			}
		}
		return nil
	}
	root.AddCommand(
		a.validateCommand(), a.fmtCommand(), a.planCommand(), a.applyCommand(), a.verifyCommand(),
		a.rollbackCommand(), a.statusCommand(), a.factsCommand(), a.installCommand(), a.versionCommand(),
		a.initCommand(), a.doctorCommand(), a.importCommand(), a.confirmCommand(), a.showCommand(), a.watchCommand(), a.nicCommand(),
		a.docsCommand(), a.uninstallCommand(),
	)
	cli.Strict(root)
	completeFlags(root)
	root.SetArgs(a.args)
	root.SetIn(a.stdin)
	root.SetOut(a.stdout)
	root.SetErr(a.stderr)
	return root
}

// codeError ends the run with an exit code; err is nil where all has been said.
type codeError struct {
	code int
	err  error
}

func (e *codeError) Error() string {
	if e.err == nil {
		return fmt.Sprintf("exit code %d", e.code)
	}
	return e.err.Error()
}
func (e *codeError) Unwrap() error { return e.err }

// complain prints an error that may be several, joined.
func (a *app) complain(err error) {
	fmt.Fprintf(a.stderr, "nodeprov: %s\n", strings.ReplaceAll(err.Error(), "\n", "\nnodeprov: "))
}

// oneFile takes FILE or nothing.
func oneFile(c *cobra.Command, args []string) error {
	if len(args) > 1 {
		return cli.Usage(fmt.Errorf("%s takes one FILE, and has %q", c.Name(), args))
	}
	if len(args) == 1 && args[0] == "" {
		return cli.Usage(errors.New("the FILE's name is empty (leave it out for " + defaultProfile + ")"))
	}
	return nil
}

// outlastReader lets a verb that changes the machine finish although nobody reads
// its output any more, as in "nodeprov apply | head -1". Others end there, as
// they should.
func outlastReader() { signal.Ignore(syscall.SIGPIPE) }

// completeFile completes FILE.
func completeFile(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective) {
	return []string{"hcl"}, cobra.ShellCompDirectiveFilterFileExt
}

// outputFlag adds -o and returns whether it says json; what else it says is an
// error.
func outputFlag(c *cobra.Command) func() (json bool, err error) {
	format := c.Flags().StringP("output", "o", "text", "text or json")
	_ = c.RegisterFlagCompletionFunc("output", cobra.FixedCompletions([]string{"text", "json"}, cobra.ShellCompDirectiveNoFileComp))
	return func() (bool, error) {
		switch *format {
		case "text", "json":
			return *format == "json", nil
		}
		return false, cli.Usage(fmt.Errorf("--output %q: no such format (text or json)", *format))
	}
}

func phaseFlag(c *cobra.Command) func() (provision.Phase, error) {
	phase := c.Flags().String("phase", string(provision.PhaseAll), "all, or early: only what needs no network, and exists already")
	_ = c.RegisterFlagCompletionFunc("phase", cobra.FixedCompletions([]string{"all", "early"}, cobra.ShellCompDirectiveNoFileComp))
	return func() (provision.Phase, error) {
		switch p := provision.Phase(*phase); p {
		case provision.PhaseAll, provision.PhaseEarly:
			return p, nil
		}
		return "", cli.Usage(fmt.Errorf("--phase %q: no such phase (all or early)", *phase))
	}
}

func (a *app) text() provision.Text { return provision.Text{Color: a.colored()} }

func (a *app) colored() bool {
	return a.color && !a.noColor && a.getenv("NO_COLOR") == ""
}

func (a *app) getenv(name string) string {
	for _, kv := range a.environ {
		if v, ok := strings.CutPrefix(kv, name+"="); ok {
			return v
		}
	}
	return ""
}

// live is the running machine and its engine. verb is for the error where --root
// names another one.
func (a *app) live(verb string) (*provision.Engine, error) {
	if a.root != "" {
		return nil, cli.Usage(fmt.Errorf("%s --root: needs the running machine, and %s is only files (validate, fmt, import, plan, apply, verify, rollback, status, show, install and uninstall take --root)", verb, a.root))
	}
	h, err := host.New(host.Options{})
	if err != nil {
		return nil, fmt.Errorf("host: %w", err)
	}
	dir, err := filepath.Abs(a.stateDir)
	if err != nil {
		return nil, fmt.Errorf("--state-dir: %w", err)
	}
	e := a.engineOf(h, dir)
	e.Timer = &tryTimer{a, h}
	if dir == defaultState {
		// Another state directory is not the machine's own profile, which alone K3s
		// waits for.
		e.Stamp = provision.StampFile
	}
	return e, nil
}

// engine is that of the running machine, or with --root of a tree of files, whose state
// is below it too.
func (a *app) engine(verb string) (*provision.Engine, error) {
	if a.root == "" {
		return a.live(verb)
	}
	h, err := host.New(host.Options{Root: a.root})
	if err != nil {
		return nil, fmt.Errorf("--root: %w", err)
	}
	if !filepath.IsAbs(a.stateDir) {
		return nil, cli.Usage(fmt.Errorf("--state-dir %q: not an absolute path, which --root needs", a.stateDir))
	}
	dir, err := inside(a.root, a.stateDir)
	if err != nil {
		return nil, fmt.Errorf("--state-dir: %w", err)
	}
	return a.engineOf(h, dir), nil
}

// inside puts root before a path, and refuses one that a link leads out of it.
func inside(root, path string) (string, error) {
	top, err := filepath.Abs(root)
	if err != nil {
		return "", err
	}
	if top, err = filepath.EvalSymlinks(top); err != nil {
		return "", err
	}
	dir := filepath.Join(top, path)
	for p := dir; ; p = filepath.Dir(p) {
		target, err := filepath.EvalSymlinks(p)
		if errors.Is(err, fs.ErrNotExist) && p != top {
			if _, lerr := os.Lstat(p); lerr != nil {
				continue // it will be made
			}
		}
		if err != nil {
			return "", err
		}
		if target != top && !strings.HasPrefix(target, strings.TrimSuffix(top, "/")+"/") {
			return "", fmt.Errorf("%s leads to %s, which is not below %s (links must not lead out of --root)", p, target, root)
		}
		return dir, nil
	}
}

func (a *app) engineOf(h *host.Host, state string) *provision.Engine {
	return &provision.Engine{
		Host: h, Kinds: provision.Kinds(), State: state,
		Waiting: func(lock string) {
			fmt.Fprintf(a.stderr, "nodeprov: another nodeprov is at work; waiting for %s\n", lock)
		},
	}
}
