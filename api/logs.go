package api

import (
	"context"
	"errors"
	"regexp"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/core-tools/hsu-master/api/adminpb"
	"github.com/core-tools/hsu-master/supervisor"
	"github.com/core-tools/hsu-master/supervisor/logs/tail"
	"github.com/core-tools/hsu-master/supervisor/worker"
)

// Logs streams the output of workers. It reads from files, at the pace of the client: a client that does not read keeps
// nothing but its place in them.
func (a *Admin) Logs(req *adminpb.LogsRequest, stream grpc.ServerStreamingServer[adminpb.LogsResponse]) error {
	if a.Tails == nil {
		return status.Error(codes.Unimplemented, "this master does not read logs")
	}
	query, err := LogQueryOf(req)
	if err != nil {
		return err
	}
	if query.Positions { // at once, so that the client knows that this master answers
		if err := stream.Send(&adminpb.LogsResponse{Positions: true}); err != nil {
			return err
		}
	}
	a.awaitRecovered(stream.Context())
	workers, err := a.selectFor(stream.Context(), req.GetFollow(), req.GetAll(), req.GetNames()...)
	if unknown, ok := errors.AsType[*supervisor.UnknownError](err); ok {
		return status.Error(codes.NotFound, sendable(unknown.Error()))
	}
	if err != nil {
		return streamError(stream.Context(), err)
	}
	if !req.GetFollow() {
		return SendLogs(stream.Context(), a.Tails, workers, query, nil, stream.Send)
	}
	ctx, cancel := context.WithCancel(stream.Context())
	later := make(chan tail.Source)
	var joining sync.WaitGroup
	defer joining.Wait()
	defer cancel()
	joining.Go(func() { a.passAdded(ctx, workers, req, later) })
	return SendLogs(ctx, a.Tails, workers, query, later, stream.Send)
}

// recoveryPatience is how long a request waits for a master that is starting to know its workers.
const recoveryPatience = 5 * time.Second

// awaitRecovered waits until the workers of an earlier master are known. A follower that goes on behind the lines of
// that master asks before.
func (a *Admin) awaitRecovered(ctx context.Context) {
	patience, cancel := context.WithTimeout(ctx, recoveryPatience)
	defer cancel()
	select {
	case <-a.Supervisor.Recovered():
	case <-patience.Done():
	}
}

