package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"time"

	"github.com/spf13/cobra"

	"github.com/nodeprov/nodeprov/internal/cli"
	"github.com/nodeprov/nodeprov/provision"
	"github.com/nodeprov/nodeprov/provision/host"
)

func (a *app) applyCommand() *cobra.Command {
	var v varFlags
	var boot bool
	var try time.Duration
	c := &cobra.Command{
		Use:   "apply [FILE|PLAN]",
		Short: "Make this machine match a profile",
		Long: `Makes this machine match a profile, or does what a plan of "plan --out" says. What is
right already is not written. What an earlier profile set and this one does not is put
back to what it was. Every value is kept in the journal before it is overwritten, and
read back after.

With --try, everything is reverted after that time, also when this process was
killed or the machine has rebooted, unless "nodeprov confirm" comes before.

Exit codes: 0 everything is as the profile has it; 1 nothing was written, or it
stopped (what is true now is printed), or the report could not be printed; 3 it
is, and some of it holds after a reboot only; 4 partly applied, or the last good
profile was applied in place of an invalid one (--boot).`,
		Example: `  nodeprov apply
  nodeprov apply --var role=agent profile.hcl
  nodeprov apply --try 60s && nodeprov confirm
  nodeprov apply -o json | jq .failed`,
		Args:              oneFile,
		ValidArgsFunction: completeFile,
	}
	v.add(c)
	output, phase := outputFlag(c), phaseFlag(c)
	c.Flags().DurationVar(&try, "try", 0, "revert after this time, as in 60s, unless confirmed")
	_ = c.RegisterFlagCompletionFunc("try", cobra.FixedCompletions([]string{"60s", "5m"}, cobra.ShellCompDirectiveNoFileComp))
	c.Flags().BoolVar(&boot, "boot", false, "as the units do: no profile is no error, an invalid one is replaced by the last good one, and what this host cannot have does not keep the rest from being applied")
	c.RunE = func(c *cobra.Command, args []string) error {
		asJSON, err := output()
		if err != nil {
			return err
		}
		ph, err := phase()
		if err != nil {
			return err
		}
		if c.Flags().Changed("try") && (try <= 0 || boot || a.root != "" || ph != provision.PhaseAll) {
			return cli.Usage(errors.New("--try needs a time, as in 60s, and does not go with --boot, --root or --phase"))
		}
		e, err := a.engine("apply")
		if err != nil {
			return err
		}
		outlastReader()
		run := &applyRun{app: a, engine: e, phase: ph, json: asJSON, limit: try}
		run.recover(c.Context())
		if boot {
			run.failOpen, e.Booting = true, true
			if ph == provision.PhaseAll && a.root == "" {
				run.reboot = e.Host.Reboot
			}
			return run.boot(c.Context(), args, v)
		}
		in, err := a.input(a.path(args), v)
		if err != nil {
			return err
		}
		if saved, ok, err := provision.ParseSavedPlan(in.src.Text); err != nil {
			return err
		} else if ok {
			return run.saved(c.Context(), saved, v)
		}
		f, err := facts(c.Context(), e)
		if err != nil {
			return err
		}
		ws := in.wanted(e, f, ph)
		if err := a.diagnose(in, asJSON); err != nil {
			return err
		}
		return run.apply(c.Context(), in, ws, "")
	}
	return c
}

type applyRun struct {
	*app
	engine *provision.Engine
	phase  provision.Phase
	json   bool
	// failOpen, reboot, plan and limit are those of provision.ApplyOptions.
	failOpen bool
	reboot   func(context.Context) error
	plan     *provision.SavedPlan
	limit    time.Duration
}

// recover reverts what an earlier boot has tried and never confirmed.
func (r *applyRun) recover(ctx context.Context) {
	report, err := r.engine.RecoverTry(ctx, nil)
	if report != nil {
		fmt.Fprintf(r.stderr, "nodeprov: %s: rolled back to generation %d, %d settings restored\n", report.Why, report.Generation, len(report.Applied))
	}
	// Who may not read the state directory is told by the apply itself.
	if err != nil && !errors.Is(err, fs.ErrPermission) {
		// Early at boot, files may not be writable yet: the later run does it.
		r.complain(err)
	}
}

// saved applies a plan that was kept in a file.
func (r *applyRun) saved(ctx context.Context, s *provision.SavedPlan, v varFlags) error {
	if r.root != "" || r.phase != provision.PhaseAll {
		return cli.Usage(errors.New("a saved plan is of this machine, and of a whole profile (no --root, no --phase)"))
	}
	in, err := r.input(s.Sources[0].Name, v)
	if err != nil {
		return err
	}
	for _, g := range in.vars {
		if g.Lenient {
			continue // from the environment or beside the profile: of no matter
		}
		if !slices.ContainsFunc(s.Vars, func(v provision.SavedVariable) bool { return v.Name == g.Name && v.Sensitive() }) {
			return cli.Usage(fmt.Errorf("variable %s: a saved plan has its variables, but for the sensitive ones", g.Name))
		}
	}
	if in.vars, err = s.Assignments(in.vars); err != nil {
		return err
	}
	f, err := facts(ctx, r.engine)
	if err != nil {
		return err
	}
	ws := in.wanted(r.engine, f, s.Phase)
	if in.profile != nil {
		if err := s.CheckSources(in.profile.Sources); err != nil {
			return err
		}
	}
	if err := s.CheckFacts(f); err != nil {
		return err
	}
	if err := r.diagnose(in, r.json); err != nil {
		return err
	}
	r.plan = s
	return r.apply(ctx, in, ws, "")
}

