package main

import (
	"errors"

	"github.com/spf13/cobra"
)

func (a *app) confirmCommand() *cobra.Command {
	return &cobra.Command{
		Use: "confirm", Hidden: true,
		RunE: func(*cobra.Command, []string) error { return errors.New("confirm: not in this version") },
	}
}
