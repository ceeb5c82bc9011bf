package main

import (
	"cmp"
	"context"
	"errors"
	"io"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/core-tools/hsu-master/api/adminpb"
	"github.com/core-tools/hsu-master/cmd/hsu-master/internal/exit"
)

// errEnded is returned if the output of workers cannot be followed on from where it was, because a master knows no
// positions.
var errEnded = exit.Hint(errors.New("the master has ended"),
	"its workers may go on: the same command without --follow reads their files")

// logReader prints the output of workers that a request selects, and with follow that of one master after another.
type logReader struct {
	folders folders
	req     *adminpb.LogsRequest
	out     *logPrinter
	within  time.Duration // in which a next master must answer; 0 means answerWithin

	begun     time.Time          // when the first master was asked
	positions bool               // the first master sends positions
	held      []*adminpb.LogText // a text that is not complete
}

// run prints lines until the request is answered or ctx is done.
func (r *logReader) run(ctx context.Context) error {
	r.begun = time.Now()
	r.req.Positions = r.req.GetFollow()
	// It need not answer soon: an older master says nothing before there are lines.
	conn, err := dialAdmin(ctx, r.folders)
	if err == nil {
		_, err = r.receive(ctx, conn, func() {})
		_ = conn.Close()
	}
	switch {
	case ctx.Err() != nil:
		return nil //nolint:nilerr // it was interrupted
	case r.positions:
		err = followMasters(ctx, r.out.errs, err, r.resume)
	case status.Code(err) == codes.Unavailable:
		return errEnded
	}
	return logsError(err, r.folders, r.req.GetNames())
}

// resume prints what the next master sends behind the last lines that were printed.
func (r *logReader) resume(ctx context.Context) (begun bool, err error) {
	r.held, r.req.Lines = nil, nil
	// Workers without a position have come meanwhile. Their logs may have older lines of former workers.
	if since := r.req.GetSince(); since == nil || since.AsTime().Before(r.begun) {
		r.req.Since = timestamppb.New(r.begun)
	}
	within := cmp.Or(r.within, answerWithin)
	conn, err := r.dialWithin(ctx, within)
	if err != nil {
		return false, err
	}
	defer func() { _ = conn.Close() }()
	// The time that the dial took does not count: a slow master is not taken for an older one.
	limited, answered, end := untilAnswer(ctx, r.folders, within)
	defer end()
	begun, err = r.receive(limited, conn, answered)
	if limited.Err() == nil {
		return begun, err
	}
	if !begun && ctx.Err() == nil && r.answers(ctx, within) {
		return false, errEnded // an older master, which says nothing before there are lines
	}
	return begun, context.Cause(limited)
}

// dialWithin connects to the next master. It returns an error if that master does not answer within a time.
func (r *logReader) dialWithin(ctx context.Context, within time.Duration) (*grpc.ClientConn, error) {
	limited, _, end := untilAnswer(ctx, r.folders, within)
	defer end()
	conn, err := dialRegistry(limited, r.folders)
	if err != nil && limited.Err() != nil {
		return nil, context.Cause(limited)
	}
	return conn, err
}

// answers reports whether the running master answers other requests.
func (r *logReader) answers(ctx context.Context, within time.Duration) bool {
	ctx, cancel := context.WithTimeout(ctx, within)
	defer cancel()
	_, err := liveState(ctx, r.folders)
	return err == nil
}

// receive prints the lines that the master of a connection sends, and calls answered when it has sent something. It
// returns nil if the stream has ended in order.
func (r *logReader) receive(ctx context.Context, conn *grpc.ClientConn, answered func()) (begun bool, err error) {
	stream, err := adminpb.NewAdminClient(conn).Logs(ctx, r.req)
	for err == nil {
		var resp *adminpb.LogsResponse
		if resp, err = stream.Recv(); err != nil {
			break
		}
		if !begun {
			answered()
			if r.positions && !resp.GetPositions() { // an older master, which sends the lines from the beginning
				return true, errEnded
			}
			begun, r.positions = true, resp.GetPositions()
		}
		err = r.print(resp)
	}
	if errors.Is(err, io.EOF) {
		err = nil
	}
	return begun, err
}

// print prints texts. It joins the parts of one, and holds them until all have come: the position is that of the whole.
func (r *logReader) print(resp *adminpb.LogsResponse) error {
	for _, text := range resp.GetTexts() {
		if n := len(r.held); n > 0 && r.held[n-1].GetPart() {
			last := r.held[n-1]
			last.Text = append(last.Text, text.GetText()...)
			last.Part, last.Position = text.GetPart(), text.GetPosition()
			continue
		}
		r.held = append(r.held, text)
	}
	texts := r.held
	r.held = nil
	if n := len(texts); n > 0 && texts[n-1].GetPart() {
		texts, r.held = texts[:n-1], []*adminpb.LogText{texts[n-1]}
	}
	if err := r.out.show(&adminpb.LogsResponse{Texts: texts}); err != nil {
		return err
	}
	for _, text := range texts {
		if p := text.GetPosition(); p != nil {
			if r.req.After == nil {
				r.req.After = map[string]*adminpb.LogPosition{}
			}
			r.req.After[text.GetWorker()] = p
		}
	}
	return nil
}
