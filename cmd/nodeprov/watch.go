package main

import (
	"errors"

	"github.com/spf13/cobra"
)

func (a *app) watchCommand() *cobra.Command {
	return &cobra.Command{
		Use: "watch", Hidden: true,
		RunE: func(*cobra.Command, []string) error { return errors.New("watch: not in this version") },
	}
}
