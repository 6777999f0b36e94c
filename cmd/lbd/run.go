package main

import (
	"github.com/spf13/cobra"

	"github.com/nodeprov/nodeprov/internal/cli"
	"github.com/nodeprov/nodeprov/lbd"
)

func runCommand(e env) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "run",
		Short: "Run the daemon",
		Long: `Run the daemon until it is told to stop. It attaches its programs to the sockets of
all processes in a cgroup and takes up what an earlier daemon pinned; it tells
systemd that it is ready then, and reads services from the API, or from files,
while it serves. Nothing is detached when it ends: see "lbd cleanup".

Settings come from a file, and flags win over it.`,
		Example: `  lbd run
  lbd run --config /etc/lbd/other.hcl --log-level debug
  lbd run --kubeconfig /etc/kubernetes/proxy.conf --service-cidrs 10.96.0.0/16,fd00:96::/112
  lbd run --manifests /etc/lbd/services --service-cidrs 10.96.0.0/16`,
		Args: cli.NoArgs,
	}
	conf := settings(e, cmd)
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		c, err := conf()
		if err != nil {
			return err
		}
		notify, watchdog, err := lbd.SystemdNotify()
		if err != nil {
			return err
		}
		return lbd.Run(cmd.Context(), lbd.Options{
			Config:   c,
			Version:  buildVersion(),
			Log:      newLog(e, c.LogLevel),
			Notify:   notify,
			Watchdog: watchdog,
		})
	}
	return cmd
}
