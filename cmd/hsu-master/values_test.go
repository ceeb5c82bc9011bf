package main

import (
	"bytes"
	"io"
	"strings"
	"testing"

	"github.com/urfave/cli/v2"

	"github.com/core-tools/hsu-master/cmd/hsu-master/internal/exit"
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

// Names that are not UTF-8 are refused before they are sent to a master. Paths of files may be any bytes.
func TestNamesThatAreNoText(t *testing.T) {
	const wrong = "a\xff"
	for _, args := range [][]string{
		{"worker", "stop", wrong},
		{"worker", "signal", wrong, "a"},
		{"worker", "scale", wrong + "=2"},
		{"worker", "logs", wrong},
		{"worker", "logs", "a", "--grep", wrong},
		{"worker", "inspect", wrong},
		{"worker", "restart", "a", wrong},
		{"unit", "disable", wrong},
		{"why", wrong},
		{"events", "--worker", wrong},
		{"events", "--type", wrong},
		{"service", "register", wrong, "h:1"},
		{"service", "deregister", "a", wrong},
		{"call", "process-data", "--data", wrong},
		{"call", "process-data", "--request-id", wrong},
		{"upgrade", "--binary", wrong},
	} {
		var out, errs bytes.Buffer
		code := run(t.Context(), append(args, "--state-dir", t.TempDir()), &out, &errs)
		text := errs.String()
		if code != exit.WrongUsage || !strings.Contains(text, `a\xff`) || strings.Contains(text, "grpc") {
			t.Errorf("%q: exit code %d, %s", args, code, text)
		}
	}
	var out, errs bytes.Buffer
	args := []string{"state", "check", t.TempDir() + "/" + wrong}
	if code := run(t.Context(), args, &out, &errs); code == exit.WrongUsage {
		t.Errorf("a path: exit code %d, %s", code, &errs)
	}
}
