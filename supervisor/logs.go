package supervisor

import (
	"bytes"
	"errors"
	"io"
	"os"
	"strings"
)

// What is shown of a failed worker's output: enough for a stack trace's head.
const (
	lastOutputLines = 10
	lastOutputBytes = 4 << 10
)

// LastOutput returns the last lines that the worker wrote, nil where there are
// none or they cannot be read.
func (i WorkerInfo) LastOutput() []string {
	if i.LogPath == "" {
		return nil
	}
	f, err := os.Open(i.LogPath)
	if err != nil {
		return nil
	}
	defer func() { _ = f.Close() }()
	size, err := f.Seek(0, io.SeekEnd)
	if err != nil {
		return nil
	}
	tail := make([]byte, min(size, lastOutputBytes))
	if _, err := f.ReadAt(tail, size-int64(len(tail))); err != nil && !errors.Is(err, io.EOF) {
		return nil
	}
	if int64(len(tail)) < size {
		// The first line is cut: show it from its next beginning.
		if _, rest, found := bytes.Cut(tail, []byte("\n")); found {
			tail = rest
		}
	}
	text := strings.TrimRight(strings.ToValidUTF8(string(tail), "\uFFFD"), "\n")
	if text == "" {
		return nil
	}
	lines := strings.Split(text, "\n")
	return lines[max(0, len(lines)-lastOutputLines):]
}
