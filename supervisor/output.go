package supervisor

import (
	"context"
	"fmt"
	"time"

	"github.com/core-tools/hsu-master/internal/crashpoint"
	"github.com/core-tools/hsu-master/store/records"
	"github.com/core-tools/hsu-master/supervisor/logs/rotate"
)

// eventTruncated is the type of the event that a worker's own program has truncated its log.
const eventTruncated = "log-truncated"

// eventLost is the type of the event that a worker writes to a deleted log.
const eventLost = "log-deleted"

// onLogEvent logs an event of a worker's log, and records lost lines and lost logs.
func (s *Supervisor) onLogEvent(ctx context.Context, e rotate.Event) {
	switch e.Kind {
	case rotate.Rotated:
		s.log.Debug("worker log rotated", "worker", e.Worker, "path", e.Path, "bytes", e.Bytes)
	case rotate.Failed:
		s.log.Error("worker log not rotated", "worker", e.Worker, "path", e.Path, "error", e.Err)
	case rotate.Truncated:
		s.log.Warn("worker log truncated", "worker", e.Worker, "path", e.Path, "bytes", e.Bytes)
		recordLogEvent(ctx, s, e.Worker, eventTruncated,
			fmt.Sprintf("truncated by its own writer: %d bytes are lost", e.Bytes))
	case rotate.Lost:
		s.log.Warn("worker log deleted", "worker", e.Worker, "path", e.Path)
		recordLogEvent(ctx, s, e.Worker, eventLost,
			"deleted or moved under its writer: its output goes there until it is restarted")
	}
}

// recordLogEvent records an event of a worker's log.
func recordLogEvent(ctx context.Context, s *Supervisor, worker, kind, detail string) {
	event := records.AppendEvent(records.Event{Time: time.Now(), Worker: worker, Type: kind, Detail: detail})
	err := crashpoint.Do(crashpoint.LogEvent, func() error { return s.opts.Store.Apply(ctx, event) })
	if err != nil {
		s.log.Debug("event not recorded", "worker", worker, "error", err)
	}
}
