package main

import (
	"io"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/urfave/cli/v2"
)

// Each command and flag that docs/COMING-FROM.md names exists.
func TestComingFromNamesCommands(t *testing.T) {
	content, err := os.ReadFile("../../docs/COMING-FROM.md")
	if err != nil {
		t.Fatal(err)
	}
	found := regexp.MustCompile("`?hsu-master ([a-z][^`#|\n]*)").FindAllStringSubmatch(string(content), -1)
	named := 0
	for _, match := range found {
		if !strings.HasPrefix(match[0], "`") && !strings.Contains(match[0], "--") {
			continue // a sentence
		}
		named++
		commands, flags := newApp(io.Discard, io.Discard).Commands, []cli.Flag{}
		for word := range strings.FieldsSeq(match[1]) {
			at := slices.IndexFunc(commands, func(c *cli.Command) bool { return c.Name == word })
			switch {
			case strings.HasPrefix(word, "--"):
				if !slices.Contains(flagNames(flags), word) {
					t.Errorf("%q: there is no flag %s", match[0], word)
				}
			case at >= 0:
				flags, commands = commands[at].Flags, commands[at].Subcommands
			case len(commands) > 0:
				t.Errorf("%q: there is no command %s", match[0], word)
			}
		}
	}
	if named < 12 {
		t.Errorf("only %d commands are found: has the text another form?", named)
	}
}
