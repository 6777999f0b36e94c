package main

import (
	"context"
	"errors"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/nodeprov/nodeprov/internal/cli"
	"github.com/nodeprov/nodeprov/provision"
	"github.com/nodeprov/nodeprov/provision/host"
)

func (a *app) applyCommand() *cobra.Command {
	var v varFlags
	var boot bool
	c := &cobra.Command{
		Use:   "apply [FILE]",
		Short: "Make this machine match a profile",
		Long: `Makes this machine match a profile. What is right already is not written. What an
earlier profile set and this one does not is put back to what it was. Every value
is kept in the journal before it is overwritten, and read back after.

Exit codes: 0 everything is as the profile has it; 1 nothing was written, or it
stopped (what is true now is printed), or the report could not be printed; 4
partly applied, or the last good profile was applied in place of an invalid one
(--boot).`,
		Example: `  nodeprov apply
  nodeprov apply --var role=agent profile.hcl
  nodeprov apply -o json | jq .failed`,
		Args:              oneFile,
		ValidArgsFunction: completeFile,
	}
	v.add(c)
	output, phase := outputFlag(c), phaseFlag(c)
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
		e, err := a.live("apply")
		if err != nil {
			return err
		}
		outlastReader()
		run := &applyRun{app: a, engine: e, phase: ph, json: asJSON}
		if boot {
			run.failOpen = true
			return run.boot(c.Context(), args, v)
		}
		in, ws, err := a.desired(c.Context(), e, args, v, ph, asJSON)
		if err != nil {
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
	// failOpen is provision.ApplyOptions.FailOpen.
	failOpen bool
}

// apply applies. Mistakes of the profile that only the machine shows are
// printed.
func (r *applyRun) apply(ctx context.Context, in *input, ws []provision.Wanted, degraded string) error {
	report, err := r.try(ctx, in, ws, degraded)
	if report == nil && err == nil {
		return r.diagnose(in, r.json)
	}
	return r.conclude(report, err)
}

// try applies; a nil report without an error means that in.diags say why
// nothing was done.
func (r *applyRun) try(ctx context.Context, in *input, ws []provision.Wanted, degraded string) (*provision.Report, error) {
	o := provision.ApplyOptions{Phase: r.phase, Source: in.src, Vars: in.vars, Degraded: degraded, FailOpen: r.failOpen}
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
	f, err := r.engine.Host.Facts(ctx)
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
		return r.fallBack(ctx, &f, name, err.Error())
	}
	ws := in.wanted(r.engine, &f, r.phase)
	if !in.diags.HasErrors() {
		report, err := r.try(ctx, in, ws, "")
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
	return r.fallBack(ctx, &f, name, why)
}

// fallBack applies the last good profile in place of the one that is invalid.
func (r *applyRun) fallBack(ctx context.Context, f *host.Facts, name, why string) error {
	refuse := func(because string) error {
		fmt.Fprintf(r.stderr, "nodeprov: %s is invalid, and %s: nothing was applied\n", name, because)
		if err := r.engine.Refused(provision.Invalid, r.phase, name, why); err != nil {
			return err
		}
		return &codeError{code: exitError}
	}
	src, vars, err := r.engine.LastGood()
	if isMissing(err) {
		return refuse("no profile was ever applied completely")
	}
	if err != nil {
		return refuse(err.Error())
	}
	in := &input{src: src, vars: vars}
	in.sources = append(in.sources, src)
	ws := in.wanted(r.engine, f, r.phase)
	var report *provision.Report
	if !in.diags.HasErrors() {
		fmt.Fprintf(r.stderr, "nodeprov: %s is invalid: applying the last good profile, %s\n", name, src.Name)
		report, err = r.try(ctx, in, ws, why)
	}
	if report == nil && err == nil {
		_ = r.diagnose(in, false)
		return refuse("the last good profile does not fit this machine any more")
	}
	return r.conclude(report, err)
}
