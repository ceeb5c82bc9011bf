// Command hsu-master runs the workers of one host and stays out of their way:
// see "hsu-master --help" and hsu-master(1).
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"regexp"
	"slices"
	"strings"
	"syscall"

	"github.com/urfave/cli/v2"

	"github.com/core-tools/hsu-master/store"
)

func main() {
	leaked := watchLeaks()
	os.Exit(leaked(run(context.Background(), os.Args[1:], os.Stdout, os.Stderr)))
}

// Exit codes; hsu-master(1) documents them and scripts rely on them.
const (
	exitDone     = 0
	exitFailed   = 1
	exitUsage    = 2
	exitNoMaster = 3
	exitLocked   = 4
	exitDamaged  = 5
)

// run translates a command line into an exit code.
func run(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	out := &outlet{Writer: stdout}
	app := newApp(out, stderr)
	ordered, err := reorder(app, args)
	if err == nil {
		err = app.RunContext(ctx, append([]string{app.Name}, ordered...))
	}
	if err == nil && out.err != nil {
		err = fmt.Errorf("write to standard output: %w", out.err)
	}
	if err == nil {
		return exitDone
	}
	fmt.Fprintf(stderr, "hsu-master: error: %v\n", err)
	if next := nextStep(err); next != "" {
		fmt.Fprintf(stderr, "hsu-master: hint: %s\n", next)
	}
	return exitCode(err)
}

// outlet remembers that something could not be written, so that no command has to look
// at each line.
type outlet struct {
	io.Writer
	err error
}

func (o *outlet) Write(p []byte) (int, error) {
	n, err := o.Writer.Write(p)
	if err != nil && o.err == nil {
		o.err = err
	}
	return n, err
}

// nextStep says what to do about an error, where its own text does not.
func nextStep(err error) string {
	if hinted, ok := errors.AsType[*hintedError](err); ok {
		return hinted.hint
	}
	if damaged, ok := errors.AsType[*store.DamagedError](err); ok && !damaged.Backup {
		return `"hsu-master state check" says what is wrong; "hsu-master run --on-damage recover" keeps the file aside and goes on from the newest good backup and the living workers`
	}
	if errors.Is(err, syscall.EMFILE) {
		return "raise the limit on open files: ulimit -n, or LimitNOFILE= of the service"
	}
	return ""
}

func newApp(stdout, stderr io.Writer) *cli.App {
	return &cli.App{
		Name:  "hsu-master",
		Usage: "run several processes on a host, and lose none of them when the master dies",
		Description: `The master starts workers, watches them, balances requests over them and
remembers all of it in a database: killed and started again, it finds its
workers as it left them.

   hsu-master run --worker-path ./my-worker --worker-count 4
   hsu-master worker list
   hsu-master call process-data --data hello

Exit codes: 0 done, 1 failed, 2 wrong usage or configuration, 3 no master is
running, 4 the state is held by another master, 5 the state is damaged.`,
		Commands: []*cli.Command{
			runCommand(),
			statusCommand(),
			stateCommand(),
			workerCommand(),
			serviceCommand(),
			callCommand(),
			pingCommand(),
			systemdCommand(),
			versionCommand(),
		},
		Action:                    missingCommand,
		HideHelpCommand:           true,
		HideVersion:               true,
		DisableSliceFlagSeparator: true,
		Writer:                    stdout,
		ErrWriter:                 stderr,
		OnUsageError:              wrongFlag,
		// Exit codes are chosen in run, and nothing else ends the process.
		ExitErrHandler: func(*cli.Context, error) {},
	}
}

// group is a command that only holds others.
func group(name, usage string, subcommands ...*cli.Command) *cli.Command {
	return &cli.Command{
		Name: name, Usage: usage, Subcommands: subcommands,
		Action: missingCommand, OnUsageError: wrongFlag, HideHelpCommand: true,
	}
}

// leaf is a command that does something. It takes the folders that every
// command takes, and no more arguments than it says.
func leaf(name, usage string, action cli.ActionFunc, flags ...cli.Flag) *cli.Command {
	return &cli.Command{
		Name: name, Usage: usage, Flags: append(flags, folderFlags()...),
		OnUsageError: wrongFlag, HideHelpCommand: true,
		Action: func(c *cli.Context) error {
			if c.NArg() > 0 {
				return usagef("%s takes no argument, got %q", c.Command.HelpName, c.Args().First())
			}
			return action(c)
		},
	}
}

