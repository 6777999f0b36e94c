package main

import (
	"fmt"
	"runtime"
	"runtime/debug"

	"github.com/spf13/cobra"

	"github.com/nodeprov/nodeprov/internal/cli"
)

// buildInfo is what the Go tool recorded in the binary.
type buildInfo struct {
	Version string `json:"version"`
	// Commit is empty in a build without version control; Date is the commit's.
	Commit   string `json:"commit"`
	Date     string `json:"date"`
	Modified bool   `json:"modified"`
	Go       string `json:"go"`
	Platform string `json:"platform"`
}

func readBuildInfo() buildInfo {
	b := buildInfo{Version: "(devel)", Go: runtime.Version(), Platform: runtime.GOOS + "/" + runtime.GOARCH}
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return b
	}
	if info.Main.Version != "" {
		b.Version = info.Main.Version
	}
	for _, s := range info.Settings {
		switch s.Key {
		case "vcs.revision":
			b.Commit = s.Value
		case "vcs.time":
			b.Date = s.Value
		case "vcs.modified":
			b.Modified = s.Value == "true"
		}
	}
	return b
}

func (a *app) versionCommand() *cobra.Command {
	c := &cobra.Command{
		Use:   "version",
		Short: "Print the version and how it was built",
		Example: `  nodeprov version
  nodeprov version -o json`,
		Args: cli.NoArgs,
	}
	output := outputFlag(c)
	c.RunE = func(*cobra.Command, []string) error {
		asJSON, err := output()
		if err != nil {
			return err
		}
		b := readBuildInfo()
		if asJSON {
			return a.printJSON(b)
		}
		text := fmt.Sprintf("nodeprov %s", b.Version)
		if b.Commit != "" {
			text += fmt.Sprintf(" (commit %.12s of %s", b.Commit, b.Date)
			if b.Modified {
				text += ", modified"
			}
			text += ")"
		}
		_, err = fmt.Fprintf(a.stdout, "%s %s %s\n", text, b.Go, b.Platform)
		return err
	}
	return c
}
