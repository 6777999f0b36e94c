package main

import (
	"errors"

	"github.com/spf13/cobra"
)

func (a *app) docsCommand() *cobra.Command {
	return &cobra.Command{
		Use: "docs", Hidden: true,
		RunE: func(*cobra.Command, []string) error { return errors.New("docs: not in this version") },
	}
}
