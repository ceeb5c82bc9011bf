package supervisor

import (
	"context"
	"fmt"
	"log/slog"
	"time"

	"github.com/core-tools/hsu-master/internal/crashpoint"
	"github.com/core-tools/hsu-master/internal/eventtype"
	"github.com/core-tools/hsu-master/store"
	"github.com/core-tools/hsu-master/store/records"
	"github.com/core-tools/hsu-master/supervisor/logs/rotate"
)

// logEvents handles the events of the workers' logs.
type logEvents struct {
	store *store.DB
	log   *slog.Logger
}

// handle logs an event, and records lost lines and lost logs.
func (l logEvents) handle(ctx context.Context, e rotate.Event) {
	switch e.Kind {
	case rotate.Rotated:
		l.log.Debug("worker log rotated", "worker", e.Worker, "path", e.Path, "bytes", e.Bytes)
	case rotate.Failed:
		l.log.Error("worker log not rotated", "worker", e.Worker, "path", e.Path, "error", e.Err)
	case rotate.Truncated:
		l.log.Warn("worker log truncated", "worker", e.Worker, "path", e.Path, "bytes", e.Bytes)
		l.record(ctx, e.Worker, eventtype.Truncated,
			fmt.Sprintf("truncated by its own writer: %d bytes are lost", e.Bytes))
	case rotate.Lost:
		l.log.Warn("worker log deleted", "worker", e.Worker, "path", e.Path)
		l.record(ctx, e.Worker, eventtype.LogDeleted,
			"deleted or moved under its writer: its output goes there until it is restarted")
	}
}

func (l logEvents) record(ctx context.Context, worker, kind, detail string) {
	event := records.AppendEvent(records.Event{Time: time.Now(), Worker: worker, Type: kind, Detail: detail})
	err := crashpoint.Do(crashpoint.LogEvent, func() error { return l.store.Apply(ctx, event) })
	if err != nil {
		l.log.Debug("event not recorded", "worker", worker, "error", err)
	}
}
