package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"slices"
	"strings"
	"time"

	"github.com/urfave/cli/v2"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/core-tools/hsu-master/api"
	"github.com/core-tools/hsu-master/api/adminpb"
	"github.com/core-tools/hsu-master/cmd/hsu-master/internal/describe"
	"github.com/core-tools/hsu-master/cmd/hsu-master/internal/exit"
	"github.com/core-tools/hsu-master/cmd/hsu-master/internal/render"
	"github.com/core-tools/hsu-master/cmd/hsu-master/internal/terminal"
	"github.com/core-tools/hsu-master/internal/eventtype"
	"github.com/core-tools/hsu-master/internal/nearest"
	"github.com/core-tools/hsu-master/store"
	"github.com/core-tools/hsu-master/store/records"
	"github.com/core-tools/hsu-master/supervisor"
	"github.com/core-tools/hsu-master/supervisor/history"
	"github.com/core-tools/hsu-master/supervisor/worker"
)

// followedEvents is the number of recorded events that "events -f" begins with.
const followedEvents = 10

func eventsCommand() *cli.Command {
	cmd := leaf("events", "print the history: what workers did, and what operators told them", nil,
		&cli.BoolFlag{
			Name: "follow", Aliases: []string{"f"},
			Usage: "go on with new events, also those of the next masters, until interrupted",
		},
		&cli.IntFlag{
			Name: "lines", Aliases: []string{"n"},
			Usage: fmt.Sprintf("`N` print the newest N of the recorded events (default: all, with --follow %d)",
				followedEvents),
		},
		&cli.StringFlag{
			Name:  "since",
			Usage: "`TIME` print events from this time on, or for a duration such as 10m up to now",
		},
		&cli.Uint64Flag{Name: "after", Usage: "`SEQ` print events after that with this number; see seq in the JSON"},
		&cli.StringSliceFlag{Name: "worker", Usage: "`NAME` print events of this worker or unit; can be repeated"},
		&cli.StringSliceFlag{
			Name:  "type",
			Usage: "`TYPE` print events of this type, such as exited or failed; can be repeated",
		},
		&cli.BoolFlag{Name: jsonFlag, Usage: "print JSON, an object on a line for each event"})
	cmd.Action = func(c *cli.Context) error {
		if name := c.Args().First(); c.NArg() > 0 {
			return exit.Usagef("%s takes no argument, got %q: did you mean %q?", c.Command.HelpName,
				name, "--worker "+name)
		}
		return printEvents(c)
	}
	cmd.Description = `The history is durable: it has every transition of a worker with its reason, and
every act of an operator with the user and the command. Without a running master
it is read from the state. The newest events are kept, see EVENTS in
hsu-master(1), which also lists the types.

A script goes on where it stopped with --after and the seq of the last event.`
	return cmd
}

// eventsRequest returns the request of the command line.
func eventsRequest(c *cli.Context) (*adminpb.EventsRequest, error) {
	req := &adminpb.EventsRequest{
		Follow: c.Bool("follow"), After: c.Uint64("after"),
		Names: c.StringSlice("worker"), Types: c.StringSlice("type"),
	}
	switch n := c.Int("lines"); {
	case c.IsSet("lines") && (n < 0 || n > math.MaxInt32):
		return nil, exit.Usagef("--lines %d: must be 0 or more", n)
	case c.IsSet("lines"):
		req.Last = new(uint32(n))
	case req.GetFollow() && !c.IsSet("since") && !c.IsSet("after"):
		req.Last = new(uint32(followedEvents))
	}
	if c.IsSet("since") {
		since, err := parseSince(c.String("since"), time.Now())
		if err != nil {
			return nil, err
		}
		req.Since = timestamppb.New(since)
	}
	known := eventtype.Selectable()
	for _, name := range req.GetTypes() {
		if !slices.Contains(known, name) {
			return nil, exit.Usagef("--type %q: there is no such type of events%s", name,
				nearest.DidYouMean(name, known))
		}
	}
	return req, nil
}

func printEvents(c *cli.Context) error {
	req, err := eventsRequest(c)
	if err != nil {
		return err
	}
	f, err := foldersOf(c)
	if err != nil {
		return err
	}
	r := eventReader{folders: f, req: req, out: c.App.Writer, notes: c.App.ErrWriter, json: c.Bool(jsonFlag)}
	ctx, end := terminal.WithReader(c.Context, c.App.Writer)
	defer end()
	err = r.receive(ctx)
	switch {
	case context.Cause(ctx) == terminal.ErrNoReader: //nolint:errorlint // it is the cause itself
		return nil
	case errors.Is(err, exit.ErrNoMaster) && !r.begun && !req.GetFollow():
		return r.offline()
	case req.GetFollow() && r.begun:
		err = followMasters(ctx, r.notes, err, r.resume)
	}
	return eventsError(err)
}

