// Package logging is the log of a running master: on a terminal, in the journal, or for machines.
package logging

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"os"
	"slices"
	"strings"
	"sync"

	"github.com/core-tools/hsu-master/cmd/hsu-master/internal/render"
	"github.com/core-tools/hsu-master/cmd/hsu-master/internal/terminal"
	"github.com/core-tools/hsu-master/supervisor/logs"
)

// Open returns a logger that writes to w in the background, and its writer, which must be closed.
func Open(w io.Writer, asJSON bool, level slog.Level) (*slog.Logger, *Writer) {
	out := newLogWriter(w)
	return newLogger(out, sinkOf(w), asJSON, level), out
}

// newLogger returns a logger that writes JSON, text for machines, or, on a terminal, one short line per event.
// Lines for the journal have a priority and no time, because the journal adds its own.
func newLogger(w io.Writer, to sink, asJSON bool, level slog.Level) *slog.Logger {
	options := &slog.HandlerOptions{Level: level, ReplaceAttr: func(groups []string, a slog.Attr) slog.Attr {
		switch {
		case to == toJournal && len(groups) == 0 && a.Key == slog.TimeKey:
			return slog.Attr{}
		case asJSON && a.Value.Kind() == slog.KindDuration:
			return slog.String(a.Key, a.Value.Duration().String()) // not a number without a unit
		}
		return a
	}}
	var handler func(io.Writer) slog.Handler
	switch {
	case asJSON:
		handler = func(w io.Writer) slog.Handler { return slog.NewJSONHandler(w, options) }
	case to == toTerminal:
		handler = func(w io.Writer) slog.Handler { return &terminalHandler{w: w, level: level, mu: &sync.Mutex{}} }
	default:
		handler = func(w io.Writer) slog.Handler { return slog.NewTextHandler(w, options) }
	}
	if to == toJournal {
		return slog.New(newJournalHandler(w, handler))
	}
	return slog.New(handler(w))
}

// sink is the kind of reader of the log.
type sink int

const (
	toMachine sink = iota
	toTerminal
	toJournal
)

func sinkOf(w io.Writer) sink {
	switch {
	case isJournal(w, os.Getenv("JOURNAL_STREAM")):
		return toJournal
	case terminal.Is(w):
		return toTerminal
	}
	return toMachine
}

// isJournal reports whether w is the journal stream that systemd has set up; stream is its "device:inode" from
// $JOURNAL_STREAM (systemd.exec(5)). The variable alone is not sufficient: a process that inherits it may write
// elsewhere.
func isJournal(w io.Writer, stream string) bool {
	f := terminal.File(w)
	return f != nil && stream != "" && logs.JournalStream(f) == stream
}

// terminalHandler writes records like "15:04:05 worker-0 running pid=4712 port=40001".
type terminalHandler struct {
	mu    *sync.Mutex
	w     io.Writer
	level slog.Level
	attrs []slog.Attr
}

func (h *terminalHandler) Enabled(_ context.Context, level slog.Level) bool { return level >= h.level }

func (h *terminalHandler) Handle(_ context.Context, r slog.Record) error {
	var line strings.Builder
	line.WriteString(r.Time.Format("15:04:05 "))
	if r.Level != slog.LevelInfo {
		line.WriteString(strings.ToLower(r.Level.String()) + ": ")
	}
	message := r.Message
	var rest strings.Builder
	write := func(a slog.Attr) bool {
		if a.Key == "worker" {
			message = render.Printable(a.Value.String()) + " " + strings.TrimPrefix(message, "worker ")
			return true
		}
		value := a.Value.String()
		if strings.ContainsAny(value, ` "`) || render.Printable(value) != value {
			value = fmt.Sprintf("%q", value)
		}
		rest.WriteString(" " + a.Key + "=" + value)
		return true
	}
	for _, a := range h.attrs {
		write(a)
	}
	r.Attrs(write)
	line.WriteString(message + rest.String() + "\n")
	h.mu.Lock()
	defer h.mu.Unlock()
	_, err := io.WriteString(h.w, line.String())
	return err
}

func (h *terminalHandler) WithAttrs(attrs []slog.Attr) slog.Handler {
	next := *h
	next.attrs = append(slices.Clip(next.attrs), attrs...)
	return &next
}

// WithGroup ignores the group: the master's records have none.
func (h *terminalHandler) WithGroup(string) slog.Handler { return h }
