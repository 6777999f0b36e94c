package main

import (
	"errors"

	"github.com/spf13/cobra"
)

func (a *app) uninstallCommand() *cobra.Command {
	return &cobra.Command{
		Use: "uninstall", Hidden: true,
		RunE: func(*cobra.Command, []string) error { return errors.New("uninstall: not in this version") },
	}
}
