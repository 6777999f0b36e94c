package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"strings"

	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/hclparse"
	"github.com/spf13/cobra"

	"github.com/zclconf/go-cty/cty"

	"github.com/nodeprov/nodeprov/internal/cli"
	"github.com/nodeprov/nodeprov/lbd/config"
)

// settings adds --config and a flag for each of the named attributes, or for all,
// and returns what they come to: a flag wins over the file, the file over the
// default.
func settings(e env, cmd *cobra.Command, names ...string) func() (config.Config, error) {
	flags := cmd.Flags()
	file := flags.String("config", config.File, "file of settings; the default one need not exist")
	values := map[string]func() cty.Value{} // by flag
	attrs := map[string]string{}            // by flag
	for _, a := range config.Attrs() {
		if len(names) > 0 && !slices.Contains(names, a.Name) {
			continue
		}
		flag := strings.ReplaceAll(a.Name, "_", "-")
		attrs[flag] = a.Name
		doc := strings.TrimSuffix(a.Doc, ".")
		if a.Type.Equals(cty.List(cty.String)) {
			var def []string
			for _, v := range a.Default.AsValueSlice() {
				def = append(def, v.AsString())
			}
			p := flags.StringSlice(flag, def, doc)
			values[flag] = func() cty.Value {
				if len(*p) == 0 {
					return cty.ListValEmpty(cty.String)
				}
				list := make([]cty.Value, len(*p))
				for i, s := range *p {
					list[i] = cty.StringVal(strings.TrimSpace(s))
				}
				return cty.ListVal(list)
			}
			continue
		}
		p := flags.String(flag, a.Default.AsString(), doc)
		values[flag] = func() cty.Value { return cty.StringVal(*p) }
	}
	return func() (config.Config, error) {
		c, err := readSettings(e, *file, flags.Changed("config"))
		if err != nil {
			return c, err
		}
		all := c.Values()
		for flag, value := range values {
			if flags.Changed(flag) {
				all[attrs[flag]] = value()
			}
		}
		c, wrong := config.FromValues(all)
		var errs []error
		for flag, name := range attrs {
			if err := wrong[name]; err != nil {
				errs = append(errs, fmt.Errorf("--%s: %w", flag, err))
			}
		}
		slices.SortFunc(errs, func(a, b error) int { return strings.Compare(a.Error(), b.Error()) })
		if err := errors.Join(errs...); err != nil {
			return c, cli.Usage(err)
		}
		return c, nil
	}
}

func readSettings(e env, path string, must bool) (config.Config, error) {
	text, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) && !must {
		return config.Default(), nil
	}
	if err != nil {
		return config.Default(), fmt.Errorf("settings: %w (write a file there, or name another with --config)", err)
	}
	c, diags := config.Parse(path, text)
	if diags.HasErrors() {
		p := hclparse.NewParser()
		_, _ = p.ParseHCL(text, path) // for the snippets
		if err := hcl.NewDiagnosticTextWriter(e.stderr, p.Files(), 100, false).WriteDiagnostics(diags); err != nil {
			return c, err
		}
		return c, &quietError{diags.Error()}
	}
	return c, nil
}
