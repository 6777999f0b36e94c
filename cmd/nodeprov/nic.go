package main

import (
	"errors"

	"github.com/spf13/cobra"
)

func (a *app) nicCommand() *cobra.Command {
	return &cobra.Command{
		Use: "nic", Hidden: true,
		RunE: func(*cobra.Command, []string) error { return errors.New("nic: not in this version") },
	}
}