// leafOf is a leaf that takes an argument.
func leafOf(name, usage, arg string, required bool, action func(c *cli.Context, arg string) error, flags ...cli.Flag) *cli.Command {
	cmd := leaf(name, usage, nil, flags...)
	cmd.ArgsUsage = arg
	if !required {
		cmd.ArgsUsage = "[" + arg + "]"
	}
	cmd.Action = func(c *cli.Context) error {
		switch {
		case c.NArg() > 1:
			return usagef("%s takes one %s, got %q too", c.Command.HelpName, arg, c.Args().Get(1))
		case c.NArg() == 0 && required:
			return usagef("a %s is missing: see %q", arg, c.Command.HelpName+" --help")
		case c.NArg() == 1 && c.Args().First() == "":
			return usagef("the %s is empty: name one", arg)
		}
		return action(c, c.Args().First())
	}
	return cmd
}

func missingCommand(c *cli.Context) error {
	cmd := c.Command.HelpName
	if cmd == "" {
		cmd = c.App.Name
	}
	return usagef("a command is missing: see %q", cmd+" --help")
}

func wrongFlag(c *cli.Context, err error, _ bool) error {
	cmd := c.Command.HelpName
	if cmd == "" {
		cmd = c.App.Name
	}
	if name, unknown := strings.CutPrefix(err.Error(), "flag provided but not defined: -"); unknown {
		err = fmt.Errorf("unknown flag --%s", strings.TrimPrefix(name, "-"))
	} else if found := badValue.FindStringSubmatch(err.Error()); found != nil {
		err = fmt.Errorf("--%s %s: %s", found[2], found[1], wanted(c.Command.Flags, found[2], found[3]))
	} else if found := badVariable.FindStringSubmatch(err.Error()); found != nil {
		err = fmt.Errorf("--%s %s (from %s): %s", found[3], found[1], found[2], wanted(c.Command.Flags, found[3], found[4]))
	}
	return usagef("%w: see %q", err, cmd+" --help")
}

// badValue is how package flag says that a value is none for its flag.
var badValue = regexp.MustCompile(`^invalid value (".*") for flag -(\S+): (.*)$`)

// badVariable is how package cli says it of an environment variable.
var badVariable = regexp.MustCompile(`^could not parse (".*") as .* from environment variable "(\S+)" for flag (\S+): (.*)$`)

// wanted says what a flag takes, or what the error does where that is not known.
func wanted(flags []cli.Flag, name, otherwise string) string {
	for _, f := range flags {
		if !slices.Contains(f.Names(), name) {
			continue
		}
		switch f.(type) {
		case *cli.DurationFlag:
			return "want a time with its unit such as 90s or 10m"
		case *cli.IntFlag, *cli.Int64Flag, *cli.UintFlag:
			return "want a whole number"
		}
	}
	return otherwise
}

// usageError is a wrong command line or configuration.
type usageError struct{ error }

func (e usageError) Unwrap() error { return e.error }

func usagef(format string, args ...any) error { return usageError{fmt.Errorf(format, args...)} }

// hintedError carries the next step to take, where the error does not name it.
type hintedError struct {
	error
	hint string
}

func (e *hintedError) Unwrap() error { return e.error }

func hint(err error, format string, args ...any) error {
	return &hintedError{error: err, hint: fmt.Sprintf(format, args...)}
}

// errNoMaster means that no master answers, and, for a command that can read
// the state by itself, that there is none.
var errNoMaster = errors.New("no master is running")

func exitCode(err error) int {
	if _, ok := errors.AsType[usageError](err); ok {
		return exitUsage
	}
	if _, ok := errors.AsType[cli.ExitCoder](err); ok { // help that was asked for of what is no command
		return exitUsage
	}
	if _, ok := errors.AsType[*store.LockedError](err); ok || errors.Is(err, errHeld) {
		return exitLocked
	}
	if _, ok := errors.AsType[*store.DamagedError](err); ok || errors.Is(err, errUnsound) {
		return exitDamaged
	}
	if errors.Is(err, errNoMaster) {
		return exitNoMaster
	}
	return exitFailed
}
