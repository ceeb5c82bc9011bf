package main

import (
	"io"
	"testing"

	"github.com/urfave/cli/v2"
)

// A kind of flag that wantedValue does not know would be left to the parser, whose errors are not ours.
func TestValuesOfEachKindOfFlagAreChecked(t *testing.T) {
	const wrong = "\x00"
	leaves(newApp(io.Discard, io.Discard).Commands, func(c *cli.Command) {
		for _, f := range c.Flags {
			switch f.(type) {
			case *cli.StringFlag, *cli.StringSliceFlag: // their values have no form
			default:
				if wantedValue(f, wrong) == "" {
					t.Errorf("%s --%s is a %T: any value passes", c.Name, f.Names()[0], f)
				}
			}
		}
	})
}
