// Package logs is about the files that workers write their output to.
package logs

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"github.com/core-tools/hsu-master/internal/safefile"
)

// Limits on the shown output of a failed worker: enough for the head of a stack trace.
const (
	lastOutputLines = 10
	lastOutputBytes = 4 << 10
)

// DefaultDir returns the folder of the workers' output files in a state directory.
func DefaultDir(stateDir string) string { return filepath.Join(stateDir, "logs") }

// Path returns the path of a worker's output file in the folder dir.
func Path(dir, worker string) string { return filepath.Join(dir, worker+".log") }

// Open opens a worker's output file for appending, and creates it and the folder if necessary, but not the folder's
// parents: a missing state directory may come back.
func Open(dir, worker string) (*os.File, error) {
	if err := safefile.Mkdir(dir); err != nil {
		return nil, fmt.Errorf("make the folder of logs: %w", err)
	}
	f, err := safefile.OpenFile(Path(dir, worker), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return nil, fmt.Errorf("open the worker's log: %w", err)
	}
	return f, nil
}

// Tail returns the last lines of an output file, nil if there are none or they cannot be read.
func Tail(path string) []string {
	f, err := safefile.Open(path)
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
