// Command hsu-master runs and supervises the workers of one host, and forwards requests to them: see "hsu-master
// --help" and hsu-master(1).
package main

import (
	"context"
	"fmt"
	"io"
	"os"

	"github.com/urfave/cli/v2"

	"github.com/core-tools/hsu-master/cmd/hsu-master/internal/daemon"
	"github.com/core-tools/hsu-master/cmd/hsu-master/internal/exit"
	"github.com/core-tools/hsu-master/cmd/hsu-master/internal/logging"
	"github.com/core-tools/hsu-master/master"
)

func main() {
	master.RunStartHelper()
	t := daemon.TakeOver(os.Stderr)
	leaked := watchLeaks()
	defer func() {
		if p := recover(); p != nil {
			t.FallBack(fmt.Sprintf("it panicked before it served: %v", p))
			panic(p)
		}
	}()
	code := run(daemon.WithTakeover(context.Background(), t), os.Args[1:], os.Stdout, os.Stderr)
	t.FallBack(fmt.Sprintf("it ended with exit code %d before it served", code))
	os.Exit(leaked(code))
}

// run executes a command line and returns the exit code.
func run(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	ctx, args = daemon.AsUpgradeCheck(ctx, args)
	out := &outlet{Writer: stdout}
	app := newApp(out, stderr)
	ordered, err := reorder(app, args)
	if err == nil {
		err = app.RunContext(withCommand(ctx, args), append([]string{app.Name}, ordered...))
	}
	if err == nil && out.err != nil {
		err = fmt.Errorf("write to standard output: %w", out.err)
	}
	if err == nil {
		return exit.Done
	}
	fmt.Fprintf(stderr, "%shsu-master: error: %v\n", logging.Prefix(stderr, logging.PriorityError), err)
	if next := exit.NextStep(err); next != "" {
		fmt.Fprintf(stderr, "%shsu-master: hint: %s\n", logging.Prefix(stderr, logging.PriorityNotice), next)
	}
	return exit.Code(err)
}

// outlet records the first write error, so that commands need not check each write.
type outlet struct {
	io.Writer
	err error
}

// Unwrap returns the writer below, for package terminal.
func (o *outlet) Unwrap() io.Writer { return o.Writer }

func (o *outlet) Write(p []byte) (int, error) {
	n, err := o.Writer.Write(p)
	if err != nil && o.err == nil {
		o.err = err
	}
	return n, err
}

func newApp(stdout, stderr io.Writer) *cli.App {
	return &cli.App{
		Name:  "hsu-master",
		Usage: "run and supervise worker processes that survive the master",
		Description: `The master starts workers, checks their health, balances requests over them,
and records their state in a database. After a crash, the next master adopts
the workers that are still running.

  hsu-master run --worker-path ./my-worker --worker-count 4
  hsu-master worker list
  hsu-master call process-data --data hello

Flags can precede or follow commands. Each command accepts --help and --version.

Exit codes: 0 done, 1 failed, 2 wrong usage or configuration, 3 no master is
running, 4 the state is held by another master, 5 the state is damaged.`,
		Commands: []*cli.Command{
			runCommand(),
			statusCommand(),
			stateCommand(),
			workerCommand(),
			unitCommand(),
			whyCommand(),
			topCommand(),
			reloadCommand(),
			eventsCommand(),
			downCommand(),
			detachCommand(),
			upgradeCommand(),
			serviceCommand(),
			callCommand(),
			pingCommand(),
			systemdCommand(),
			configCommand(),
			completionCommand(),
			completeCommand(),
			versionCommand(),
		},
		Before:                    warnOfVariables,
		Action:                    missingCommand,
		HideHelpCommand:           true,
		HideVersion:               true,
		DisableSliceFlagSeparator: true,
		Writer:                    stdout,
		ErrWriter:                 stderr,
		OnUsageError:              wrongFlag,
		// run chooses the exit code; the library must not exit the process.
		ExitErrHandler: func(*cli.Context, error) {},
	}
}

// group returns a command that only has subcommands.
func group(name, usage string, subcommands ...*cli.Command) *cli.Command {
	return &cli.Command{
		Name: name, Usage: usage, Subcommands: subcommands,
		Action: missingCommand, OnUsageError: wrongFlag, HideHelpCommand: true,
	}
}

// leaf returns a command that performs an action. It accepts the folder flags besides its own, and no arguments.
func leaf(name, usage string, action cli.ActionFunc, flags ...cli.Flag) *cli.Command {
	return &cli.Command{
		Name: name, Usage: usage, Flags: append(flags, folderFlags()...),
		OnUsageError: wrongFlag, HideHelpCommand: true,
		Action: func(c *cli.Context) error {
			if c.NArg() > 0 {
				return exit.Usagef("%s takes no argument, got %q", c.Command.HelpName, c.Args().First())
			}
			return action(c)
		},
	}
}

// leafOf returns a leaf that takes one argument.
func leafOf(name, usage, arg string, required bool,
	action func(c *cli.Context, arg string) error, flags ...cli.Flag,
) *cli.Command {
	cmd := leaf(name, usage, nil, flags...)
	cmd.ArgsUsage = arg
	if !required {
		cmd.ArgsUsage = "[" + arg + "]"
	}
	cmd.Action = func(c *cli.Context) error {
		switch {
		case c.NArg() > 1:
			return exit.Usagef("%s takes one %s, got %q too", c.Command.HelpName, arg, c.Args().Get(1))
		case c.NArg() == 0 && required:
			return exit.Usagef("no %s is given: see %q", arg, c.Command.HelpName+" --help")
		case c.NArg() == 1 && c.Args().First() == "":
			return exit.Usagef("the %s is empty: name one", arg)
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
	return exit.Usagef("a command is missing: see %q", cmd+" --help")
}

// wrongFlag adds a hint to an error of the flag parser. reorder has refused unknown flags and wrong values before.
func wrongFlag(c *cli.Context, err error, _ bool) error {
	cmd := c.Command.HelpName
	if cmd == "" {
		cmd = c.App.Name
	}
	return exit.Usagef("%w: see %q", err, cmd+" --help")
}
