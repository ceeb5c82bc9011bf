package worker

import (
	"context"
	"fmt"
	"log/slog"
	"time"

	"github.com/core-tools/hsu-master/store/records"
)

// The events in a worker's history, besides the statuses that it reaches and those of package store.
const (
	eventStarted     = "started"
	eventAdopted     = "adopted"
	eventExited      = "exited"
	eventGone        = "gone" // without an exit: the machine was booted
	eventHeld        = "held"
	eventLeftover    = "leftover" // processes that could not be killed
	eventPortChanged = "port-changed"
	eventRemoved     = "removed"
)

// NextAfterFailure is the next step for an operator after a worker has failed.
const NextAfterFailure = `mend it, then start the master with the new executable or other arguments: ` +
	`"hsu-master run", or "systemctl restart hsu-master" for a service`

// event returns a line of the history and logs it at once.
func (w *owner) event(kind, detail string) records.Event {
	level := slog.LevelInfo
	switch kind {
	case string(records.StatusFailed):
		level = slog.LevelError
	case string(records.StatusUnhealthy), string(records.StatusBackoff), eventHeld, eventLeftover:
		level = slog.LevelWarn
	}
	var attrs []slog.Attr
	if w.inst != nil {
		attrs = append(attrs, slog.Int("pid", w.rec.Instance.PID))
		if w.rec.Instance.Port != 0 {
			attrs = append(attrs, slog.Int("port", w.rec.Instance.Port))
		}
	}
	if kind == string(records.StatusBackoff) {
		attrs = append(attrs, slog.Duration("restart_in", w.state.History.RetryAt-w.env.BootTime()))
	}
	if detail != "" {
		attrs = append(attrs, slog.String("reason", detail))
	}
	if kind == string(records.StatusFailed) {
		attrs = append(attrs, slog.String("next", NextAfterFailure))
	}
	//nolint:sloglint // the kinds are a fixed set, see the callers
	w.log.LogAttrs(context.Background(), level, "worker "+kind, attrs...)
	if detail == "" && w.inst != nil {
		detail = fmt.Sprintf("pid %d", w.rec.Instance.PID)
		if w.rec.Instance.Port != 0 {
			detail += fmt.Sprintf(" port %d", w.rec.Instance.Port)
		}
	}
	return records.Event{Time: time.Now(), Worker: w.id, Type: kind, Detail: detail}
}
