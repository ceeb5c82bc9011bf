package main

import (
	"fmt"
	"io"
	"sync"
	"time"
)

const (
	// logQueue is how many lines wait for a reader that is slow.
	logQueue = 4096
	// logLastWait bounds how long an ending master waits for its last lines.
	logLastWait = time.Second
)

// logWriter passes lines on without ever making the caller wait: a terminal that is
// held (Ctrl-S), a pipe that nobody reads or a stuck collector must not stop the
// supervision. What does not fit is dropped, and counted.
type logWriter struct {
	w     io.Writer
	lines chan []byte
	done  chan struct{}

	mu      sync.Mutex
	dropped int
	closed  bool
}

func newLogWriter(w io.Writer) *logWriter {
	l := &logWriter{w: w, lines: make(chan []byte, logQueue), done: make(chan struct{})}
	go l.run()
	return l
}

// Write takes one line. It never fails and never waits.
func (l *logWriter) Write(line []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		return len(line), nil
	}
	select {
	case l.lines <- append([]byte(nil), line...):
	default:
		l.dropped++
	}
	return len(line), nil
}

func (l *logWriter) run() {
	defer close(l.done)
	for line := range l.lines {
		// Nobody is left to be told that the log cannot be written.
		_, _ = l.w.Write(line)
		l.mu.Lock()
		dropped := l.dropped
		l.dropped = 0
		l.mu.Unlock()
		if dropped > 0 {
			_, _ = fmt.Fprintf(l.w, "hsu-master: %d lines of the log were dropped, nobody read them in time\n", dropped)
		}
	}
}

// close waits, bounded, until what was taken is written.
func (l *logWriter) close() error {
	l.mu.Lock()
	if !l.closed {
		l.closed = true
		close(l.lines)
	}
	l.mu.Unlock()
	select {
	case <-l.done:
	case <-time.After(logLastWait):
	}
	return nil
}
