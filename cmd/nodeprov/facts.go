package main

import (
	"github.com/hashicorp/hcl/v2/hclwrite"
	"github.com/spf13/cobra"

	ctyjson "github.com/zclconf/go-cty/cty/json"

	"github.com/nodeprov/nodeprov/internal/cli"
)

func (a *app) factsCommand() *cobra.Command {
	c := &cobra.Command{
		Use:   "facts",
		Short: "Show what a profile sees as host.*",
		Example: `  nodeprov facts
  nodeprov facts -o json | jq '.nics[].driver'`,
		Args: cli.NoArgs,
	}
	output := outputFlag(c)
	c.RunE = func(c *cobra.Command, _ []string) error {
		asJSON, err := output()
		if err != nil {
			return err
		}
		e, err := a.live("facts")
		if err != nil {
			return err
		}
		f, err := e.Host.Facts(c.Context())
		if err != nil {
			return err
		}
		if asJSON {
			return a.printJSON(ctyjson.SimpleJSONValue{Value: f.Value()})
		}
		file := hclwrite.NewEmptyFile()
		file.Body().SetAttributeValue("host", f.Value())
		_, err = a.stdout.Write(hclwrite.Format(file.Bytes()))
		return err
	}
	return c
}
