package worker

import (
	"context"
	"errors"
	"log/slog"
	"reflect"
	"slices"
	"time"

	"github.com/core-tools/hsu-master/internal/crashpoint"
	"github.com/core-tools/hsu-master/store"
	"github.com/core-tools/hsu-master/store/records"
	"github.com/core-tools/hsu-master/supervisor/unit"
)

// While the state cannot be written (for example on a full disk), a commit is retried. Workers live on, and nothing
// that must be recorded first is done meanwhile.
const (
	commitRetryAfter = 250 * time.Millisecond
	// commitLastTry is the time limit of a commit while the master stops: it stops even if its state is not
	// recorded.
	commitLastTry = 2 * time.Second
)

// journal makes the record and the history of one worker durable. The worker's goroutine owns it.
type journal struct {
	store    *store.DB
	log      *slog.Logger
	shutdown <-chan struct{} // closed when the master stops
	blocked  func()          // called when a commit must wait because the state cannot be written

	saved   records.Worker  // the durable record
	pending []records.Event // events for the next commit
}

// add keeps an event for the next commit.
func (j *journal) add(e records.Event) { j.pending = append(j.pending, e) }

// has reports whether rec is durable, and no event waits for the next commit.
func (j *journal) has(rec *records.Worker) bool {
	return len(j.pending) == 0 && reflect.DeepEqual(rec, &j.saved) // pointers: the values would be copied
}

// record makes rec and the events durable if there is anything new, and reports whether rec is durable.
func (j *journal) record(ctx context.Context, rec records.Worker, events ...records.Event) bool {
	return j.recordAt(ctx, recordPoint(rec), rec, events...)
}

// recordAt is record with a crash point of its own.
func (j *journal) recordAt(
	ctx context.Context, point crashpoint.Point, rec records.Worker, events ...records.Event,
) bool {
	if len(events) == 0 && j.has(&rec) {
		return true
	}
	events = append(j.pending, events...)
	j.pending = nil
	muts := []records.Mutation{records.PutWorker(rec)}
	for _, e := range events {
		muts = append(muts, records.AppendEvent(e))
	}
	if !j.commit(ctx, point, muts...) {
		return false
	}
	j.saved = rec
	return true
}

// commit makes the mutations durable and reports whether they are. It returns false if ctx ends, or if the master
// stops and the state cannot be written.
func (j *journal) commit(ctx context.Context, point crashpoint.Point, muts ...records.Mutation) bool {
	var deadline <-chan time.Time
	shutdown := j.shutdown
	for logged := false; ; {
		err := crashpoint.Do(point, func() error { return j.store.Apply(ctx, muts...) })
		if err == nil {
			return true
		}
		if !errors.Is(err, store.ErrUnavailable) {
			if ctx.Err() == nil {
				j.log.Error("worker state not recorded", "error", err)
			}
			return false
		}
		if !logged {
			logged = true
			j.log.Error("worker state not recorded, retrying", "error", err)
			j.blocked()
		}
		select {
		case <-time.After(commitRetryAfter):
		case <-shutdown:
			shutdown = nil
			deadline = time.After(commitLastTry)
		case <-deadline:
			return false
		case <-ctx.Done():
			return false
		}
	}
}

// recordPoint returns the crash point for writing a record of this status.
func recordPoint(rec records.Worker) crashpoint.Point {
	announced := func(run records.HookRun) bool { return run.Hook == string(unit.AfterEnd) }
	if rec.Status != records.StatusStopping && slices.ContainsFunc(rec.Hooks, announced) {
		return crashpoint.HookRecord
	}
	switch rec.Status {
	case records.StatusStarting:
		switch {
		case rec.Instance == nil:
			return crashpoint.BeforeRecord
		case rec.Instance.PID == 0:
			return crashpoint.IntentRecord
		}
		return crashpoint.PIDRecord
	case records.StatusRunning, records.StatusUnhealthy:
		return crashpoint.ReadyRecord
	case records.StatusStopping:
		return crashpoint.StopRecord
	case records.StatusStopped, records.StatusBackoff, records.StatusFailed, records.StatusCompleted,
		records.StatusWaiting, records.StatusScheduled, records.StatusAbsent:
	}
	return crashpoint.ExitRecord
}
