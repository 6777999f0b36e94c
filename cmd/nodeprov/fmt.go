package main

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/google/renameio/v2"
	"github.com/rogpeppe/go-internal/diff"
	"github.com/spf13/cobra"

	"github.com/nodeprov/nodeprov/internal/cli"
	"github.com/nodeprov/nodeprov/provision/profile"
)

func (a *app) fmtCommand() *cobra.Command {
	var check, showDiff bool
	c := &cobra.Command{
		Use:   "fmt [FILE...]",
		Short: "Write profiles in canonical form",
		Long: `Writes profiles and files of variables in canonical form, in place, and prints the
names of those that it changed. "-" is standard input, written to standard output.`,
		Example: `  nodeprov fmt profile.hcl
  nodeprov fmt --check --diff *.hcl   # changes nothing; exit 1 if it would
  nodeprov fmt - < profile.hcl`,
		ValidArgsFunction: completeFile,
	}
	c.Flags().BoolVar(&check, "check", false, "change nothing, and exit 1 if something would change")
	c.Flags().BoolVar(&showDiff, "diff", false, "print what changes")
	c.RunE = func(_ *cobra.Command, args []string) error {
		if len(args) == 0 {
			args = []string{a.below(defaultProfile)}
		}
		differ, bad := false, false
		for _, name := range args {
			if strings.HasPrefix(name, "builtin://") {
				return cli.Usage(fmt.Errorf("fmt %s: comes with nodeprov and cannot be changed", name))
			}
			src, err := a.source(name)
			if err != nil {
				// The other files are looked at all the same.
				bad = true
				a.complain(err)
				continue
			}
			text, diags := profile.Format(src)
			if diags.HasErrors() {
				bad = true
				if err := profile.WriteText(a.stderr, profile.Files(src), diags, a.width, a.colored()); err != nil {
					return err
				}
				continue
			}
			same := bytes.Equal(text, src.Text)
			differ = differ || !same
			if err := a.formatted(name, src, text, same, check, showDiff); err != nil {
				return err
			}
		}
		if bad || check && differ {
			return &codeError{code: exitError}
		}
		return nil
	}
	return c
}

// formatted prints, and unless check, writes one file.
func (a *app) formatted(name string, src profile.Source, text []byte, same, check, showDiff bool) error {
	stdin := name == "-"
	if !same && !check && !stdin {
		if err := replace(name, text); err != nil {
			return err
		}
	}
	if !same && (check || !stdin) {
		if _, err := fmt.Fprintln(a.stdout, src.Name); err != nil {
			return err
		}
	}
	if !same && showDiff {
		if _, err := a.stdout.Write(diff.Diff(src.Name, src.Text, src.Name+" (formatted)", text)); err != nil {
			return err
		}
	}
	if stdin && !check && !showDiff {
		_, err := a.stdout.Write(text)
		return err
	}
	return nil
}

// replace writes a file, at once or not at all.
func replace(name string, text []byte) error {
	// A profile may be a link to where it is kept.
	path, err := filepath.EvalSymlinks(name)
	if err != nil {
		return fmt.Errorf("fmt: %w", err)
	}
	if err := renameio.WriteFile(path, text, os.FileMode(0o644), renameio.WithTempDir(filepath.Dir(path)), renameio.WithExistingPermissions()); err != nil {
		return fmt.Errorf("fmt %s: %w", name, err)
	}
	return nil
}
