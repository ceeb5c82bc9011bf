package logging

import (
	"bytes"
	"fmt"
	"io"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
)

// In a bubble, time passes only while the writer can do nothing, so close waits as long as it needs to write.
func TestLogWriterNeverWaits(t *testing.T) { synctest.Test(t, testLogWriterNeverWaits) }

func testLogWriterNeverWaits(t *testing.T) {
	read, write := io.Pipe() // nobody reads yet
	l := newLogWriter(write)
	const lines = 2 * logQueue
	for i := range lines {
		if _, err := fmt.Fprintf(l, "line %d\n", i); err != nil {
			t.Fatal(err)
		}
	}
	var text bytes.Buffer
	done := make(chan struct{})
	go func() {
		defer close(done)
		_, _ = io.Copy(&text, read)
	}()
	l.Close()
	_ = write.Close()
	<-done
	if got := strings.Count(text.String(), "line "); got < logQueue {
		t.Errorf("%d lines arrived, want the %d that fit at least", got, logQueue)
	}
	if !strings.Contains(text.String(), "lines of the log were dropped") {
		t.Error("nothing is said of those that were dropped")
	}
}

func TestLogWriterWritesAllBeforeItCloses(t *testing.T) { synctest.Test(t, testLogWriterWritesAll) }

func testLogWriterWritesAll(t *testing.T) {
	var text bytes.Buffer
	l := newLogWriter(&text)
	for i := range 100 {
		fmt.Fprintf(l, "%d\n", i)
	}
	l.Close()
	if got := strings.Count(text.String(), "\n"); got != 100 {
		t.Errorf("%d lines, want 100", got)
	}
	fmt.Fprintln(l, "late") // no panic, no line
}

// Lines that wait are written together, in writes that a pipe does not tear.
func TestLogWriterWritesLinesTogether(t *testing.T) {
	synctest.Test(t, testLogWriterWritesLinesTogether)
}

func testLogWriterWritesLinesTogether(t *testing.T) {
	read, write := io.Pipe() // a write waits until all of it is read
	l := newLogWriter(write)
	line, long := strings.Repeat("x", 99)+"\n", strings.Repeat("y", 2*logBatch)+"\n"
	fmt.Fprint(l, line)
	synctest.Wait() // the first line is being written
	const more = 100
	for range more {
		fmt.Fprint(l, line)
	}
	fmt.Fprint(l, long)
	go func() {
		l.Close()
		_ = write.Close()
	}()
	var sizes []int
	for buf := make([]byte, 4*logBatch); ; {
		n, err := read.Read(buf)
		if err != nil {
			break
		}
		sizes = append(sizes, n)
	}
	if want := []int{100, 4000, 4000, 2000, len(long)}; !slices.Equal(sizes, want) {
		t.Errorf("writes of %d bytes, want %d", sizes, want)
	}
}
