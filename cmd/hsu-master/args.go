package main

import (
	"slices"
	"strings"

	"github.com/urfave/cli/v2"

	"github.com/core-tools/hsu-master/cmd/hsu-master/internal/exit"
	"github.com/core-tools/hsu-master/internal/nearest"
)

// helpWord asks for help if it stands in place of a command, or after a command that takes no argument.
const helpWord = "help"

// reorder moves flags to where the flag parser finds them. The parser stops at the first argument, but users
// write flags before, between and after commands and arguments. reorder also refuses an unknown command at any
// level, which the parser would take for an argument, an unknown flag, a value that is none of its flag, and a second,
// different --worker-path.
func reorder(app *cli.App, args []string) ([]string, error) {
	l := line{app: app, name: app.Name, commands: app.Commands, flags: allFlags(app.Commands)}
	for len(args) > 0 && !l.version {
		rest, err := l.take(args)
		if err != nil {
			return nil, err
		}
		args = rest
	}
	return l.ordered()
}

// line is the state of parsing a command line.
type line struct {
	app      *cli.App
	name     string         // command names read so far, for messages
	commands []*cli.Command // commands that may follow
	flags    []cli.Flag     // flags that may follow
	leaf     *cli.Command   // the final command; nil until it is read

	path, given, positional []string
	set                     []setFlag // those of given that are a flag of some command
	worker                  string    // value of --worker-path
	unknown                 string    // first unknown flag
	help, version           bool
}

// take reads an argument, and its value if it is a flag that takes one, and returns the remaining arguments.
func (l *line) take(args []string) ([]string, error) {
	arg, rest := args[0], args[1:]
	switch {
	case arg == "--":
		l.positional = append(l.positional, rest...)
		return nil, nil
	case len(arg) > 1 && arg[0] == '-':
		return l.flag(arg, rest)
	case arg == helpWord && (l.leaf == nil || l.leaf.ArgsUsage == "" && len(rest) == 0):
		l.help = true
	case l.leaf == nil:
		return rest, l.command(arg)
	default:
		l.positional = append(l.positional, arg)
	}
	return rest, nil
}

func (l *line) flag(arg string, rest []string) ([]string, error) {
	name, value, hasValue := strings.Cut(strings.TrimLeft(arg, "-"), "=")
	at := slices.IndexFunc(l.flags, func(f cli.Flag) bool { return slices.Contains(f.Names(), name) })
	switch {
	case at >= 0:
	case name == "v" || name == "version":
		l.version = true
		return nil, nil
	default:
		if l.unknown == "" && !slices.Contains(cli.HelpFlag.Names(), name) {
			l.unknown = "--" + name
		}
		l.given = append(l.given, arg)
		return rest, nil
	}
	l.given = append(l.given, arg)
	if _, isBool := l.flags[at].(*cli.BoolFlag); isBool {
		if !hasValue {
			value = "true"
		}
		l.set = append(l.set, setFlag{name: name, value: value, hasValue: true})
		return rest, nil
	}
	if !hasValue && len(rest) > 0 {
		value, rest, hasValue = rest[0], rest[1:], true
		l.given = append(l.given, value)
	}
	l.set = append(l.set, setFlag{name: name, value: value, hasValue: hasValue})
	if name != workerPathFlag {
		return rest, nil // the last of two values counts, so that a script can append its own
	}
	if l.worker != "" && l.worker != value {
		return nil, exit.Usagef("--%s is given twice, as %q and %q: one master has workers of one kind",
			name, l.worker, value)
	}
	l.worker = value
	return rest, nil
}

func (l *line) command(arg string) error {
	at := slices.IndexFunc(l.commands, func(c *cli.Command) bool { return c.HasName(arg) })
	switch {
	case at < 0 && l.unknown != "": // arg may be the value of the unknown flag
		return l.unknownFlag(l.unknown, l.flags)
	case at < 0:
		return exit.Usagef("unknown command %q%s: see %q",
			arg, suggestCommand(arg, l.commands, l.app), l.name+" --help")
	}
	found := l.commands[at]
	l.path, l.name = append(l.path, arg), l.name+" "+arg
	l.flags = append(slices.Clone(found.Flags), allFlags(found.Subcommands)...)
	if l.commands = found.Subcommands; len(l.commands) == 0 {
		l.leaf = found
	}
	return nil
}

func (l *line) unknownFlag(flag string, flags []cli.Flag) error {
	return exit.Usagef("unknown flag %s%s: see %q", flag, nearest.DidYouMean(flag, flagNames(flags)), l.name+" --help")
}

// ordered returns the command line in the parser's order.
func (l *line) ordered() ([]string, error) {
	switch {
	case l.version:
		return []string{"version"}, nil
	case l.help:
		return append(l.path, "--help"), l.checkVariables()
	case l.unknown != "":
		return nil, l.unknownFlag(l.unknown, l.flags)
	case l.leaf == nil && len(l.positional) > 0:
		// After "--" nothing is a command, but the parser would take the argument for one.
		return nil, exit.Usagef("a command is missing: see %q", l.name+" --help")
	}
	if err := l.checkVariables(); err != nil {
		return nil, err
	}
	if err := l.checkFlags(); err != nil {
		return nil, err
	}
	if err := l.checkNames(); err != nil {
		return nil, err
	}
	ordered := slices.Concat(l.path, l.given)
	if len(l.positional) > 0 {
		ordered = append(append(ordered, "--"), l.positional...)
	}
	return ordered, nil
}

func allFlags(commands []*cli.Command) []cli.Flag {
	var flags []cli.Flag
	for _, c := range commands {
		flags = append(append(flags, c.Flags...), allFlags(c.Subcommands)...)
	}
	return flags
}
