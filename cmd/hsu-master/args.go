package main

import (
	"slices"
	"strings"

	"github.com/urfave/cli/v2"
)

// reorder puts flags where the flag parser looks for them: it stops at the first
// argument, while people write flags before, between and after commands and
// arguments. It also refuses an unknown command at any depth, which the parser
// takes for an argument.
func reorder(app *cli.App, args []string) ([]string, error) {
	var path, flags, positional []string
	commands, known := app.Commands, allFlags(app.Commands)
	name := app.Name
	for i := 0; i < len(args); i++ {
		arg := args[i]
		switch {
		case arg == "--":
			positional = append(positional, args[i+1:]...)
			i = len(args)
		case len(arg) > 1 && arg[0] == '-':
			flags = append(flags, arg)
			if takesValue(known, arg) && i+1 < len(args) {
				i++
				flags = append(flags, args[i])
			}
		case len(commands) > 0:
			at := slices.IndexFunc(commands, func(c *cli.Command) bool { return c.HasName(arg) })
			if at < 0 {
				return nil, usagef("unknown command %q: see %q", arg, name+" --help")
			}
			path, name = append(path, arg), name+" "+arg
			known = append(slices.Clone(commands[at].Flags), allFlags(commands[at].Subcommands)...)
			commands = commands[at].Subcommands
		default:
			positional = append(positional, arg)
		}
	}
	if len(commands) > 0 && len(positional) > 0 {
		// Behind "--" nothing is a command, though the parser would take it for one.
		return nil, usagef("a command is missing: see %q", name+" --help")
	}
	ordered := slices.Concat(path, flags)
	if len(positional) > 0 {
		ordered = append(append(ordered, "--"), positional...)
	}
	return ordered, nil
}

// takesValue tells whether the argument after the flag belongs to it.
func takesValue(known []cli.Flag, arg string) bool {
	name := strings.TrimLeft(arg, "-")
	if strings.Contains(name, "=") {
		return false
	}
	for _, f := range known {
		if slices.Contains(f.Names(), name) {
			_, isBool := f.(*cli.BoolFlag)
			return !isBool
		}
	}
	return false
}

func allFlags(commands []*cli.Command) []cli.Flag {
	var flags []cli.Flag
	for _, c := range commands {
		flags = append(append(flags, c.Flags...), allFlags(c.Subcommands)...)
	}
	return flags
}
