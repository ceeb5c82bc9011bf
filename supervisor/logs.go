package supervisor

import (
	"bytes"
	"errors"
	"io"
	"strings"

	"github.com/core-tools/hsu-master/internal/safefile"
)

// Limits on the shown output of a failed worker: enough for the head of a stack trace.
const (
	lastOutputLines = 10
	lastOutputBytes = 4 << 10
)

// LastOutput returns the last lines that the worker wrote, nil if there are none or they cannot be read.
func (i WorkerInfo) LastOutput() []string {
	if i.LogPath == "" {
		return nil
	}
	f, err := safefile.Open(i.LogPath)
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
		// The first line is cut: drop it.
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
