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

// onLogEvent logs an event of a worker's log, and records lost lines.
func (s *Supervisor) onLogEvent(ctx context.Context, e rotate.Event) {
	switch e.Kind {
	case rotate.Rotated:
		s.log.Debug("worker log rotated", "worker", e.Worker, "path", e.Path, "bytes", e.Bytes)
	case rotate.Failed:
		s.log.Error("worker log not rotated", "worker", e.Worker, "path", e.Path, "error", e.Err)
	case rotate.Truncated:
		s.log.Warn("worker log truncated", "worker", e.Worker, "path", e.Path, "bytes", e.Bytes)
		lost := records.AppendEvent(records.Event{
			Time: time.Now(), Worker: e.Worker, Type: eventTruncated,
			Detail: fmt.Sprintf("truncated by its own writer: %d bytes are lost", e.Bytes),
		})
		err := crashpoint.Do(crashpoint.LogEvent, func() error { return s.opts.Store.Apply(ctx, lost) })
		if err != nil {
			s.log.Debug("event not recorded", "worker", e.Worker, "error", err)
		}
	}
}
