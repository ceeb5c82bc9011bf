package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/urfave/cli/v2"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/core-tools/hsu-master/api/adminpb"
	"github.com/core-tools/hsu-master/cmd/hsu-master/internal/exit"
	"github.com/core-tools/hsu-master/cmd/hsu-master/internal/render"
	"github.com/core-tools/hsu-master/cmd/hsu-master/internal/terminal"
	"github.com/core-tools/hsu-master/supervisor"
)

const (
	outdatedFlag = "outdated"
	noWaitFlag   = "no-wait"
)

const exitCodesOfActs = `

Exit codes: 0 done, 1 failed, or not done within the timeout, 2 wrong usage,
3 no master is running.`

// actCommand returns the command of a verb for workers or units, which takes their names.
func actCommand(verb supervisor.Verb, usage, names, description string, flags ...cli.Flag) *cli.Command {
	cmd := leaf(string(verb), usage, nil, append(flags,
		noWait(),
		&cli.DurationFlag{
			Name: "timeout", Value: time.Minute,
			Usage: "`DURATION` to wait for the outcome; what has begun goes on after it",
		}, jsonOutput())...)
	cmd.ArgsUsage = names
	cmd.Description = description + exitCodesOfActs
	cmd.Action = func(c *cli.Context) error {
		return act(c, &adminpb.ActRequest{Verb: string(verb), Names: c.Args().Slice()})
	}
	return cmd
}

func noWait() cli.Flag {
	return &cli.BoolFlag{Name: noWaitFlag, Usage: "return when it is recorded and has begun"}
}

func allFlag() cli.Flag {
	return &cli.BoolFlag{Name: "all", Usage: "all workers that the master starts, in place of names"}
}

func evenNeeded() cli.Flag {
	return &cli.BoolFlag{Name: forceFlag, Usage: "also what running units depend on"}
}

func startCommand() *cli.Command {
	return actCommand(supervisor.VerbStart, "start workers, and give them their whole restart budget", "ID|UNIT...",
		`Starts workers that were stopped, have failed or wait for their restart, and
runs those with a schedule now. It returns when they are ready. Workers that
run already stay as they are.`, allFlag())
}

func stopCommand() *cli.Command {
	return actCommand(supervisor.VerbStop, "stop workers until they are started again", "ID|UNIT...",
		`Stops workers gracefully, those that depend on others first. They stay stopped
over restarts of the master and of the machine, and over reloads, until "worker
start". A worker that a scale or a reload has removed since starts again when it
comes back.`, allFlag(), evenNeeded())
}

func restartCommand() *cli.Command {
	return actCommand(supervisor.VerbRestart, "restart workers one by one", "ID|UNIT...",
		`Restarts workers that run, those that others depend on first, and of each unit
one after the other: the next one when the new one is ready. Calls in flight
finish within the grace. The first that does not get ready ends the restart, and
the others go on as they are. Workers that an operator has stopped stay stopped.`,
		allFlag(), &cli.BoolFlag{
			Name: outdatedFlag, Usage: "only workers whose executable or unit has changed since their start",
		})
}

func signalCommand() *cli.Command {
	cmd := actCommand(supervisor.VerbSignal, "send a signal to the main process of workers", "SIGNAL ID|UNIT...",
		`SIGNAL is a name such as HUP or SIGHUP, or a number. A worker that ends by it
is restarted by its policy. A worker stopped by STOP is reported as suspended.`, allFlag())
	cmd.Action = func(c *cli.Context) error {
		if c.NArg() == 0 {
			return exit.Usagef("no SIGNAL is given: see %q", c.Command.HelpName+" --help")
		}
		if _, err := supervisor.ParseSignal(c.Args().First()); err != nil {
			return exit.Usagef("%w: see %q", err, c.Command.HelpName+" --help")
		}
		return act(c, &adminpb.ActRequest{
			Verb: string(supervisor.VerbSignal), Signal: c.Args().First(), Names: c.Args().Tail(),
		})
	}
	return cmd
}

// actJSON is a line of the output of a verb with --json. The name is empty only if no worker was concerned. Scripts
// depend on it.
type actJSON struct {
	Name   string `json:"name"`
	Stage  string `json:"phase"`
	Reason string `json:"reason,omitempty"`
}

