package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
	"time"

	"github.com/urfave/cli/v2"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/core-tools/hsu-master/api/adminpb"
	"github.com/core-tools/hsu-master/cmd/hsu-master/internal/exit"
	"github.com/core-tools/hsu-master/cmd/hsu-master/internal/render"
	"github.com/core-tools/hsu-master/internal/nearest"
	"github.com/core-tools/hsu-master/supervisor"
)

// longestWait is the upper bound of --timeout.
const longestWait = 24 * time.Hour

// timeoutOf returns the value of --timeout.
func timeoutOf(c *cli.Context) (time.Duration, error) {
	limit := c.Duration("timeout")
	if limit <= 0 || limit > longestWait {
		return 0, exit.Usagef("--timeout %s: must be above 0 and up to %s, such as 1m",
			limit, render.ShortAge(longestWait))
	}
	return limit, nil
}

func scaleCommand() *cli.Command {
	cmd := leafOf("scale", "set the number of workers of a unit", "UNIT=N", true, scaleUnit,
		&cli.BoolFlag{
			Name:  noWaitFlag,
			Usage: "return when the number is recorded, before workers are ready or stopped",
		},
		&cli.DurationFlag{
			Name: "timeout", Value: time.Minute,
			Usage: "`DURATION` to wait for the workers; what is recorded goes on after it",
		},
		jsonOutput())
	cmd.Description = fmt.Sprintf(`N is 0 to %d. The workers of the command line are the unit "worker".

The number replaces the configured one until a start or a reload changes that,
so it outlives restarts of the master and of the machine. Missing workers are
started; of surplus ones, those with the highest numbers are stopped gracefully.

Exit codes: 0 done, 1 not done, or not within the timeout, 2 wrong usage, 3 no
master is running.`, supervisor.MaxReplicas)
	return cmd
}

// parseScale reads UNIT=N.
func parseScale(arg string) (unit string, n int, err error) {
	unit, count, found := strings.Cut(arg, "=")
	if !found || unit == "" {
		return "", 0, exit.Usagef("%q: must be UNIT=N such as worker=3", arg)
	}
	wanted, err := strconv.ParseUint(count, 10, 16) // without a sign: +1 is no number of workers
	if err != nil || wanted > supervisor.MaxReplicas {
		return "", 0, exit.Usagef("%q: must be a number of workers from 0 to %d", arg, supervisor.MaxReplicas)
	}
	return unit, int(wanted), nil
}

func scaleUnit(c *cli.Context, arg string) error {
	unit, n, err := parseScale(arg)
	if err != nil {
		return err
	}
	limit, err := timeoutOf(c)
	if err != nil {
		return err
	}
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
	waiting := render.StartProgress(c.App.ErrWriter, "waiting for the workers of "+render.Printable(unit))
	resp, err := adminpb.NewAdminClient(conn).Scale(ctx, &adminpb.ScaleRequest{
		Unit: unit, Replicas: int32(n), //nolint:gosec // parseScale has bounded it
		NoWait: c.Bool(noWaitFlag), Timeout: durationpb.New(limit),
	})
	waiting.End()
	if status.Code(err) == codes.NotFound {
		return noUnit(ctx, f, unit)
	}
	if status.Code(err) == codes.FailedPrecondition && strings.HasPrefix(status.Convert(err).Message(),
		supervisor.ErrDisabled.Error()) {
		next := `enable it in the file, then "hsu-master reload"`
		if strings.Contains(status.Convert(err).Message(), "by an operator") {
			next = fmt.Sprintf(`"hsu-master unit enable %s" enables it`, unit)
		}
		return exit.Hint(errors.New(render.Printable(status.Convert(err).Message())), "%s", next)
	}
	if err != nil {
		return scaleError(err)
	}
	if c.Bool(jsonFlag) {
		return render.JSON(c.App.Writer, scaleJSON{
			unit, n, int(resp.GetBefore()), int(resp.GetConfigured()),
			append([]string{}, resp.GetAdded()...), append([]string{}, resp.GetRemoved()...), !c.Bool(noWaitFlag),
		})
	}
	printScaling(c.App.Writer, unit, n, resp, c.Bool(noWaitFlag))
	return nil
}

// scaleJSON is the output of "worker scale --json". Scripts depend on it.
type scaleJSON struct {
	Unit       string   `json:"unit"`
	Replicas   int      `json:"replicas"`
	Before     int      `json:"before"`
	Configured int      `json:"configured"`
	Added      []string `json:"added"`
	Removed    []string `json:"removed"`
	Done       bool     `json:"done"` // whether the added workers are ready, and the removed ones stopped
}

// noUnit returns the error for a unit that the running master does not have.
func noUnit(ctx context.Context, f folders, unit string) error {
	state, err := liveState(ctx, f)
	if err != nil {
		return err
	}
	var names []string
	for _, u := range state.GetUnits() {
		if !u.GetRetired() {
			names = append(names, u.GetName())
		}
	}
	return exit.Hint(fmt.Errorf("no such unit: %q%s", unit, nearest.DidYouMean(unit, names)),
		`"hsu-master unit list" shows the names`)
}

// scaleError turns a status of Scale into an error for the user.
func scaleError(err error) error {
	said := errors.New(render.Printable(status.Convert(err).Message()))
	switch status.Code(err) {
	case codes.InvalidArgument:
		return exit.Usage(said)
	case codes.FailedPrecondition, codes.DeadlineExceeded:
		return exit.Hint(said, `"hsu-master worker list" shows how far it is; the master goes on with what is recorded`)
	case codes.Unimplemented:
		return errOlder
	default:
		return fmt.Errorf("ask the master: %w", said)
	}
}

func printScaling(w io.Writer, unit string, n int, resp *adminpb.ScaleResponse, begun bool) {
	started, stopped := "started", "stopped"
	if begun {
		started, stopped = "being started", "being stopped"
	}
	fmt.Fprintf(w, "%s has %s, before %d", render.Printable(unit), render.Count(n, "worker"), resp.GetBefore())
	if configured := int(resp.GetConfigured()); configured != n {
		fmt.Fprintf(w, ", configured %d", configured)
	}
	fmt.Fprintln(w)
	if ids := resp.GetAdded(); len(ids) > 0 {
		fmt.Fprintln(w, render.OnTerminal(w, started+": "+render.Printable(strings.Join(ids, ", "))))
	}
	if ids := resp.GetRemoved(); len(ids) > 0 {
		fmt.Fprintln(w, render.OnTerminal(w, stopped+": "+render.Printable(strings.Join(ids, ", "))))
	}
}
