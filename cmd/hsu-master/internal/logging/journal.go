package logging

import (
	"context"
	"io"
	"log/slog"
)

// Priority prefixes of journal lines: sd-daemon(3).
const (
	PriorityError   = "<3>"
	PriorityWarning = "<4>"
	PriorityNotice  = "<5>"
	priorityInfo    = "<6>"
	priorityDebug   = "<7>"
)

func priorityOf(level slog.Level) string {
	switch {
	case level >= slog.LevelError:
		return PriorityError
	case level >= slog.LevelWarn:
		return PriorityWarning
	case level >= slog.LevelInfo:
		return priorityInfo
	}
	return priorityDebug
}

// Prefix returns the priority if w is the journal, and otherwise "".
func Prefix(w io.Writer, priority string) string {
	if sinkOf(w) == toJournal {
		return priority
	}
	return ""
}

// journalHandler writes each record with its priority prefix. It has one handler for each priority.
type journalHandler map[string]slog.Handler

func newJournalHandler(w io.Writer, handler func(io.Writer) slog.Handler) journalHandler {
	h := journalHandler{}
	for _, level := range []slog.Level{slog.LevelDebug, slog.LevelInfo, slog.LevelWarn, slog.LevelError} {
		priority := priorityOf(level)
		h[priority] = handler(prefixWriter{w, priority})
	}
	return h
}

func (h journalHandler) of(level slog.Level) slog.Handler { return h[priorityOf(level)] }

func (h journalHandler) Enabled(ctx context.Context, level slog.Level) bool {
	return h.of(level).Enabled(ctx, level)
}

func (h journalHandler) Handle(ctx context.Context, r slog.Record) error {
	return h.of(r.Level).Handle(ctx, r)
}

func (h journalHandler) WithAttrs(attrs []slog.Attr) slog.Handler {
	return h.each(func(one slog.Handler) slog.Handler { return one.WithAttrs(attrs) })
}

func (h journalHandler) WithGroup(name string) slog.Handler {
	return h.each(func(one slog.Handler) slog.Handler { return one.WithGroup(name) })
}

func (h journalHandler) each(change func(slog.Handler) slog.Handler) journalHandler {
	next := journalHandler{}
	for priority, one := range h {
		next[priority] = change(one)
	}
	return next
}

// prefixWriter writes a prefix before each line. Each Write must be one line.
type prefixWriter struct {
	w      io.Writer
	prefix string
}

func (p prefixWriter) Write(line []byte) (int, error) {
	if _, err := p.w.Write(append([]byte(p.prefix), line...)); err != nil {
		return 0, err
	}
	return len(line), nil
}
