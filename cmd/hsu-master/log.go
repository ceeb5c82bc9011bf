package main

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"os"
	"slices"
	"strings"
	"sync"
)

// discard is for what a short command has nobody to tell.
var discard = slog.New(slog.DiscardHandler)

// newLogger writes JSON, or text for machines, or, on a terminal, one short line
// an event for people.
func newLogger(w io.Writer, terminal, asJSON bool, level slog.Level) *slog.Logger {
	options := &slog.HandlerOptions{Level: level}
	if asJSON {
		return slog.New(slog.NewJSONHandler(w, options))
	}
	if terminal {
		return slog.New(&terminalHandler{w: w, level: level, mu: &sync.Mutex{}})
	}
	return slog.New(slog.NewTextHandler(w, options))
}

// isTerminal: a device that is written to a character at a time, but for the one
// that takes everything.
func isTerminal(w io.Writer) bool {
	if o, ok := w.(*outlet); ok {
		w = o.Writer
	}
	f, ok := w.(*os.File)
	if !ok {
		return false
	}
	info, err := f.Stat()
	if err != nil || info.Mode()&os.ModeCharDevice == 0 {
		return false
	}
	null, err := os.Stat(os.DevNull)
	return err != nil || !os.SameFile(info, null)
}

// terminalHandler prints "15:04:05 worker-0 running pid=4712 port=40001".
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
			message = printable(a.Value.String()) + " " + strings.TrimPrefix(message, "worker ")
			return true
		}
		value := a.Value.String()
		if strings.ContainsAny(value, ` "`) || printable(value) != value {
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

// WithGroup: the master's records have no groups.
func (h *terminalHandler) WithGroup(string) slog.Handler { return h }