// act has the running master execute a verb, and prints a line for each worker or unit.
func act(c *cli.Context, req *adminpb.ActRequest) error {
	req.All, req.Force, req.NoWait = c.Bool("all"), c.Bool(forceFlag), c.Bool(noWaitFlag)
	req.Outdated = c.Bool(outdatedFlag)
	if req.GetOutdated() && len(req.GetNames()) == 0 {
		req.All = true
	}
	switch {
	case req.GetAll() && len(req.GetNames()) > 0:
		return exit.Usagef("--all stands in place of names, got %q too", req.GetNames()[0])
	case !req.GetAll() && len(req.GetNames()) == 0:
		return exit.Usagef("a name is missing: see %q", c.Command.HelpName+" --help")
	}
	limit, err := timeoutOf(c)
	if err != nil {
		return err
	}
	req.Timeout = durationpb.New(limit)
	f, err := foldersOf(c)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(c.Context, limit+answerWithin)
	defer cancel()
	conn, err := dialRegistry(ctx, f)
	if err != nil {
		return err
	}
	defer func() { _ = conn.Close() }()
	stream, err := adminpb.NewAdminClient(conn).Act(ctx, req)
	if err != nil {
		return actError(err)
	}
	return printAct(c, stream.Recv, req)
}

// printAct prints the reports of the master until the end: progress on a terminal, and the outcomes.
func printAct(c *cli.Context, receive func() (*adminpb.ActResponse, error), req *adminpb.ActRequest) error {
	failed := ""
	for told := false; ; told = true {
		r, err := receive()
		if errors.Is(err, io.EOF) {
			if req.GetOutdated() && !told {
				return printNoneOutdated(c)
			}
			return nil
		}
		if status.Code(err) == codes.Aborted && failed != "" {
			return exit.Hint(errors.New("not all is done"), `"hsu-master why %s" explains it`, failed)
		}
		if err != nil {
			return actError(err)
		}
		stage := supervisor.Stage(r.GetPhase())
		if stage == supervisor.StageFailed && failed == "" {
			failed = render.Printable(r.GetName())
		}
		last := stage == supervisor.StageDone || stage == supervisor.StageFailed ||
			req.GetNoWait() && stage == supervisor.StageBegun
		switch {
		case c.Bool(jsonFlag):
			err = render.JSONLine(c.App.Writer, actJSON{r.GetName(), r.GetPhase(), r.GetReason()})
		case last:
			_, err = fmt.Fprintln(c.App.Writer, render.OnTerminal(c.App.Writer, actLine(r)))
		case r.GetReason() != "" && terminal.Is(c.App.ErrWriter):
			_, err = fmt.Fprintln(c.App.ErrWriter, render.OnTerminal(c.App.ErrWriter, actLine(r)))
		}
		if err != nil {
			return fmt.Errorf("print: %w", err)
		}
	}
}

// printNoneOutdated prints the outcome of "restart --outdated" that has restarted none.
func printNoneOutdated(c *cli.Context) (err error) {
	const text = "no worker is outdated"
	if c.Bool(jsonFlag) {
		return render.JSONLine(c.App.Writer, actJSON{"", string(supervisor.StageDone), text})
	}
	if _, err = fmt.Fprintln(c.App.Writer, text); err != nil {
		return fmt.Errorf("print: %w", err)
	}
	return nil
}

func actLine(r *adminpb.ActResponse) string {
	name, reason := render.Printable(r.GetName()), render.Printable(r.GetReason())
	switch stage := supervisor.Stage(r.GetPhase()); {
	case stage == supervisor.StageFailed:
		return name + ": failed: " + reason
	case reason == "":
		return name + ": " + r.GetPhase()
	}
	return name + ": " + reason
}

// actError turns a status of Act into an error for the user.
func actError(err error) error {
	said := errors.New(render.Printable(status.Convert(err).Message()))
	switch status.Code(err) {
	case codes.NotFound:
		return exit.Hint(said, `"hsu-master worker list" and "hsu-master unit list" show the names`)
	case codes.InvalidArgument:
		return exit.Usage(said)
	case codes.FailedPrecondition:
		return said
	case codes.Aborted:
		return exit.Hint(errors.New("not all is done"), `"hsu-master worker list" shows more`)
	case codes.ResourceExhausted:
		return exit.Hint(fmt.Errorf("nothing was changed: %w", said), "make room for the state, then try again")
	case codes.DeadlineExceeded, codes.Canceled:
		return exit.Hint(said, `the master goes on: "hsu-master worker list" shows how far it is`)
	case codes.Unavailable:
		return exit.Hint(errors.New("the master ended before this was done"),
			`start it again: what is recorded is completed; "hsu-master worker list" shows how far it is`)
	case codes.Unimplemented:
		return errOlder
	default:
		return fmt.Errorf("ask the master: %w", said)
	}
}
