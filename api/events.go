package api

import (
	"context"
	"errors"
	"fmt"
	"math"
	"slices"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/core-tools/hsu-master/api/adminpb"
	"github.com/core-tools/hsu-master/store"
	"github.com/core-tools/hsu-master/store/records"
	"github.com/core-tools/hsu-master/supervisor"
	"github.com/core-tools/hsu-master/supervisor/history"
	"github.com/core-tools/hsu-master/supervisor/reactions"
)

// eventsAtOnce is the maximum number of events in one message. It keeps messages small: see mostText.
const eventsAtOnce = 64

// Events sends the recorded events that the request selects, at least one message, and with follow the new ones. While
// a follower waits for a master that is starting to know a name, the first message has no events. A client that reads
// slowly delays only its own stream, for which few events are kept in memory.
func (a *Admin) Events(req *adminpb.EventsRequest, stream grpc.ServerStreamingServer[adminpb.EventsResponse]) error {
	q := QueryOf(req)
	s, err := history.Look(a.Store, q)
	if err != nil {
		return streamError(stream.Context(), err)
	}
	if q.After > s.Last {
		return status.Error(codes.OutOfRange, fmt.Sprintf(
			"the history ends at event %d: it goes on from a backup, or event %d is of another state", s.Last, q.After))
	}
	if req.GetFollow() && len(s.Unknown) > 0 && a.recovering() { // at once, so that the client does not give up
		if err := sendEvents(stream, nil, 0, s.Before); err != nil {
			return streamError(stream.Context(), err)
		}
	}
	for _, name := range s.Unknown { // of the history; it may be that of a worker or a unit
		_, err := a.selectFor(stream.Context(), req.GetFollow(), false, name)
		if _, unknown := errors.AsType[*supervisor.UnknownError](err); unknown {
			return status.Error(codes.NotFound, err.Error())
		}
		if err != nil {
			return streamError(stream.Context(), err)
		}
	}
	if err := a.sendRecorded(stream, q, s); err != nil {
		return streamError(stream.Context(), err)
	}
	if !req.GetFollow() {
		return nil
	}
	err = history.Follow(stream.Context(), a.Store, s.Last, func(entries []records.Entry, dropped uint64) error {
		newest := entries[len(entries)-1].Seq
		entries = slices.DeleteFunc(entries, func(e records.Entry) bool { return !q.Match(e) })
		if len(entries) == 0 && dropped == 0 {
			return nil
		}
		return sendEvents(stream, entries, dropped, newest)
	})
	return streamError(stream.Context(), err)
}

// recovering reports whether the workers of an earlier master are not known yet.
func (a *Admin) recovering() bool {
	select {
	case <-a.Supervisor.Recovered():
		return false
	default:
		return true
	}
}

// QueryOf returns the query of a request.
func QueryOf(req *adminpb.EventsRequest) history.Query {
	q := history.Query{Names: req.GetNames(), Types: req.GetTypes(), After: req.GetAfter(), Last: -1}
	if since := req.GetSince(); since != nil {
		q.Since = since.AsTime()
	}
	if req.Last != nil {
		q.Last = int(min(req.GetLast(), math.MaxInt32))
	}
	return q
}

// sendRecorded sends the recorded events of a survey, and at least one message.
func (a *Admin) sendRecorded(
	stream grpc.ServerStreamingServer[adminpb.EventsResponse], q history.Query, s history.Survey,
) error {
	dropped, sent := uint64(0), uint64(0)
	if q.After > 0 {
		dropped = s.Last - q.After - s.Recorded
	}
	lost, err := s.Pass(a.Store, q, func(entries []records.Entry, until uint64) error {
		err := sendEvents(stream, entries, dropped, until)
		dropped, sent = 0, until
		return err
	})
	if err == nil && (lost > 0 || sent < s.Last || sent == 0) {
		err = sendEvents(stream, nil, dropped+lost, s.Last)
	}
	return err
}

// sendEvents sends the entries, and at least one message. last is the number of the last event that was looked at.
func sendEvents(
	stream grpc.ServerStreamingServer[adminpb.EventsResponse], entries []records.Entry, dropped, last uint64,
) error {
	for {
		n := min(len(entries), eventsAtOnce)
		resp := &adminpb.EventsResponse{Dropped: dropped, Last: last}
		for _, e := range entries[:n] {
			resp.Events = append(resp.Events, eventMessage(e))
		}
		if n < len(entries) {
			resp.Last = entries[n-1].Seq
		}
		if err := stream.Send(resp); err != nil {
			return fmt.Errorf("send events: %w", err)
		}
		if entries, dropped = entries[n:], 0; len(entries) == 0 {
			return nil
		}
	}
}

// streamError returns the gRPC status for the error of a stream of logs or events.
func streamError(ctx context.Context, err error) error {
	switch {
	case err == nil:
		return nil
	case ctx.Err() != nil:
		return status.FromContextError(ctx.Err()).Err()
	case errors.Is(err, store.ErrUnavailable), errors.Is(err, store.ErrClosed):
		return status.Error(codes.Unavailable, err.Error())
	}
	return status.Error(codes.Internal, sendable(err.Error()))
}

func eventMessage(e records.Entry) *adminpb.Event {
	m := &adminpb.Event{
		Seq: e.Seq, Time: timestamp(e.Time), Type: sendable(e.Type), Worker: sendable(e.Worker), Unit: sendable(e.Unit),
		Detail: sendable(e.Detail),
	}
	m.Operator = operatorMessage(e.Operator)
	return m
}

// EntryOf returns the event of a message.
func EntryOf(m *adminpb.Event) records.Entry {
	e := records.Entry{Seq: m.GetSeq(), Event: records.Event{
		Worker: m.GetWorker(), Unit: m.GetUnit(), Type: m.GetType(), Detail: m.GetDetail(),
	}}
	if at := m.GetTime(); at != nil {
		e.Time = at.AsTime().In(time.Local)
	}
	e.Operator = OperatorOf(m.GetOperator())
	return e
}

// commandsMessage returns nil if there is no rule and none of the removed ones has lost an event.
func commandsMessage(f reactions.Figures) *adminpb.EventCommands {
	if f == (reactions.Figures{}) {
		return nil
	}
	return &adminpb.EventCommands{
		Rules: int32(f.Rules), Queued: int32(f.Queued), Running: int32(f.Running), //nolint:gosec // they are bounded
		Failed: f.Failed, Dropped: f.Dropped,
	}
}
