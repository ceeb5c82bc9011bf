package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"time"

	"github.com/urfave/cli/v2"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/core-tools/hsu-master/api"
	"github.com/core-tools/hsu-master/api/adminpb"
	"github.com/core-tools/hsu-master/cmd/hsu-master/internal/exit"
	"github.com/core-tools/hsu-master/cmd/hsu-master/internal/render"
	"github.com/core-tools/hsu-master/cmd/hsu-master/internal/terminal"
	"github.com/core-tools/hsu-master/store"
	"github.com/core-tools/hsu-master/store/records"
	"github.com/core-tools/hsu-master/supervisor"
	"github.com/core-tools/hsu-master/supervisor/logs"
	"github.com/core-tools/hsu-master/supervisor/logs/offsets"
	"github.com/core-tools/hsu-master/supervisor/logs/tail"
	"github.com/core-tools/hsu-master/supervisor/worker"
)

// followedLines is the number of lines that "worker logs --follow" begins with.
const followedLines = 10

func logsCommand() *cli.Command {
	cmd := leaf("logs", "print the output of workers", nil,
		&cli.BoolFlag{Name: "all", Usage: "all workers"},
		&cli.BoolFlag{
			Name: "follow", Aliases: []string{"f"},
			Usage: "go on with new lines, also with the next masters, until interrupted",
		},
		&cli.IntFlag{
			Name: "lines", Aliases: []string{"n"},
			Usage: fmt.Sprintf("`N` last lines of each worker (default: all, with --follow %d)", followedLines),
		},
		&cli.StringFlag{
			Name:  "since",
			Usage: "`TIME` leave out older lines: a duration such as 10m, or a time such as 2026-03-01T12:00:00Z",
		},
		&cli.StringFlag{Name: "grep", Usage: "`REGEXP` only lines that match"},
		&cli.BoolFlag{Name: "previous", Usage: "the output of the instance before the present one"},
		jsonOutput())
	cmd.ArgsUsage = "[ID|UNIT]..."
	cmd.Action = printLogs
	cmd.Description = `Prints the lines in the logs of the workers and in their rotated files, of one
worker after the other. Lines of several workers begin with the worker's id.
With --follow, new lines come in the order in which they are written, also of
later instances, of workers that a unit gets meanwhile, over rotations, and with
the next master if one ends: no line is lost or repeated.

Lines have no time of their own, so --since leaves out those that are known to
be older, and may print some that are: see hsu-master(1).

Without a running master, the files are read; --follow needs one.

Exit codes: 0 done, 1 no output can be read, 2 wrong usage, 3 no master is
running.`
	return cmd
}

// logRequest reads the command line.
func logRequest(c *cli.Context, now time.Time) (*adminpb.LogsRequest, error) {
	req := &adminpb.LogsRequest{
		Names: c.Args().Slice(), All: c.Bool("all"), Follow: c.Bool("follow"), Previous: c.Bool("previous"),
		Match: c.String("grep"),
	}
	lines := int64(c.Int("lines"))
	switch {
	case req.GetAll() && len(req.GetNames()) > 0:
		return nil, exit.Usagef("--all and %q: name workers, or all of them", req.GetNames()[0])
	case !req.GetAll() && len(req.GetNames()) == 0:
		return nil, exit.Usagef(`name workers or units, or give --all: "hsu-master worker list" lists them`)
	case req.GetFollow() && req.GetPrevious():
		return nil, exit.Usagef("--follow and --previous: that output has ended")
	case lines < 0:
		return nil, exit.Usagef("--lines %d: must be 0 or more", lines)
	case c.IsSet("lines"):
		req.Lines = &lines
	case req.GetFollow():
		req.Lines = new(int64(followedLines))
	}
	if _, err := regexp.Compile(req.GetMatch()); err != nil {
		return nil, exit.Usagef("--grep: %w", err)
	}
	if given := c.String("since"); c.IsSet("since") {
		since, err := parseSince(given, now)
		if err != nil {
			return nil, err
		}
		req.Since = timestamppb.New(since)
	}
	return req, nil
}

