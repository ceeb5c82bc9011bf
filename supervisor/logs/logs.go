// Package logs is about the files that workers write their output to.
package logs

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/core-tools/hsu-master/internal/safefile"
	"github.com/core-tools/hsu-master/supervisor/logs/layout"
)

// TailSize is the number of bytes at the end of a log that [Tail] reads, and that rotation leaves there. It is enough
// for the head of a stack trace.
const TailSize = 4 << 10

// lastOutputLines limits the shown output of a failed worker.
const lastOutputLines = 10

// DefaultDir returns the folder of the workers' output files in a state directory.
func DefaultDir(stateDir string) string { return filepath.Join(stateDir, "logs") }

// Path returns the path of a worker's output file in the folder dir.
func Path(dir, worker string) string { return filepath.Join(dir, worker+".log") }

// Open opens a worker's output file for appending, and creates it and the folder if necessary, but not the folder's
// parents: a missing state directory may come back.
func Open(dir, worker string) (*os.File, error) { return open(dir, worker, os.O_CREATE|os.O_WRONLY) }

func open(dir, worker string, flag int) (*os.File, error) {
	if err := safefile.Mkdir(dir); err != nil {
		return nil, fmt.Errorf("make the folder of logs: %w", err)
	}
	f, err := safefile.OpenFile(Path(dir, worker), flag|os.O_APPEND, 0o600)
	if err != nil {
		return nil, fmt.Errorf("open the worker's log: %w", err)
	}
	return f, nil
}

// MarkStart appends the line for a start of the worker to its output file; see [ParseStart]. A missing file is created
// only if the worker writes to it. MarkStart returns the file, opened as by [Open], or nil if it is missing.
func MarkStart(dir, worker string, to Target, incarnation uint64) (*os.File, error) {
	flag := os.O_WRONLY
	if to == ToFile {
		flag |= os.O_CREATE
	}
	f, err := open(dir, worker, flag)
	if to != ToFile && errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	line := startLine(time.Now(), worker, incarnation)
	if !endsLine(f) {
		line = "\n" + line // one write, which other processes with the file cannot tear
	}
	if _, err := f.WriteString(line); err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return f, nil
}

// endsLine reports whether a file, which was opened for writing, is empty or ends with a whole line.
func endsLine(f *os.File) bool {
	info, err := f.Stat()
	if err != nil || info.Size() == 0 {
		return true
	}
	r, err := safefile.Open(f.Name())
	if err != nil {
		return true
	}
	defer func() { _ = r.Close() }()
	var last [1]byte
	_, err = r.ReadAt(last[:], info.Size()-1)
	return err != nil || last[0] == '\n'
}

// Tail returns the last lines of an output file that were written since the last start of the worker, nil if there are
// none or they cannot be read. It drops NUL bytes, which a worker leaves if it truncates its output.
func Tail(path string) []string {
	f, err := safefile.Open(path)
	if err != nil {
		return nil
	}
	defer func() { _ = f.Close() }()
	parts, err := layout.Find(f)
	if err != nil {
		return nil
	}
	begin := max(parts.Lines, parts.Size-TailSize)
	tail := make([]byte, parts.Size-begin)
	n, err := f.ReadAt(tail, begin)
	if err != nil && !errors.Is(err, io.EOF) {
		return nil
	}
	tail = tail[:n]
	if begin > parts.Lines {
		// The first line is cut: drop it.
		if _, rest, found := bytes.Cut(tail, []byte("\n")); found {
			tail = rest
		}
	}
	tail = bytes.ReplaceAll(tail, []byte{0}, nil)
	text := strings.TrimRight(strings.ToValidUTF8(string(tail), "\uFFFD"), "\n")
	if text == "" {
		return nil
	}
	lines := strings.Split(text, "\n")
	for i, line := range slices.Backward(lines) {
		if strings.HasSuffix(line, startMark) {
			lines = lines[i+1:]
			break
		}
	}
	return lines[max(0, len(lines)-lastOutputLines):]
}