// eventReader prints the events of a request, and with follow those of one master after another.
type eventReader struct {
	folders folders
	req     *adminpb.EventsRequest
	out     io.Writer
	notes   io.Writer // for remarks
	json    bool
	within  time.Duration // in which a master must answer; 0 means answerWithin

	begun bool   // the master has answered
	last  uint64 // the number of the last event that a master has looked at
}

// receive prints the events that the running master sends.
func (r *eventReader) receive(ctx context.Context) error {
	// A master that hangs is not waited for without end. Once it has answered, there may be no event for days.
	ctx, answered, end := untilAnswer(ctx, r.folders, cmp.Or(r.within, answerWithin))
	defer end()
	conn, err := dialRegistry(ctx, r.folders)
	if err != nil {
		return err
	}
	defer func() { _ = conn.Close() }()
	stream, err := adminpb.NewAdminClient(conn).Events(ctx, r.req)
	for err == nil {
		var resp *adminpb.EventsResponse
		if resp, err = stream.Recv(); err == nil {
			answered()
			r.begun = true
			err = r.print(resp)
		}
	}
	switch {
	case errors.Is(err, io.EOF):
		return nil
	case ctx.Err() != nil:
		return context.Cause(ctx)
	}
	return err
}

// resume goes on with the next master where the last one has ended, as the history does: no event is lost and none is
// printed twice.
func (r *eventReader) resume(ctx context.Context) (begun bool, err error) {
	r.req.After, r.req.Last = r.last, nil
	r.begun = false
	err = r.receive(ctx)
	return r.begun, err
}

// offline prints the recorded events while no master runs.
func (r *eventReader) offline() error {
	entries, err := store.ReadEvents(r.folders.state)
	if err != nil {
		return offline(r.folders, err)
	}
	q := api.QueryOf(r.req)
	if err := r.checkNames(q.Names, entries); err != nil {
		return err
	}
	for _, e := range q.Filter(entries) {
		if err := r.printEntry(e); err != nil {
			return err
		}
	}
	return nil
}

// checkNames returns an error for a name of no worker or unit, neither in the history nor in the rest of the state.
func (r *eventReader) checkNames(names []string, entries []records.Entry) error {
	inHistory := map[string]bool{}
	for _, e := range entries {
		inHistory[e.Worker], inHistory[e.UnitName()] = true, true
	}
	names = slices.DeleteFunc(slices.Clone(names), func(name string) bool { return inHistory[name] })
	if len(names) == 0 {
		return nil
	}
	snap, err := store.ReadSnapshot(r.folders.state)
	if err != nil {
		return offline(r.folders, err)
	}
	infos := make([]worker.Info, 0, len(snap.Workers))
	for _, w := range snap.Workers {
		infos = append(infos, worker.Info{Worker: w})
	}
	if _, err = supervisor.SelectRecorded(snap, infos, false, names...); err != nil {
		return unknownName(err.Error())
	}
	return nil
}

func (r *eventReader) print(resp *adminpb.EventsResponse) error {
	if n := resp.GetDropped(); n > 0 {
		fmt.Fprintf(r.notes, "hsu-master: %s after event %d not kept any more\n",
			render.Count(int(min(n, math.MaxInt32)), "event"), max(r.last, r.req.GetAfter()))
	}
	for _, m := range resp.GetEvents() {
		if err := r.printEntry(api.EntryOf(m)); err != nil {
			return err
		}
	}
	r.last = resp.GetLast()
	return nil
}

func (r *eventReader) printEntry(e records.Entry) error {
	if r.json {
		line, err := history.JSON(e)
		if err == nil {
			_, err = r.out.Write(line)
		}
		return err
	}
	_, err := fmt.Fprintln(r.out, render.OnTerminal(r.out, eventText(e)))
	return err
}

// eventText returns an event as a line for people.
func eventText(e records.Entry) string {
	about := e.Worker
	if about == "" {
		about = e.Unit
	}
	if about == "" {
		about = "-"
	}
	text := fmt.Sprintf("%s  %-12s  %-10s", e.Time.Local().Format(time.DateTime), render.Printable(about),
		render.Printable(e.Type))
	if e.Detail != "" {
		text += "  " + render.Printable(e.Detail)
	}
	if o := e.Operator; o != nil {
		text += "  by " + describe.OperatorText(o)
	}
	return strings.TrimRight(text, " ")
}

// eventsError turns a status of Events into an error for the user.
func eventsError(err error) error {
	s, isStatus := status.FromError(err)
	if err == nil || !isStatus {
		return err
	}
	said := errors.New(render.Printable(s.Message()))
	switch s.Code() {
	case codes.NotFound:
		return unknownName(s.Message())
	case codes.OutOfRange:
		return exit.Hint(said, "leave --after out to read from the beginning")
	case codes.ResourceExhausted:
		return tooManyStreams(said)
	case codes.Unimplemented:
		return errOlder
	default:
		return fmt.Errorf("ask the master: %w", said)
	}
}
