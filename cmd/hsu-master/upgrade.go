package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"time"
	"unicode/utf8"

	"github.com/urfave/cli/v2"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/core-tools/hsu-master/api/adminpb"
	"github.com/core-tools/hsu-master/cmd/hsu-master/internal/exit"
	"github.com/core-tools/hsu-master/cmd/hsu-master/internal/render"
)

const (
	defaultDrain          = 30 * time.Second
	defaultUpgradeTimeout = 3 * time.Minute
)

func upgradeCommand() *cli.Command {
	cmd := leaf("upgrade", "replace the program of the running master in place", upgrade,
		&cli.StringFlag{
			Name:  "binary",
			Usage: "`PATH` the new program (default: what is now at the path of the running one)",
		},
		&cli.DurationFlag{
			Name: "drain", Value: defaultDrain,
			Usage: "`DURATION` end calls in flight that take longer than this",
		},
		&cli.BoolFlag{Name: noWaitFlag, Usage: "return when the new program is checked and the upgrade has begun"},
		&cli.DurationFlag{
			Name: "timeout", Value: defaultUpgradeTimeout,
			Usage: "`DURATION` wait this long for the new program; the upgrade goes on",
		},
		jsonOutput())
	cmd.Description = `The process, the port, the workers and the lock of the state stay the same.
The new program first checks the configuration and a copy of the state; if that
fails, nothing is changed. Then calls in flight end, new connections wait, and
the new program is executed. If it does not serve in time, the former one is
executed again. SIGUSR2 does the same.

With --no-wait, the new program has passed its checks, and whether it serves is
not known: "status" shows the version that does, and the event "upgrade" or
"upgrade-failed" the outcome.

Exit codes: 0 done, 1 the former program still serves or serves again, 3 no
master is running.`
	return cmd
}

// upgradeJSON is the output of "upgrade --json". Scripts depend on it.
type upgradeJSON struct {
	From     string `json:"from"`
	To       string `json:"to"`
	Done     bool   `json:"done"`                // false with --no-wait, which leaves out the rest
	CallsCut *int32 `json:"calls_cut,omitempty"` // calls
	Paused   string `json:"paused,omitempty"`    // how long new connections waited at most
}

func upgrade(c *cli.Context) error {
	f, err := foldersOf(c)
	if err != nil {
		return err
	}
	request := &adminpb.UpgradeRequest{Drain: durationpb.New(c.Duration("drain"))}
	if drain := c.Duration("drain"); drain <= 0 {
		return exit.Usagef("--drain %s: must be above 0, such as 30s", drain)
	}
	timeout, err := timeoutOf(c)
	if err != nil {
		return err
	}
	if path := c.String("binary"); path != "" {
		if request.Binary, err = filepath.Abs(path); err != nil {
			return err
		}
		if !utf8.ValidString(request.GetBinary()) {
			return exit.Usagef("--binary %q: a master takes only paths in UTF-8: rename it", path)
		}
	}
	ctx, cancel := context.WithTimeout(c.Context, timeout)
	defer cancel()
	waiting := render.StartProgress(c.App.ErrWriter, "upgrading")
	outcome, err := awaitUpgrade(ctx, f, request, c.Bool(noWaitFlag), waiting)
	waiting.End()
	if err != nil {
		return err
	}
	if outcome.GetStep() == adminpb.UpgradeResponse_FAILED {
		return exit.Hint(fmt.Errorf("the former program, version %s, serves again: %s",
			render.Printable(outcome.GetFrom()), render.Printable(outcome.GetFailure())), "see the log of the master")
	}
	return printUpgrade(c, outcome)
}

func printUpgrade(c *cli.Context, o *adminpb.UpgradeResponse) error {
	paused := o.GetPaused().AsDuration().Round(time.Millisecond)
	done := o.GetStep() == adminpb.UpgradeResponse_DONE
	if c.Bool(jsonFlag) {
		shown := upgradeJSON{From: o.GetFrom(), To: o.GetTo(), Done: done}
		if done {
			shown.CallsCut, shown.Paused = &o.Cut, paused.String()
		}
		return render.JSON(c.App.Writer, shown)
	}
	if !done {
		fmt.Fprintf(c.App.Writer, "upgrading from version %s to %s, which has passed its checks\n%s\n",
			render.Printable(o.GetFrom()), render.Printable(o.GetTo()), render.OnTerminal(c.App.Writer,
				`whether it serves is not known yet: "hsu-master status" shows the version that does`))
		return nil
	}
	fmt.Fprintf(c.App.Writer, "upgraded from version %s to %s\ncallers waited at most %s, %s cut\n",
		render.Printable(o.GetFrom()), render.Printable(o.GetTo()), paused, render.Count(int(o.GetCut()), "call"))
	return nil
}

