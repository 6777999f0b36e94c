package main

import (
	"bytes"
	"fmt"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/cobra/doc"
	"github.com/spf13/pflag"

	"github.com/nodeprov/nodeprov/internal/cli"
	"github.com/nodeprov/nodeprov/provision"
)

func (a *app) docsCommand() *cobra.Command {
	c := &cobra.Command{
		Use:   "docs",
		Short: "Write the manual pages or the reference",
		Long:  `Writes documentation that is made of this very program: it fits its version.`,
		Example: `  nodeprov docs man /usr/local/share/man/man1
  nodeprov docs reference | less`,
		Args: cli.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			return cli.Usage(fmt.Errorf("docs: say what (man or reference)"))
		},
	}
	c.AddCommand(a.docsMan(), a.docsReference())
	return c
}

func (a *app) docsMan() *cobra.Command {
	return &cobra.Command{
		Use:     "man DIR",
		Short:   "Write a manual page for each verb",
		Example: `  nodeprov docs man /usr/local/share/man/man1`,
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) != 1 || args[0] == "" {
				return cli.Usage(fmt.Errorf("docs man takes one directory, and has %q", args))
			}
			return nil
		},
		ValidArgsFunction: func(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective) {
			return nil, cobra.ShellCompDirectiveFilterDirs
		},
		RunE: func(c *cobra.Command, args []string) error {
			build := readBuildInfo()
			// The date of what is documented, so that the same source gives the
			// same pages.
			date, err := time.Parse(time.RFC3339, build.Date)
			if err != nil {
				date = time.Unix(0, 0).UTC()
			}
			if err := os.MkdirAll(args[0], 0o755); err != nil {
				return fmt.Errorf("docs man: %w", err)
			}
			root := c.Root()
			root.DisableAutoGenTag = true
			if err := doc.GenManTree(root, &doc.GenManHeader{
				Title: "NODEPROV", Section: "1", Date: &date, Source: "nodeprov " + build.Version, Manual: "nodeprov",
			}, args[0]); err != nil {
				return fmt.Errorf("docs man: %w", err)
			}
			return nil
		},
	}
}

func (a *app) docsReference() *cobra.Command {
	return &cobra.Command{
		Use:               "reference",
		Short:             "Print the reference of the profile language and of the verbs, in Markdown",
		Example:           `  nodeprov docs reference > reference.md`,
		Args:              cli.NoArgs,
		ValidArgsFunction: cobra.NoFileCompletions,
		RunE: func(c *cobra.Command, _ []string) error {
			var b bytes.Buffer
			b.WriteString("# Reference of nodeprov\n\n## The profile language\n")
			if err := provision.WriteReference(&b, provision.Kinds()); err != nil {
				return err
			}
			b.WriteString("## The verbs\n")
			writeVerbs(&b, c.Root())
			_, err := a.stdout.Write(b.Bytes())
			return err
		},
	}
}

// writeVerbs writes what each verb's help says.
func writeVerbs(b *bytes.Buffer, c *cobra.Command) {
	for _, v := range c.Commands() {
		if !v.IsAvailableCommand() || v.Name() == "help" {
			continue
		}
		if v.HasAvailableSubCommands() && v.Name() != "completion" {
			writeVerbs(b, v)
			continue
		}
		long := v.Long
		if long == "" {
			long = v.Short + "."
		}
		fmt.Fprintf(b, "\n### `%s`\n\n%s\n", v.UseLine(), strings.TrimSpace(long))
		if v.Example != "" {
			fmt.Fprintf(b, "\n```sh\n%s\n```\n", unindent(v.Example))
		}
		var flags []string
		v.LocalNonPersistentFlags().VisitAll(func(f *pflag.Flag) {
			if f.Hidden || f.Name == "help" {
				return
			}
			name := "--" + f.Name
			if f.Shorthand != "" {
				name = "-" + f.Shorthand + ", " + name
			}
			flags = append(flags, fmt.Sprintf("| `%s` | %s |\n", name, strings.ReplaceAll(f.Usage, "|", `\|`)))
		})
		if len(flags) > 0 {
			fmt.Fprintf(b, "\n| flag | |\n|---|---|\n%s", strings.Join(flags, ""))
		}
	}
}

func unindent(s string) string {
	lines := strings.Split(s, "\n")
	for i := range lines {
		lines[i] = strings.TrimPrefix(lines[i], "  ")
	}
	return strings.Join(lines, "\n")
}

// completeFlags keeps the shell from offering files for flags that take none:
// that is what it does for all that say nothing of their completion.
func completeFlags(c *cobra.Command) {
	c.LocalFlags().VisitAll(func(f *pflag.Flag) {
		if _, ok := c.GetFlagCompletionFunc(f.Name); ok || f.Value.Type() == "bool" || f.Annotations != nil {
			return
		}
		_ = c.RegisterFlagCompletionFunc(f.Name, cobra.NoFileCompletions)
	})
	for _, sub := range c.Commands() {
		completeFlags(sub)
	}
}