// apply applies. Mistakes of the profile that only the machine shows are
// printed.
func (r *applyRun) apply(ctx context.Context, in *input, ws []provision.Wanted, degraded string) error {
	report, err := r.attempt(ctx, in, ws, degraded)
	if report == nil && err == nil {
		return r.diagnose(in, r.json)
	}
	return r.conclude(report, err)
}

// attempt applies; a nil report without an error means that in.diags say why
// nothing was done.
func (r *applyRun) attempt(ctx context.Context, in *input, ws []provision.Wanted, degraded string) (*provision.Report, error) {
	o := provision.ApplyOptions{
		Phase: r.phase, Source: in.src, Sources: in.profile.Sources, Vars: in.keptVars(), Degraded: degraded,
		FailOpen: r.failOpen, Reboot: r.reboot, Saved: r.plan, Try: r.limit,
	}
	if !r.json {
		o.Progress = func(o provision.Outcome) { _ = o.Write(r.stdout, r.text()) }
	}
	report, diags, err := r.engine.Apply(ctx, ws, o)
	in.diags = diags
	return report, err
}

// conclude prints what is true now, and gives the exit code.
func (r *applyRun) conclude(report *provision.Report, err error) error {
	if report != nil {
		var perr error
		if r.json {
			perr = r.printJSON(report)
		} else {
			perr = report.WriteSummary(r.stdout, r.text())
		}
		if err == nil {
			err = unprinted(perr)
		}
	}
	switch {
	case err != nil:
		return err
	case report.Result == provision.Partial || report.Degraded != "":
		return &codeError{code: exitPartial}
	case len(report.Pending) > 0:
		return &codeError{code: exitReboot}
	}
	return nil
}

// unprinted is the error of a report that did not reach stdout.
func unprinted(err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("it is done, but not all of the report was printed: %w (nodeprov status has it)", err)
}

// boot is apply as the units run it: the machine comes up with what is known to
// be good, and says so.
func (r *applyRun) boot(ctx context.Context, args []string, v varFlags) error {
	name := r.path(args)
	if _, err := r.source(name); isMissing(err) {
		fmt.Fprintf(r.stderr, "nodeprov: no profile at %s: nothing to apply\n", name)
		return r.engine.Refused(provision.NoProfile, r.phase, name, "")
	}
	f, err := facts(ctx, r.engine)
	if err != nil {
		return err
	}
	in, err := r.input(name, v)
	var usage *cli.UsageError
	switch {
	case errors.As(err, &usage):
		return err
	case err != nil:
		// It is there and cannot be read, which is no better than invalid.
		r.complain(err)
		return r.fallBack(ctx, f, name, "is invalid", err.Error())
	}
	ws := in.wanted(r.engine, f, r.phase)
	if !in.diags.HasErrors() {
		if t, err := r.engine.Trying(); err != nil {
			r.complain(err)
		} else if t != nil && t.Of(in.profile.Sources) {
			return r.fallBack(ctx, f, name, "was tried, and never confirmed", name+" was tried, and never confirmed (apply it again, or replace it)")
		}
		report, err := r.attempt(ctx, in, ws, "")
		if report != nil || err != nil {
			return r.conclude(report, err)
		}
	}
	why := summarize(in.diags)
	// The JSON is the report's, here.
	json := r.json
	r.json = false
	_ = r.diagnose(in, false)
	r.json = json
	return r.fallBack(ctx, f, name, "is invalid", why)
}

// fallBack applies the last good profile in place of the one that cannot be; is says
// what that one is, in a few words, and why in full.
func (r *applyRun) fallBack(ctx context.Context, f *host.Facts, name, is, why string) error {
	refuse := func(because string) error {
		fmt.Fprintf(r.stderr, "nodeprov: %s %s, and %s: nothing was applied\n", name, is, because)
		if err := r.engine.Refused(provision.Invalid, r.phase, name, why); err != nil {
			return err
		}
		return &codeError{code: exitError}
	}
	good, err := r.engine.LastGood()
	if isMissing(err) {
		return refuse("no profile was ever applied completely")
	}
	if err != nil {
		return refuse(err.Error())
	}
	in := r.keptInput(good)
	ws := in.wanted(r.engine, f, r.phase)
	var report *provision.Report
	if !in.diags.HasErrors() {
		fmt.Fprintf(r.stderr, "nodeprov: %s %s: applying the last good profile, %s\n", name, is, in.src.Name)
		report, err = r.attempt(ctx, in, ws, why)
	}
	if report == nil && err == nil {
		_ = r.diagnose(in, false)
		return refuse("the last good profile does not fit this machine any more")
	}
	return r.conclude(report, err)
}
