package main

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"github.com/nodeprov/nodeprov/internal/cli"
	"github.com/nodeprov/nodeprov/provision"
	"github.com/nodeprov/nodeprov/provision/host"
	"github.com/nodeprov/nodeprov/provision/profile"
)

func (a *app) nicCommand() *cobra.Command {
	var boot bool
	c := &cobra.Command{
		Use:   "nic DEVICE",
		Short: "Make one network device as the applied profile has it",
		Long: `Sets what the applied profile asks for of one network device, as nodeprov-nic@.service
does when the device appears. The profile is the one that was applied in this
boot, not a newer text: what is in force stays one profile. What other devices
have, and what is of no device, is left alone.`,
		Example: `  nodeprov nic eth0`,
		Args: func(c *cobra.Command, args []string) error {
			if len(args) != 1 {
				return cli.Usage(fmt.Errorf("nic takes one DEVICE, and has %q", args))
			}
			if args[0] == "" || strings.ContainsAny(args[0], "/ ") {
				return cli.Usage(fmt.Errorf("nic: %q is no name that a device can have (ip link lists them)", args[0]))
			}
			return nil
		},
		ValidArgsFunction: func(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective) {
			return a.deviceNames(), cobra.ShellCompDirectiveNoFileComp
		},
	}
	c.Flags().BoolVar(&boot, "boot", false, "as the units do: where nothing was applied in this boot yet, the profile is the one that will be; nothing to do is no error")
	output := outputFlag(c)
	c.RunE = func(c *cobra.Command, args []string) error {
		asJSON, err := output()
		if err != nil {
			return err
		}
		e, err := a.live("nic")
		if err != nil {
			return err
		}
		outlastReader()
		return a.nic(c.Context(), e, args[0], boot, asJSON)
	}
	return c
}

// nic applies the settings of one device. An apply or rollback that comes first
// has changed what is in force; then it begins again.
func (a *app) nic(ctx context.Context, e *provision.Engine, device string, boot, asJSON bool) error {
	for {
		r, err := e.InForce()
		var not provision.NotInForce
		switch {
		case errors.As(err, &not) && boot && not == provision.NothingApplied:
			r = nil
		case errors.As(err, &not) && boot:
			fmt.Fprintf(a.stderr, "nodeprov: %s is left as it is: %v\n", device, not)
			return nil
		case errors.As(err, &not):
			return fmt.Errorf("nic %s: %w (run nodeprov apply)", device, not)
		case err != nil:
			return err
		}
		o := provision.ApplyOptions{Phase: provision.PhaseNIC(device), FailOpen: true, Guard: e.StillInForce(r)}
		if !asJSON {
			o.Progress = func(o provision.Outcome) { _ = o.Write(a.stdout, a.text()) }
		}
		var sets *deviceSettings
		if r == nil {
			sets, err = a.comingSettings(ctx, e, []string{device})
		} else {
			o.Degraded = r.Degraded
			sets, err = a.settingsInForce(ctx, e, r, []string{device})
		}
		if isMissing(err) && r == nil {
			fmt.Fprintf(a.stderr, "nodeprov: no profile: %s is left as it is\n", device)
			return nil
		}
		if err != nil {
			return fmt.Errorf("nic %s: %w", device, err)
		}
		o.Source, o.Sources, o.Vars = sets.src, sets.sources, sets.vars
		report, diags, err := e.Apply(ctx, sets.of[device], o)
		if errors.Is(err, provision.ErrOvertaken) {
			continue
		}
		if diags.HasErrors() {
			err = errors.Join(diags, err)
		}
		if report == nil {
			return err
		}
		var perr error
		if asJSON {
			perr = a.printJSON(report)
		} else {
			perr = report.WriteSummary(a.stdout, a.text())
		}
		switch {
		case err != nil:
			return err
		case perr != nil:
			return unprinted(perr)
		case report.Result == provision.Partial:
			return &codeError{code: exitPartial}
		}
		return nil
	}
}

// deviceSettings are what a profile asks of network devices, and what they were made
// from.
type deviceSettings struct {
	of      map[string][]provision.Wanted
	src     profile.Source
	sources []profile.Source
	vars    []profile.Assignment
}

// settingsInForce evaluates the profile that a report is of, with the facts of now,
// for these devices; nil are all. The files that it was read from do not matter any
// more.
func (a *app) settingsInForce(ctx context.Context, e *provision.Engine, r *provision.Report, devices []string) (*deviceSettings, error) {
	k, err := e.Applied()
	if err == nil && provision.Digest(k.Sources...) != r.Digest {
		err = errors.New("applied profile: the state directory holds another one (run nodeprov apply)")
	}
	if err != nil {
		return nil, err
	}
	return evaluateDevices(ctx, e, a.keptInput(k), devices)
}

// comingSettings evaluates the profile that the boot will apply: the newest, or
// the last good one where that is invalid. The error is fs.ErrNotExist where there
// is none.
func (a *app) comingSettings(ctx context.Context, e *provision.Engine, devices []string) (*deviceSettings, error) {
	in, err := a.input(a.path(nil), varFlags{})
	if isMissing(err) {
		return nil, err
	}
	if err == nil {
		var sets *deviceSettings
		if sets, err = evaluateDevices(ctx, e, in, devices); err == nil {
			return sets, nil
		}
	}
	k, lerr := e.LastGood()
	if lerr != nil {
		return nil, err // of the newest: that is the one to mend
	}
	return evaluateDevices(ctx, e, a.keptInput(k), devices)
}

// evaluateDevices evaluates the blocks of a profile that have settings of devices.
// What is wrong with one device, as that another one is not there, must not keep
// the others from theirs: that is for the apply to tell.
func evaluateDevices(ctx context.Context, e *provision.Engine, in *input, devices []string) (*deviceSettings, error) {
	f, err := e.Host.Facts(ctx)
	if err != nil {
		return nil, err
	}
	in.load(e.Kinds, &f, provision.Constructs(e.Kinds, provision.PhaseNIC("any")))
	if in.profile == nil {
		return nil, in.diags
	}
	if devices == nil {
		for _, n := range f.NICs {
			devices = append(devices, n.Name)
		}
	}
	sets := &deviceSettings{of: make(map[string][]provision.Wanted), src: in.src, sources: in.profile.Sources, vars: in.keptVars()}
	all := e.DesiredByDevice(in.profile, &f)
	for _, device := range devices {
		if ws := all[device]; len(ws) > 0 {
			sets.of[device] = ws
		}
	}
	return sets, nil
}

// deviceNames are for the completion.
func (a *app) deviceNames() []string {
	h, err := host.New(host.Options{Root: a.root})
	if err != nil {
		return nil
	}
	links, err := h.Links()
	if err != nil {
		return nil
	}
	var names []string
	for _, l := range links {
		if !l.Loopback {
			names = append(names, l.Name)
		}
	}
	return names
}
