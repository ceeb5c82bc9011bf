package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/urfave/cli/v2"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/core-tools/hsu-master/api/adminpb"
	"github.com/core-tools/hsu-master/cmd/hsu-master/internal/exit"
	"github.com/core-tools/hsu-master/cmd/hsu-master/internal/render"
	"github.com/core-tools/hsu-master/supervisor"
)

const defaultReloadTimeout = 10 * time.Minute

func reloadCommand() *cli.Command {
	cmd := leaf("reload", "have the running master read its configuration file again", reload,
		&cli.BoolFlag{Name: "dry-run", Usage: "print what would change, and change nothing"},
		noWait(),
		&cli.DurationFlag{
			Name: "timeout", Value: defaultReloadTimeout,
			Usage: "`DURATION` wait this long for the workers; the master goes on",
		},
		jsonOutput())
	cmd.Description = `Prints what changes, and returns when it is done: missing workers are started,
unwanted ones stopped, and those whose command, environment, folder, port or
executable differ replaced one by one, the next only when the new one is ready,
or several at the same time: see update.max_unavailable. With update.order:
start-first, a spare worker runs meanwhile. Other settings apply at once. The
reload stops at the first worker that does not get ready. A master that is
started after a crash completes it. SIGHUP does the same.

With --no-wait, it is not known whether the workers get ready: "worker list"
shows how far it is, and an event tells if the reload stops.

With --json, one object is printed at the end of the wait. Its field done is
false if the reload goes on, or has failed, and with --dry-run or --no-wait.

A master without a file looks for changed executables, and marks the workers
that run the former ones as outdated.

Exit codes: 0 done, 1 a worker did not get ready, the workers of a unit cannot
be started, or the master is stopping, 2 the file is faulty and nothing was
changed, 3 no master is running.`
	return cmd
}

// reloadJSON is the output of "reload --json". Scripts depend on it.
type reloadJSON struct {
	Changes []unitChangeJSON `json:"changes"`
	Later   []string         `json:"later"` // settings that take effect at the next start
	Done    bool             `json:"done"`  // it was waited for to its end
}

type unitChangeJSON struct {
	Unit    string   `json:"unit"`
	Action  string   `json:"action"`
	Workers []string `json:"workers"`
	Reasons []string `json:"reasons"`
}

func reload(c *cli.Context) error {
	f, err := foldersOf(c)
	if err != nil {
		return err
	}
	timeout, err := timeoutOf(c)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(c.Context, timeout)
	defer cancel()
	conn, err := dialRegistry(ctx, f)
	if err != nil {
		return err
	}
	defer func() { _ = conn.Close() }()
	client := adminpb.NewAdminClient(conn)
	stream, err := client.Reload(ctx, &adminpb.ReloadRequest{
		DryRun: c.Bool("dry-run"), NoWait: c.Bool(noWaitFlag),
	})
	if err != nil {
		return reloadError(ctx, err, "")
	}
	waiting := render.StartProgress(c.App.ErrWriter, "waiting for the master")
	plan, err := stream.Recv()
	waiting.End()
	if err != nil {
		return reloadError(ctx, err, "")
	}
	if !c.Bool(jsonFlag) {
		printReload(c.App.Writer, plan)
	}
	waiting = render.StartProgress(c.App.ErrWriter, "waiting for the workers")
	watch := watchReload(ctx, client, plan, waiting)
	more, err := stream.Recv()
	last := watch.end()
	waiting.End()
	if c.Bool(jsonFlag) {
		shown := reloadToJSON(plan)
		shown.Done = errors.Is(err, io.EOF) && !c.Bool("dry-run") && !c.Bool(noWaitFlag)
		if err := render.JSON(c.App.Writer, shown); err != nil {
			return err
		}
	}
	switch {
	case more.GetBegun():
		if !c.Bool(jsonFlag) && len(plan.GetChanges()) > 0 {
			printBegun(c.App.Writer)
		}
	case !errors.Is(err, io.EOF):
		return reloadError(ctx, err, last)
	}
	return blockedError(plan)
}

// printBegun prints the outcome of a reload with --no-wait.
func printBegun(w io.Writer) {
	fmt.Fprintln(w, render.OnTerminal(w, `recorded and begun: "hsu-master worker list" shows how far it is`))
}

// blockedError returns an error if the plan has units whose workers cannot be started. Their living workers stay.
func blockedError(plan *adminpb.ReloadResponse) error {
	var names []string
	for _, c := range plan.GetChanges() {
		if c.GetAction() == string(supervisor.ActionBlocked) {
			names = append(names, c.GetUnit())
		}
	}
	if len(names) == 0 {
		return nil
	}
	return exit.Hint(fmt.Errorf("workers of %s cannot be started", render.Printable(strings.Join(names, ", "))),
		"correct it, then reload again; the living workers stay until then")
}

// reloadError returns the error for the end of a reload that waited for these workers last.
func reloadError(ctx context.Context, err error, last string) error {
	text := status.Convert(err).Message()
	code := status.Code(err)
	switch {
	case ctx.Err() != nil, code == codes.DeadlineExceeded, code == codes.Canceled: // the master may notice it first
		if last != "" {
			last = ": it waits for " + last
		}
		return exit.Hint(fmt.Errorf("the reload is not done in time, the master goes on with it%s", last),
			`see "hsu-master worker list", or give a longer --timeout`)
	case status.Code(err) == codes.InvalidArgument:
		return exit.Usage(errors.New(text))
	case status.Code(err) == codes.Unavailable: // the connection broke; no master answers that
		return exit.Hint(errors.New("the master ended before the reload was done"),
			`start it again with the same file, then "hsu-master reload --dry-run" shows what is left to do`)
	}
	return fmt.Errorf("reload: %s", text)
}

func reloadToJSON(plan *adminpb.ReloadResponse) reloadJSON {
	out := reloadJSON{Changes: []unitChangeJSON{}, Later: append([]string{}, plan.GetLater()...)}
	for _, change := range plan.GetChanges() {
		out.Changes = append(out.Changes, unitChangeJSON{
			change.GetUnit(), change.GetAction(), change.GetWorkers(), change.GetReasons(),
		})
	}
	return out
}

func printReload(w io.Writer, plan *adminpb.ReloadResponse) {
	for _, c := range plan.GetChanges() {
		fmt.Fprintln(w, render.OnTerminal(w, fmt.Sprintf("%s: %s %s: %s", render.Printable(c.GetUnit()),
			verbs[supervisor.Action(c.GetAction())], render.Count(len(c.GetWorkers()), "worker"),
			render.Printable(strings.Join(c.GetReasons(), ", ")))))
	}
	for _, key := range plan.GetLater() {
		when := "at the next start of the master"
		if key == "listen" {
			when += `, or under systemd after "hsu-master systemd install", as the listener is the socket unit's`
		}
		fmt.Fprintln(w, render.OnTerminal(w, fmt.Sprintf("%s: takes effect %s", render.Printable(key), when)))
	}
	if len(plan.GetChanges())+len(plan.GetLater()) == 0 {
		fmt.Fprintln(w, "nothing has changed")
	}
}

// verbs maps actions to their names in the output.
var verbs = map[supervisor.Action]string{
	supervisor.ActionStart:    "start",
	supervisor.ActionStop:     "stop and forget",
	supervisor.ActionReplace:  "replace in turn",
	supervisor.ActionRetry:    "try again",
	supervisor.ActionUpdate:   "apply to",
	supervisor.ActionOutdated: "mark as outdated",
	supervisor.ActionBlocked:  "cannot start",
	supervisor.ActionWatch:    "watch",
	supervisor.ActionUnwatch:  "stop watching",
}
