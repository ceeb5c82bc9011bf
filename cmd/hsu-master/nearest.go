package main

import (
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"

	"github.com/urfave/cli/v2"

	"github.com/core-tools/hsu-master/cmd/hsu-master/internal/logging"
	"github.com/core-tools/hsu-master/cmd/hsu-master/internal/render"
	"github.com/core-tools/hsu-master/internal/nearest"
)

// commandNames returns the names that are valid in place of one of these commands.
func commandNames(commands []*cli.Command) []string {
	names := []string{helpWord}
	for _, c := range commands {
		if !c.Hidden {
			names = append(names, c.Names()...)
		}
	}
	return names
}

// synonyms are words of other programs for commands of this one.
var synonyms = map[string]string{
	"ls": "list", "ps": "list", "up": "run", "quit": "down", "shutdown": "down", "kill": "signal",
	"tail": "logs", "log": "logs", "journal": "logs", "describe": "inspect", "monit": "top",
	"update": "reload", "reread": "reload", "history": "events",
}

// suggestCommand returns ` (did you mean "hsu-master worker list"?)` for an unknown word: with the commands of that
// name at other places of the tree, or else with the most similar one of those that are valid in this place.
func suggestCommand(word string, valid []*cli.Command, app *cli.App) string {
	found := commandsNamed(word, app.Name, app.Commands)
	if len(found) == 0 {
		found = commandsNamed(synonyms[word], app.Name, app.Commands)
	}
	if len(found) == 0 {
		return nearest.DidYouMean(word, commandNames(valid))
	}
	return fmt.Sprintf(" (did you mean %s?)", strings.Join(found, " or "))
}

// commandsNamed returns the command lines of all commands with this name, in quotes.
func commandsNamed(name, path string, commands []*cli.Command) (found []string) {
	for _, c := range commands {
		full := path + " " + c.Name
		if c.HasName(name) && !c.Hidden {
			found = append(found, strconv.Quote(full))
		}
		found = append(found, commandsNamed(name, full, c.Subcommands)...)
	}
	return found
}

// flagNames returns the names of the flags with their dashes, and those of the flags that every command accepts.
func flagNames(flags []cli.Flag) []string {
	names := []string{"--help", "--version"}
	for _, f := range flags {
		for _, name := range f.Names() {
			if len(name) > 1 {
				names = append(names, "--"+name)
			}
		}
	}
	return names
}

// variablePrefix is the prefix of the environment variables that set flags.
const variablePrefix = "HSU_MASTER_"

// unknownVariables returns a warning for each environment variable that has the prefix and belongs to no flag.
// Such a variable is not an error: the environment may serve other programs too, as the variables
// HSU_MASTER_SERVICE_... of Kubernetes do.
func unknownVariables(environ []string, flags []cli.Flag) (warnings []string) {
	known := []string{"HSU_MASTER_ID"} // set for workers
	for _, f := range flags {
		if documented, ok := f.(cli.DocGenerationFlag); ok {
			known = append(known, documented.GetEnvVars()...)
		}
	}
	for _, entry := range environ {
		name, _, _ := strings.Cut(entry, "=")
		if strings.HasPrefix(name, variablePrefix) && !slices.Contains(known, name) {
			warnings = append(warnings,
				fmt.Sprintf("unknown variable %s is ignored%s", render.Printable(name),
					nearest.DidYouMean(name, known)))
		}
	}
	slices.Sort(warnings)
	return warnings
}

// warnOfVariables prints the warnings before a command runs.
func warnOfVariables(c *cli.Context) error {
	for _, warning := range unknownVariables(os.Environ(), allFlags(c.App.Commands)) {
		fmt.Fprintf(c.App.ErrWriter, "%shsu-master: warning: %s\n",
			logging.Prefix(c.App.ErrWriter, logging.PriorityWarning), warning)
	}
	return nil
}
