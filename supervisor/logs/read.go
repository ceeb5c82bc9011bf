package logs

import (
	"bytes"
	"compress/gzip"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"

	"github.com/core-tools/hsu-master/internal/safefile"
	"github.com/core-tools/hsu-master/supervisor/logs/layout"
)

// CopyAll writes all lines of a worker that are kept, oldest first. A rotation meanwhile repeats none and leaves out
// none, unless it removes a file that was not read yet.
func CopyAll(w io.Writer, path string) error {
	for next := uint64(0); ; {
		files, err := layout.List(path)
		if err != nil {
			return err
		}
		for _, f := range files.Rotated {
			if f.N < next {
				continue
			}
			if err := copyRotated(w, path, f.N); err != nil {
				return fmt.Errorf("read rotated file %d: %w", f.N, err)
			}
			next = f.N + 1
		}
		lines, err := newest(path, files.Next())
		if err == nil {
			_, err = w.Write(lines)
		}
		if !errors.Is(err, errRotated) {
			return err
		}
	}
}

// copyRotated writes a rotated file, in the form that it has now. A file that was removed has no lines.
func copyRotated(w io.Writer, log string, n uint64) error {
	path := layout.RotatedPath(log, n)
	f, err := safefile.Open(path)
	compressed := errors.Is(err, fs.ErrNotExist)
	if compressed {
		f, err = safefile.Open(layout.CompressedPath(path))
	}
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	defer func() { _ = f.Close() }()
	from := io.Reader(f)
	if compressed {
		if from, err = gzip.NewReader(f); err != nil {
			return err
		}
	}
	_, err = io.Copy(w, from)
	return err
}

// errRotated means that the log was rotated while it was read.
var errRotated = errors.New("rotated")

// newest returns the lines that no rotated file contains, or errRotated if the number of the next rotated file has
// changed. They are read before that is checked, so their number is limited by the size of a log.
func newest(path string, next uint64) ([]byte, error) {
	f, err := safefile.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	defer func() { _ = f.Close() }()
	before, err := layout.Find(f)
	if err != nil {
		return nil, err
	}
	lines, err := marked(path, before)
	if err != nil {
		return nil, err
	}
	rest, err := io.ReadAll(io.NewSectionReader(f, before.Lines, before.Size-before.Lines))
	if err != nil {
		return nil, err
	}
	after, err := layout.Find(f)
	if err != nil {
		return nil, err
	}
	files, err := layout.List(path)
	if err != nil {
		return nil, err
	}
	if files.Next() != next || after.Size < before.Size || after.Lines != before.Lines ||
		(after.Marker == nil) != (before.Marker == nil) {
		return nil, errRotated
	}
	return bytes.ReplaceAll(append(lines, rest...), []byte{0}, nil), nil
}

// marked returns the lines in the copy of a rotation that is not complete.
func marked(path string, p layout.Parts) ([]byte, error) {
	if p.Marker == nil {
		return nil, nil
	}
	lines, err := safefile.ReadFile(layout.CopyPath(path, p.Marker.ID), p.Marker.End)
	if errors.Is(err, os.ErrNotExist) { // it has its number now
		err = nil
	}
	return lines, err
}