// selectFor selects workers. If a follower, which may go on from an earlier master, names one that is not known yet, it
// waits until the workers of that master are recovered.
func (a *Admin) selectFor(ctx context.Context, follow, all bool, names ...string) ([]worker.Info, error) {
	workers, err := a.Supervisor.Select(all, names...)
	if _, unknown := errors.AsType[*supervisor.UnknownError](err); !unknown || !follow {
		return workers, err
	}
	select {
	case <-a.Supervisor.Recovered():
		return a.Supervisor.Select(all, names...)
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// passAdded passes the logs of the workers that the request selects and that are not among the known ones, until ctx
// ends.
func (a *Admin) passAdded(
	ctx context.Context, known []worker.Info, req *adminpb.LogsRequest, later chan<- tail.Source,
) {
	changed, stop := a.Supervisor.Services().Watch()
	defer stop()
	seen := map[string]bool{}
	for _, w := range known {
		seen[w.ID] = true
	}
	for {
		for _, w := range a.selected(req) {
			if seen[w.ID] || w.NoLog() != "" {
				continue
			}
			seen[w.ID] = true
			select {
			case later <- tail.Source{Worker: w.ID, Path: w.LogPath}:
			case <-ctx.Done():
				return
			}
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return
		}
		if !pause(ctx, nil, watchLeast) { // many workers may change at the same time
			return
		}
	}
}

// selected returns the workers that the request selects now, perhaps some of them twice. Names that are gone select
// none.
func (a *Admin) selected(req *adminpb.LogsRequest) (workers []worker.Info) {
	if req.GetAll() {
		return a.Supervisor.Workers()
	}
	for _, name := range req.GetNames() {
		of, err := a.Supervisor.Select(false, name)
		if err == nil {
			workers = append(workers, of...)
		}
	}
	return workers
}

// SendLogs sends the output of workers that a query selects, and if it follows also that of later ones; later may be
// nil. Its error is a gRPC status, or that of send.
func SendLogs(
	ctx context.Context, hub *tail.Hub, workers []worker.Info, query tail.Query, later <-chan tail.Source,
	send func(*adminpb.LogsResponse) error,
) error {
	var sources []tail.Source
	var elsewhere adminpb.LogsResponse // workers without a log
	for _, w := range workers {
		if reason := w.NoLog(); reason != "" {
			elsewhere.Texts = append(elsewhere.Texts, &adminpb.LogText{Worker: w.ID, Notice: sendable(reason)})
			continue
		}
		sources = append(sources, tail.Source{Worker: w.ID, Path: w.LogPath})
	}
	if len(elsewhere.GetTexts()) > 0 && len(query.After) == 0 {
		if err := send(&elsewhere); err != nil {
			return err
		}
	}
	if len(sources) > 0 || len(workers) == 0 { // otherwise the output of all is elsewhere: an error, and no wait
		query.Later = later
	}
	err := hub.Copy(ctx, sources, query, func(chunks []tail.Chunk) error { return sendChunks(chunks, send) })
	switch {
	case errors.Is(err, tail.ErrNoPrevious):
		return status.Error(codes.NotFound, err.Error())
	case errors.Is(err, tail.ErrUnreadable) && len(workers) > 0:
		return status.Error(codes.FailedPrecondition, err.Error())
	case errors.Is(err, tail.ErrUnreadable):
		return nil // a unit without workers
	case ctx.Err() != nil:
		return status.FromContextError(ctx.Err()).Err()
	}
	return err
}

// mostText bounds the text in one message, so that gRPC encodes it in a buffer of 32 KiB. Its next larger buffers have
// a megabyte, and a client that does not read keeps two.
const mostText = 30 << 10

// positionSize is about what a position adds to a message, with the time of its text. The id of its worker adds more.
const positionSize = 80

// sendChunks sends chunks in as many messages as are needed.
func sendChunks(chunks []tail.Chunk, send func(*adminpb.LogsResponse) error) error {
	resp, size := &adminpb.LogsResponse{}, 0
	for _, c := range chunks {
		for first := true; first || len(c.Text) > 0; first = false {
			text := c.Text[:min(len(c.Text), mostText)]
			if c.Text = c.Text[len(text):]; size+len(text) > mostText {
				if err := send(resp); err != nil {
					return err
				}
				resp, size = &adminpb.LogsResponse{}, 0
			}
			size += len(text)
			sent := &adminpb.LogText{
				Worker: c.Worker, Text: text, Time: timestamp(c.Time), Notice: sendable(c.Notice),
				Part: len(c.Text) > 0,
			}
			if c.Position != nil && !sent.GetPart() {
				sent.Position = positionToProto(*c.Position)
				size += positionSize + len(c.Worker)
			}
			resp.Texts = append(resp.Texts, sent)
		}
	}
	return send(resp)
}

func positionToProto(p tail.Position) *adminpb.LogPosition {
	return &adminpb.LogPosition{
		File: p.File, Offset: p.Offset, Size: uint32(p.Size), //nolint:gosec // the size of a line
		Sum: p.Sum, Inode: p.Inode,
	}
}

func positionOf(p *adminpb.LogPosition) tail.Position {
	return tail.Position{
		File: p.GetFile(), Offset: p.GetOffset(), Size: int(p.GetSize()),
		Sum: p.GetSum(), Inode: p.GetInode(),
	}
}

// LogQueryOf returns the query of a request. Its error is the gRPC status of a request that is not valid.
func LogQueryOf(req *adminpb.LogsRequest) (tail.Query, error) {
	q, err := logQuery(req)
	if err != nil {
		return q, status.Error(codes.InvalidArgument, sendable(err.Error()))
	}
	return q, nil
}

func logQuery(req *adminpb.LogsRequest) (tail.Query, error) {
	q := tail.Query{
		Lines: -1, Previous: req.GetPrevious(), Follow: req.GetFollow(), Positions: req.GetPositions(),
	}
	switch {
	case req.GetAll() == (len(req.GetNames()) > 0):
		return q, errors.New("names of workers or units are required, or all")
	case q.Previous && q.Follow:
		return q, errors.New("previous output cannot be followed: it has ended")
	case (q.Positions || len(req.GetAfter()) > 0) && !q.Follow:
		return q, errors.New("positions: only with follow")
	case req.Lines != nil && req.GetLines() < 0:
		return q, errors.New("lines: must be 0 or more")
	case req.Lines != nil:
		q.Lines = int(req.GetLines())
	}
	if since := req.GetSince(); since != nil {
		if err := since.CheckValid(); err != nil {
			return q, errors.New("since: " + err.Error())
		}
		q.Since = since.AsTime()
	}
	if len(req.GetAfter()) > 0 {
		q.After = make(map[string]tail.Position, len(req.GetAfter()))
		for worker, p := range req.GetAfter() {
			q.After[worker] = positionOf(p)
		}
	}
	if req.GetMatch() != "" {
		match, err := regexp.Compile(req.GetMatch())
		if err != nil {
			return q, err
		}
		q.Match = match
	}
	return q, nil
}