// awaitUpgrade has the master upgraded, and returns the outcome; with noWait, the first step after the checks. The
// master goes on with the upgrade when the connection ends.
func awaitUpgrade(ctx context.Context, f folders, request *adminpb.UpgradeRequest, noWait bool,
	waiting *render.Progress,
) (*adminpb.UpgradeResponse, error) {
	conn, err := dialRegistry(ctx, f)
	if err != nil {
		return nil, err
	}
	defer func() { _ = conn.Close() }()
	stream, err := adminpb.NewAdminClient(conn).Upgrade(ctx, request)
	if err != nil {
		return nil, upgradeError(ctx, err)
	}
	var last *adminpb.UpgradeResponse
	for {
		resp, err := stream.Recv()
		executing := last.GetStep() >= adminpb.UpgradeResponse_DRAINING
		switch {
		case err == nil:
			last = resp
			step := steps[resp.GetStep()]
			waiting.Detail.Store(&step)
			if noWait && resp.GetStep() >= adminpb.UpgradeResponse_DRAINING {
				return resp, nil
			}
		case errors.Is(err, io.EOF), executing && status.Code(err) == codes.Unavailable: // the connection ended
			return outcomeOf(ctx, f, last.GetId())
		default:
			return nil, upgradeError(ctx, err)
		}
	}
}

// steps describes the steps of an upgrade.
var steps = map[adminpb.UpgradeResponse_Step]string{
	adminpb.UpgradeResponse_CHECKING:  "checking the new program",
	adminpb.UpgradeResponse_DRAINING:  "waiting for the calls in flight",
	adminpb.UpgradeResponse_EXECUTING: "starting the new program",
}

// outcomeOf asks the master that serves now about an upgrade.
func outcomeOf(ctx context.Context, f folders, id string) (*adminpb.UpgradeResponse, error) {
	for {
		outcome, err := askOutcome(ctx, f, id)
		switch {
		case status.Code(err) == codes.Unavailable: // it is being replaced
		case status.Code(err) == codes.NotFound:
			return nil, exit.Hint(errors.New("the master ended during the upgrade, and another one was started"),
				`see "hsu-master status" for its version`)
		case errors.Is(err, exit.ErrNoMaster):
			return nil, exit.Hint(fmt.Errorf("the master ended during the upgrade: %w", err),
				"its workers keep running: start the master again")
		case err != nil:
			return nil, upgradeError(ctx, err)
		default:
			return outcome, nil
		}
		select {
		case <-time.After(startingPoll):
		case <-ctx.Done():
			return nil, upgradeError(ctx, ctx.Err())
		}
	}
}

func askOutcome(ctx context.Context, f folders, id string) (*adminpb.UpgradeResponse, error) {
	conn, err := dialAdmin(ctx, f)
	if err != nil {
		return nil, err
	}
	defer func() { _ = conn.Close() }()
	stream, err := adminpb.NewAdminClient(conn).Upgrade(ctx, &adminpb.UpgradeRequest{Id: id})
	if err != nil {
		return nil, err
	}
	return stream.Recv()
}

// upgradeError returns the error for the end of an upgrade without an outcome.
func upgradeError(ctx context.Context, err error) error {
	switch code := status.Code(err); {
	case ctx.Err() != nil, code == codes.DeadlineExceeded:
		return exit.Hint(errors.New("the upgrade is not done in time, it goes on"),
			`see "hsu-master status" for the version, or give a longer --timeout`)
	case code == codes.FailedPrecondition:
		return exit.Hint(fmt.Errorf("upgrade refused: %s", status.Convert(err).Message()), "nothing was changed")
	}
	return fmt.Errorf("upgrade: %s", status.Convert(err).Message())
}
