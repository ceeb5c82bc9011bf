package unmanaged

import (
	"context"
	"fmt"
	"log/slog"
	"time"

	"github.com/core-tools/hsu-master/internal/eventtype"
	"github.com/core-tools/hsu-master/store/records"
)

// notice is an event of the history: its type, and the level and the message of its log line.
type notice struct {
	name    string
	level   slog.Level
	message string
	detail  string
}

func found(f *records.Found) notice {
	return notice{eventtype.Found, slog.LevelInfo, "process found", describe(f)}
}

func gone(f *records.Found, why string) notice {
	return notice{eventtype.Gone, slog.LevelWarn, "process gone", describe(f) + " " + why}
}

func absent(reason string) notice {
	return notice{string(records.StatusAbsent), slog.LevelWarn, "process absent", reason}
}

func unhealthy(reason string) notice {
	return notice{string(records.StatusUnhealthy), slog.LevelWarn, "process unhealthy", reason}
}

func healthy(f *records.Found) notice {
	return notice{string(records.StatusRunning), slog.LevelInfo, "process healthy", describe(f)}
}

func removed(f *records.Found) notice {
	detail := ""
	if f != nil {
		detail = describe(f) + " goes on"
	}
	return notice{eventtype.Removed, slog.LevelInfo, "process not watched any more", detail}
}

func describe(f *records.Found) string { return fmt.Sprintf("pid %d (%s)", f.PID, f.Name) }

// log logs a notice and returns the event of the history.
func (s *Set) log(rec records.Worker, n notice) records.Event {
	attrs := []slog.Attr{slog.String("worker", rec.ID)}
	if rec.Found != nil {
		attrs = append(attrs, slog.Int("pid", rec.Found.PID), slog.String("program", rec.Found.Name))
	}
	if n.detail != "" && (rec.Found == nil || n.detail != describe(rec.Found)) {
		attrs = append(attrs, slog.String("reason", n.detail))
	}
	//nolint:sloglint // the messages are constants
	s.opts.Log.LogAttrs(context.Background(), n.level, n.message, attrs...)
	return records.Event{Time: time.Now(), Worker: rec.ID, Type: n.name, Detail: n.detail}
}