func printLogs(c *cli.Context) error {
	req, err := logRequest(c, time.Now())
	if err != nil {
		return err
	}
	f, err := foldersOf(c)
	if err != nil {
		return err
	}
	out := newLogPrinter(c, req)
	_, err = liveState(c.Context, f)
	if errors.Is(err, exit.ErrNoMaster) {
		if req.GetFollow() {
			return exit.Hint(err, `start one with "hsu-master run"; without --follow, the files are read`)
		}
		return readLogs(c.Context, f, req, out)
	}
	if err != nil {
		return err
	}
	ctx, end := terminal.WithReader(c.Context, c.App.Writer)
	defer end()
	err = (&logReader{folders: f, req: req, out: out}).run(ctx)
	if errors.Is(context.Cause(ctx), terminal.ErrNoReader) { // it may have gone before the master was asked
		return nil
	}
	return err
}

// unknownLog returns the error for names of which one is no worker or unit, with the path of the log if it is that of a
// worker that was removed.
func unknownLog(said error, f folders, names []string) error {
	for _, name := range names {
		path := logs.Path(logs.DefaultDir(f.state), filepath.Base(name))
		if _, err := os.Lstat(path); err == nil && strings.Contains(said.Error(), strconv.Quote(name)) {
			return exit.Hint(said, "it was removed; its log is kept: %s", render.Printable(path))
		}
	}
	return exit.Hint(said, `"hsu-master worker list" lists the workers`)
}

// logsError turns a status of Logs of these workers and units into an error for the user. It returns other errors as
// they are.
func logsError(err error, f folders, names []string) error {
	said, isStatus := status.FromError(err)
	if err == nil || !isStatus {
		return err
	}
	text := errors.New(render.Printable(said.Message()))
	switch said.Code() { //nolint:exhaustive // the others are not expected
	case codes.InvalidArgument:
		return exit.Usage(text)
	case codes.NotFound:
		if said.Message() == tail.ErrNoPrevious.Error() {
			return exit.Hint(text, "leave --previous out for the output of the present instance")
		}
		return unknownLog(text, f, names)
	case codes.FailedPrecondition:
		return text
	case codes.ResourceExhausted:
		return tooManyStreams(text)
	case codes.Unimplemented:
		return errOlder
	}
	return fmt.Errorf("ask the master: %w", text)
}

// tooManyStreams returns the error for the user of a master that serves no further stream.
func tooManyStreams(said error) error {
	return exit.Hint(said, "end some commands that follow or watch; one of them can follow several workers")
}

// offlineLog returns the worker of a record, which does not say where its output goes.
func offlineLog(rec records.Worker, path string) worker.Info {
	i := worker.Info{Worker: rec, LogPath: path}
	if _, err := os.Lstat(path); errors.Is(err, fs.ErrNotExist) {
		i.Elsewhere = fmt.Sprintf(`it has no log: with "log.to: journal", see "journalctl -t %s"`, rec.ID)
	}
	return i
}

// readLogs prints the lines of the files while no master runs.
func readLogs(ctx context.Context, f folders, req *adminpb.LogsRequest, out *logPrinter) error {
	snap, err := store.ReadSnapshot(f.state)
	if err != nil {
		return offline(f, err)
	}
	dir := logs.DefaultDir(f.state)
	infos := make([]worker.Info, 0, len(snap.Workers))
	for _, w := range snap.Workers {
		infos = append(infos, offlineLog(w, logs.Path(dir, w.ID)))
	}
	infos, err = supervisor.SelectRecorded(snap, infos, req.GetAll(), req.GetNames()...)
	if err != nil {
		return unknownLog(err, f, req.GetNames())
	}
	query, err := api.LogQueryOf(req)
	if err != nil {
		return logsError(err, f, req.GetNames())
	}
	printer := &logReader{req: req, out: out}
	hub := tail.NewHub(dir, &offsets.Tables{})
	return logsError(api.SendLogs(ctx, hub, infos, query, nil, printer.print), f, req.GetNames())
}
