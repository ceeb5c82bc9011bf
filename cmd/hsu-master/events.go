package main

import (
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
	"github.com/core-tools/hsu-master/internal/eventtype"
	"github.com/core-tools/hsu-master/internal/nearest"
	"github.com/core-tools/hsu-master/store"
	"github.com/core-tools/hsu-master/store/records"
	"github.com/core-tools/hsu-master/supervisor/history"
)

// followedEvents is the number of recorded events that "events -f" begins with.
const followedEvents = 10

func eventsCommand() *cli.Command {
	cmd := leaf("events", "print the history: what workers did, and what operators told them", printEvents,
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
		return nil, usagef("--lines %d: must be 0 or more", n)
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
			return nil, usagef("--type %q: there is no such type of events%s", name, nearest.DidYouMean(name, known))
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
	ctx, end := withReader(c.Context, c.App.Writer)
	defer end()
	err = r.receive(ctx)
	switch {
	case context.Cause(ctx) == errNoReader: //nolint:errorlint // it is the cause itself
		return nil
	case errors.Is(err, errNoMaster) && !r.begun && !req.GetFollow():
		return r.offline()
	case req.GetFollow() && r.begun:
		return r.follow(ctx, err)
	}
	return eventsError(err)
}

// errNoReader is the cause of the end of a context of [withReader].
var errNoReader = errors.New("nobody reads the output")

// eventReader prints the events of a request, and with follow those of one master after another.
type eventReader struct {
	folders folders
	req     *adminpb.EventsRequest
	out     io.Writer
	notes   io.Writer // for remarks
	json    bool

	begun bool   // the master has answered
	last  uint64 // the number of the last event that a master has looked at
}

// receive prints the events that the running master sends.
func (r *eventReader) receive(ctx context.Context) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	// A master that hangs is not waited for without end. Once it has answered, there may be no event for days.
	hangs := time.AfterFunc(answerWithin, func() {
		cancel(hint(fmt.Errorf("the master at %s does not answer within %s", r.folders.liveSocket(), answerWithin),
			"it hangs or is suspended: see its log, or restart it, its workers keep running"))
	})
	defer hangs.Stop()
	conn, err := dialRegistry(ctx, r.folders)
	if err != nil {
		return err
	}
	defer func() { _ = conn.Close() }()
	stream, err := adminpb.NewAdminClient(conn).Events(ctx, r.req)
	for err == nil {
		var resp *adminpb.EventsResponse
		if resp, err = stream.Recv(); err == nil {
			hangs.Stop()
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

// follow goes on after the master has ended, as the history does: no event is lost and none is printed twice.
func (r *eventReader) follow(ctx context.Context, err error) error {
	for told := false; ; {
		if ctx.Err() != nil {
			return nil //nolint:nilerr // it was interrupted
		}
		away := errors.Is(err, errNoMaster) || errors.Is(err, errHeld) || status.Code(err) == codes.Unavailable
		if err != nil && !away {
			return eventsError(err)
		}
		if !told {
			told = true
			fmt.Fprintln(r.notes, "hsu-master: no master answers any more; this goes on when one does")
		}
		select {
		case <-time.After(watchRetry):
		case <-ctx.Done():
			return nil
		}
		r.req.After, r.req.Last = r.last, nil
		r.begun = false
		err = r.receive(ctx)
		told = told && !r.begun
	}
}

// offline prints the recorded events while no master runs.
func (r *eventReader) offline() error {
	entries, err := store.ReadEvents(r.folders.state)
	if err != nil {
		return offline(r.folders, err)
	}
	q := api.QueryOf(r.req)
	for _, name := range q.Names {
		if err := r.checkName(name, entries); err != nil {
			return err
		}
	}
	for _, e := range q.Filter(entries) {
		if err := r.printEntry(e); err != nil {
			return err
		}
	}
	return nil
}

// checkName returns an error for a name of no worker or unit in the state.
func (r *eventReader) checkName(name string, entries []records.Entry) error {
	snap, err := store.ReadSnapshot(r.folders.state)
	if err != nil {
		return offline(r.folders, err)
	}
	var known []string
	for _, w := range snap.Workers {
		known = append(known, w.ID, w.Unit)
	}
	for _, u := range snap.Units {
		known = append(known, u.Name)
	}
	for _, e := range entries {
		known = append(known, e.Worker, e.UnitName())
	}
	if slices.Contains(known, name) {
		return nil
	}
	return fmt.Errorf("no such worker or unit: %q%s", name, nearest.DidYouMean(name, known))
}

func (r *eventReader) print(resp *adminpb.EventsResponse) error {
	if n := resp.GetDropped(); n > 0 {
		fmt.Fprintf(r.notes, "hsu-master: %s after event %d not kept any more\n",
			count(int(min(n, math.MaxInt32)), "event"), max(r.last, r.req.GetAfter()))
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
	_, err := fmt.Fprintln(r.out, onTerminal(r.out, eventText(e)))
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
	text := fmt.Sprintf("%s  %-12s  %-10s", e.Time.Local().Format(time.DateTime), printable(about), printable(e.Type))
	if e.Detail != "" {
		text += "  " + printable(e.Detail)
	}
	if o := e.Operator; o != nil {
		text += "  by " + operatorText(o)
	}
	return strings.TrimRight(text, " ")
}

// operatorText returns the user and the command of an operator.
func operatorText(o *records.Operator) string {
	text := history.UserName(o.UID)
	if text == "" {
		text = fmt.Sprintf("uid %d", o.UID)
	}
	if o.Command != "" {
		text += ": " + o.Command
	}
	return printable(text)
}

// eventsError turns a status of Events into an error for the user.
func eventsError(err error) error {
	s, isStatus := status.FromError(err)
	if err == nil || !isStatus {
		return err
	}
	said := errors.New(printable(s.Message()))
	switch s.Code() {
	case codes.NotFound:
		return hint(said, `"hsu-master worker list" lists the workers`)
	case codes.OutOfRange:
		return hint(said, "leave --after out to read from the beginning")
	case codes.ResourceExhausted:
		return tooManyStreams(said)
	case codes.Unimplemented:
		return hint(errors.New("the running master is of an older release"), "restart it, its workers keep running")
	default:
		return fmt.Errorf("ask the master: %w", said)
	}
}
