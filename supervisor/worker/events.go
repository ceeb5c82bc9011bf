package worker

import (
	"context"
	"fmt"
	"log/slog"
	"time"

	"github.com/core-tools/hsu-master/internal/eventtype"
	"github.com/core-tools/hsu-master/store/records"
)

// eventKind is a kind of event: its type in the history, and the level and the message of its log line.
type eventKind struct {
	name    string
	level   slog.Level
	message string
}

// The kinds of events in a worker's history, besides the statuses that it reaches.
var (
	eventStarted     = eventKind{eventtype.Started, slog.LevelInfo, "worker started"}
	eventAdopted     = eventKind{eventtype.Adopted, slog.LevelInfo, "worker adopted"}
	eventExited      = eventKind{eventtype.Exited, slog.LevelInfo, "worker exited"}
	eventGone        = eventKind{eventtype.Gone, slog.LevelInfo, "worker gone"} // no exit: the machine was booted
	eventHeld        = eventKind{eventtype.Held, slog.LevelWarn, "worker held"}
	eventLeftover    = eventKind{eventtype.Leftover, slog.LevelWarn, "worker processes not killed"}
	eventPortChanged = eventKind{eventtype.PortChanged, slog.LevelInfo, "worker port changed"}
	eventRemoved     = eventKind{eventtype.Removed, slog.LevelInfo, "worker removed"}
	eventRunDue      = eventKind{eventtype.RunDue, slog.LevelInfo, "worker run due"}
	eventRunMissed   = eventKind{eventtype.RunMissed, slog.LevelWarn, "worker run missed"}
	eventRunSkipped  = eventKind{eventtype.RunSkipped, slog.LevelWarn, "worker run skipped"}
	eventHookFailed  = eventKind{eventtype.HookFailed, slog.LevelWarn, "worker hook failed"}
	eventUnenforced  = eventKind{eventtype.Unenforced, slog.LevelWarn, "worker limits not enforced"}
	eventMemory      = eventKind{eventtype.Memory, slog.LevelWarn, "worker memory above its limit"}
	eventLogFallback = eventKind{eventtype.LogFallback, slog.LevelWarn, "worker output not in the journal"}
	eventReadyLost   = eventKind{eventtype.ReadyLost, slog.LevelWarn, "worker READY may have been lost"}
	eventStart       = eventKind{eventtype.Start, slog.LevelInfo, "worker start asked for"}
	eventStop        = eventKind{eventtype.Stop, slog.LevelInfo, "worker stop asked for"}
	eventSignal      = eventKind{eventtype.Signal, slog.LevelInfo, "worker signal asked for"}
	eventUnrecorded  = eventKind{eventtype.FromProcesses, slog.LevelInfo, "worker found without record"}
)

// statusEvents are the kinds of events that are a change to a status.
var statusEvents = map[records.Status]eventKind{
	records.StatusStarting:  {string(records.StatusStarting), slog.LevelInfo, "worker starting"},
	records.StatusRunning:   {string(records.StatusRunning), slog.LevelInfo, "worker running"},
	records.StatusUnhealthy: {string(records.StatusUnhealthy), slog.LevelWarn, "worker unhealthy"},
	records.StatusStopping:  {string(records.StatusStopping), slog.LevelInfo, "worker stopping"},
	records.StatusStopped:   {string(records.StatusStopped), slog.LevelInfo, "worker stopped"},
	records.StatusBackoff:   {string(records.StatusBackoff), slog.LevelWarn, "worker backoff"},
	records.StatusFailed:    {string(records.StatusFailed), slog.LevelError, "worker failed"},
	records.StatusCompleted: {string(records.StatusCompleted), slog.LevelInfo, "worker completed"},
	records.StatusWaiting:   {string(records.StatusWaiting), slog.LevelInfo, "worker waiting"},
	records.StatusScheduled: {string(records.StatusScheduled), slog.LevelInfo, "worker scheduled"},
}

// NextAfterFailure returns the next step for an operator after a worker has failed for the reason. retried reports
// whether it is tried again by itself. A reload tries it at once if its unit or its executable has changed, or if its
// start.before has failed, which shows no change.
func NextAfterFailure(reason string, retried bool) string {
	next := `mend it, then "hsu-master worker restart", or "hsu-master reload" if the master has a configuration ` +
		`file; otherwise start the master with the new executable or other arguments: "hsu-master run", or ` +
		`"systemctl restart hsu-master"`
	switch {
	case failedBefore(reason):
		return next
	case retried:
		return next + "; without a change of its unit or executable, it is not tried before its wait is over"
	}
	return next + "; without a change of its unit or executable, it is not tried again"
}

// event returns a line of the history and logs it at once.
func (w *owner) event(kind eventKind, detail string) records.Event {
	var attrs []slog.Attr
	if w.inst != nil {
		attrs = append(attrs, slog.Int("pid", w.rec.Instance.PID))
		if w.rec.Instance.Port != 0 {
			attrs = append(attrs, slog.Int("port", w.rec.Instance.Port))
		}
	}
	if w.state.History.RetryAt != 0 &&
		(kind.name == string(records.StatusBackoff) || kind.name == string(records.StatusFailed)) {
		attrs = append(attrs, slog.Duration("restart_in", w.state.History.RetryAt-w.env.BootTime()))
	}
	if detail != "" {
		attrs = append(attrs, slog.String("reason", detail))
	}
	if kind.name == string(records.StatusFailed) {
		attrs = append(attrs, slog.String("next", NextAfterFailure(detail, w.state.History.RetryAt != 0)))
	}
	//nolint:sloglint // the messages are constants
	w.log.LogAttrs(context.Background(), kind.level, kind.message, attrs...)
	if detail == "" && w.inst != nil {
		detail = fmt.Sprintf("pid %d", w.rec.Instance.PID)
		if w.rec.Instance.Port != 0 {
			detail += fmt.Sprintf(" port %d", w.rec.Instance.Port)
		}
	}
	return records.Event{Time: time.Now(), Worker: w.id, Type: kind.name, Detail: detail}
}
