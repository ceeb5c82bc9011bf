package logging

import (
	"fmt"
	"io"
	"sync"
	"time"
)

const (
	// logQueue is the number of lines that can wait for a slow reader.
	logQueue = 4096
	// logLastWait bounds how long a terminating master waits for its last lines to be written.
	logLastWait = time.Second
	// logBatch bounds the lines that are written together. A write of that size into a pipe, which workers may share,
	// is not interrupted by another: PIPE_BUF of Linux.
	logBatch = 4096
)

// Writer writes lines in the background and never blocks the caller: a suspended terminal (Ctrl-S), a pipe
// that is not read or a stuck log collector must not stop the supervision. Lines beyond logQueue are dropped and
// counted.
type Writer struct {
	w     io.Writer
	lines chan []byte
	done  chan struct{}

	mu      sync.Mutex
	dropped int
	closed  bool
}

func newLogWriter(w io.Writer) *Writer {
	l := &Writer{w: w, lines: make(chan []byte, logQueue), done: make(chan struct{})}
	go l.run()
	return l
}

// Write queues one line. It never fails and never blocks.
func (l *Writer) Write(line []byte) (int, error) {
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

func (l *Writer) run() {
	defer close(l.done)
	for line := range l.lines {
		for more := true; more; {
			var batch []byte
			batch, line = l.gather(line)
			// An error of the log cannot be reported anywhere.
			_, _ = l.w.Write(batch)
			more = line != nil
		}
		l.mu.Lock()
		dropped := l.dropped
		l.dropped = 0
		l.mu.Unlock()
		if dropped > 0 {
			_, _ = fmt.Fprintf(l.w, "hsu-master: %d lines of the log were dropped, nobody read them in time\n", dropped)
		}
	}
}

// gather returns the line with those that are in the queue now and fit into a batch: while a hundred workers start,
// each write would wake the reader. next is the first one that does not fit, nil if there is none.
func (l *Writer) gather(line []byte) (batch, next []byte) {
	for {
		select {
		case next = <-l.lines: // nil if the queue is closed and empty
		default:
			return line, nil
		}
		if next == nil || len(line)+len(next) > logBatch {
			return line, next
		}
		line = append(line, next...)
	}
}

// Close waits up to logLastWait until the queued lines are written.
func (l *Writer) Close() {
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
}
