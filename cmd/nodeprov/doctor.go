package main

import (
	"errors"

	"github.com/spf13/cobra"
)

func (a *app) doctorCommand() *cobra.Command {
	return &cobra.Command{
		Use: "doctor", Hidden: true,
		RunE: func(*cobra.Command, []string) error { return errors.New("doctor: not in this version") },
	}
}
