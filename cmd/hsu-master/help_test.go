package main

import (
	"bytes"
	"io"
	"regexp"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/urfave/cli/v2"
)

// The help of every command fits a terminal.
func TestHelpFitsATerminal(t *testing.T) {
	app := newApp(io.Discard, io.Discard)
	check := func(name string, of any) {
		var help bytes.Buffer
		printHelp(&help, "", of)
		for line := range strings.Lines(help.String()) {
			if n := utf8.RuneCountInString(strings.TrimSuffix(line, "\n")); n > helpWidth {
				t.Errorf("%s: %d columns: %s", name, n, line)
			}
		}
	}
	check(app.Name, app)
	var walk func(path string, commands []*cli.Command)
	walk = func(path string, commands []*cli.Command) {
		for _, c := range commands {
			c.HelpName = path + " " + c.Name // the parser sets it
			check(c.HelpName, c)
			walk(c.HelpName, c.Subcommands)
		}
	}
	walk(app.Name, app.Commands)
}

// A flag that takes a value has a placeholder in capitals, which names the kind of value. Its default is given once.
func TestHelpOfFlags(t *testing.T) {
	placeholder := regexp.MustCompile("^`[A-Z][A-Z:=/,.]*` [a-zA-Z]")
	leaves(newApp(io.Discard, io.Discard).Commands, func(c *cli.Command) {
		for _, f := range c.Flags {
			documented := f.(cli.DocGenerationFlag)
			name := c.Name + " --" + f.Names()[0]
			if usage := documented.GetUsage(); documented.TakesValue() != placeholder.MatchString(usage) {
				t.Errorf("%s: %q: want a placeholder in capitals, then what the value is", name, usage)
			}
			if n := strings.Count(helpOfFlag(documented), "(default"); n > 1 {
				t.Errorf("%s has %d defaults", name, n)
			}
		}
	})
}

func TestHelpOfFlag(t *testing.T) {
	for _, test := range []struct {
		flag cli.DocGenerationFlag
		want string
	}{
		{
			&cli.BoolFlag{Name: "json", Usage: "print JSON"},
			"  --json                  print JSON\n",
		},
		{
			&cli.StringFlag{Name: "count", Value: "larger", Usage: "`COUNT` larger or backup"},
			"  --count COUNT           larger or backup (default larger)\n",
		},
		{
			&cli.IntFlag{Name: "a-flag-with-a-long-name", EnvVars: []string{"LONG"}, Usage: "`N` a number"},
			"  --a-flag-with-a-long-name N\n" +
				"                          a number [$LONG]\n",
		},
		{
			&cli.StringFlag{
				Name: "sync", Value: "always",
				Usage: "`MODE` when to sync the count of requests to the disk of the host",
			},
			"  --sync MODE             when to sync the count of requests to the disk of the\n" +
				"                          host (default always)\n",
		},
	} {
		if got := helpOfFlag(test.flag); got != test.want {
			t.Errorf("help is\n%swant\n%s", got, test.want)
		}
	}
}
