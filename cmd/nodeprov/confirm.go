package main

import (
	"context"
	"fmt"
	"path/filepath"
	"strconv"
	"time"

	"github.com/spf13/cobra"

	"github.com/nodeprov/nodeprov/internal/cli"
	"github.com/nodeprov/nodeprov/provision/host"
)

func (a *app) confirmCommand() *cobra.Command {
	c := &cobra.Command{
		Use:   "confirm",
		Short: "Keep what apply --try has applied",
		Long: `Keeps what "apply --try" has applied, and takes its timer back. Without it, the
timer reverts everything; a reboot before it does so, too.`,
		Example: `  nodeprov apply --try 60s && ping -c 1 gateway && nodeprov confirm`,
		Args:    cli.NoArgs,
	}
	c.RunE = func(c *cobra.Command, _ []string) error {
		e, err := a.live("confirm")
		if err != nil {
			return err
		}
		outlastReader()
		t, err := e.Confirm(c.Context())
		if err != nil {
			return err
		}
		_, err = fmt.Fprintf(a.stdout, "Confirmed: %s (generation %d).\n", t.Profile, t.Generation)
		return unprinted(err)
	}
	return c
}

// tryTimer is a transient timer of systemd's, which runs
// `nodeprov rollback --to N --try-expired`.
type tryTimer struct {
	app  *app
	host *host.Host
}

const tryUnit = "nodeprov-try"

func (t *tryTimer) Ready(ctx context.Context) error { return t.host.HasSystemd(ctx) }

func (t *tryTimer) Start(ctx context.Context, after time.Duration, before int) error {
	exe, err := t.app.executable()
	if err != nil {
		return fmt.Errorf("path of this program: %w", err)
	}
	state, err := filepath.Abs(t.app.stateDir)
	if err != nil {
		return err
	}
	return t.host.StartTimer(ctx, host.Timer{
		Name: tryUnit, Description: "Revert a node profile that was only tried", After: after,
		Command: []string{exe, "rollback", "--to", strconv.Itoa(before), "--try-expired", "--state-dir", state},
	})
}

func (t *tryTimer) Stop(ctx context.Context) error { return t.host.StopTimer(ctx, tryUnit) }
