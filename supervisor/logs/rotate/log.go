package rotate

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"

	"github.com/core-tools/hsu-master/internal/crashpoint"
	"github.com/core-tools/hsu-master/internal/safefile"
	"github.com/core-tools/hsu-master/supervisor/logs"
	"github.com/core-tools/hsu-master/supervisor/logs/layout"
	"github.com/core-tools/hsu-master/supervisor/logs/offsets"
)

// log is an open log, for one rotation.
type log struct {
	path  string
	file  *os.File // without O_APPEND
	block int64
	space space
	steps steps
	// offsets are locked while lines move.
	offsets *offsets.Table
	// appendsOnly reports whether every writer of the log has O_APPEND.
	appendsOnly func(context.Context) bool
	completed   bool // recover has completed a rotation
}

// steps performs the steps of a rotation.
type steps struct {
	// at, if not nil, is called before and after each step with the name of the moment. It is for tests.
	at func(moment string)
}

// Perform performs a step: see [crashpoint.Do].
func (s steps) Perform(p crashpoint.Point, act func() error) error {
	if s.at == nil {
		return crashpoint.Do(p, act)
	}
	s.at(p.Before())
	err := crashpoint.Do(p, act)
	s.at(p.After())
	return err
}

// open opens a log for a rotation.
func open(l Log, sp space, st steps, to *offsets.Table) (*log, error) {
	f, err := safefile.OpenFile(l.Path, os.O_RDWR, 0)
	if err != nil {
		return nil, err
	}
	return &log{
		path: l.Path, file: f, block: blockSize(f), space: sp, steps: st, offsets: to,
		appendsOnly: func(ctx context.Context) bool {
			if l.AppendsOnly == nil {
				return false
			}
			only, err := l.AppendsOnly(ctx)
			return err == nil && only
		},
	}, nil
}

func (l *log) close() error { return l.file.Close() }

// rotate moves the lines of the log into a rotated file, or drops them if keep is false. It leaves the end of the log
// ([logs.TailSize]) in place, so that the last lines of a worker are always there. It returns the number of bytes that
// it moved, 0 if no line ends early enough and none is as long as [logs.LongestLine]. The log must be recovered, with
// parts p.
func (l *log) rotate(ctx context.Context, p layout.Parts, keep bool) (int64, error) {
	m, err := l.choose(p)
	if err != nil || m.End == 0 {
		return 0, err
	}
	if keep {
		if err := l.copy(ctx, m, p.Lines); err != nil {
			return 0, fmt.Errorf("copy the lines: %w", err)
		}
	}
	l.offsets.Lock()
	defer l.offsets.Unlock()
	err = l.mark(m, p.At)
	if err == nil || l.isMarked(m) {
		l.offsets.Rotate(m, p.Lines)
	}
	if err != nil {
		return 0, fmt.Errorf("mark the log: %w", err)
	}
	err = l.complete(ctx, m, p)
	if after, e := layout.Find(l.file); e == nil && after.Lines > m.End { // a hole, and NULs of the worker behind it
		l.offsets.Skip(after.Lines - m.End)
	}
	return m.End - p.Lines, err
}

// isMarked reports whether the log has the marker.
func (l *log) isMarked(m layout.Marker) bool {
	p, err := layout.Find(l.file)
	return err == nil && p.Marker != nil && *p.Marker == m
}

// choose returns the marker of the next rotation; its End is 0 if there is nothing to rotate.
func (l *log) choose(p layout.Parts) (layout.Marker, error) {
	end, err := l.lastLine(p.At+layout.MarkerSize, p.Size-logs.TailSize)
	if err != nil {
		return layout.Marker{}, fmt.Errorf("find the end of a line: %w", err)
	}
	if p.Size-max(end, p.Lines) >= logs.LongestLine {
		end = p.Size - logs.TailSize // within the line
	}
	cut := (end - layout.MinFiller) / l.block * l.block
	if cut < p.At+layout.MarkerSize || end <= p.Lines {
		return layout.Marker{}, nil
	}
	files, err := layout.List(l.path)
	if err != nil {
		return layout.Marker{}, err
	}
	return layout.Marker{ID: rand.Uint64(), N: files.Next(), Cut: cut, End: end}, nil
}

// lastLine returns the end of the last line that ends between from and to, 0 if there is none.
func (l *log) lastLine(from, to int64) (int64, error) {
	buf := make([]byte, copySize)
	for to > from {
		at := max(from, to-copySize)
		n, err := l.file.ReadAt(buf[:to-at], at)
		if i := bytes.LastIndexByte(buf[:n], '\n'); i >= 0 {
			return at + int64(i) + 1, nil
		}
		if err != nil && !errors.Is(err, io.EOF) {
			return 0, err
		}
		to = at
	}
	return 0, nil
}

// copy makes the copy of a rotation, durably. If it fails, it leaves nothing behind.
func (l *log) copy(ctx context.Context, m layout.Marker, from int64) (err error) {
	path := layout.CopyPath(l.path, m.ID)
	f, err := safefile.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	defer func() {
		if err = errors.Join(err, f.Close()); err != nil {
			err = errors.Join(err, l.remove(path))
		}
	}()
	err = l.steps.Perform(crashpoint.LogCopy.Write(), func() error {
		return copyTo(ctx, f, io.NewSectionReader(l.file, from, m.End-from), m.End-from)
	})
	if err != nil {
		return err
	}
	if err := l.steps.Perform(crashpoint.LogCopy.Sync(), f.Sync); err != nil {
		return err
	}
	return l.syncFolder()
}

// errShrunk means that a program truncated its log during a rotation.
var errShrunk = errors.New("truncated during its rotation")

// mark writes the marker. If that fails, the copy is of no use.
func (l *log) mark(m layout.Marker, at int64) error {
	return l.steps.Perform(crashpoint.LogMark, func() error {
		info, err := l.file.Stat()
		if err == nil && info.Size() < m.End {
			err = errShrunk
		}
		n := 0
		if err == nil {
			n, err = l.file.WriteAt(m.Bytes(), at)
		}
		if n == 0 {
			err = errors.Join(err, l.dropCopies())
		}
		return err
	})
}

// whileMarked performs a step that changes the log. It returns errShrunk if the marker is gone or the log is shorter
// than it says: then a program has truncated the log, and the step would change other lines.
func (l *log) whileMarked(p crashpoint.Point, m layout.Marker, act func() error) error {
	return l.steps.Perform(p, func() error {
		parts, err := layout.Find(l.file)
		if err != nil {
			return err
		}
		if parts.Marker == nil || *parts.Marker != m {
			return errShrunk
		}
		return act()
	})
}

// complete does the steps of a rotation after the marker. Each may have been done already. The end of ctx does not stop
// it, because it takes little time.
func (l *log) complete(ctx context.Context, m layout.Marker, p layout.Parts) error {
	ctx = context.WithoutCancel(ctx)
	if err := l.steps.Perform(crashpoint.LogMarkSync, l.sync); err != nil {
		return fmt.Errorf("sync the marker: %w", err)
	}
	err := l.steps.Perform(crashpoint.LogCopy.Rename(), func() error {
		return os.Rename(layout.CopyPath(l.path, m.ID), layout.RotatedPath(l.path, m.N))
	})
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("name the copy: %w", err)
	}
	if err := l.syncFolder(); err != nil {
		return fmt.Errorf("sync the folder: %w", err)
	}
	if err := l.free(ctx, m, p); err != nil {
		return fmt.Errorf("free the rotated lines: %w", err)
	}
	return nil
}

// recover completes the rotation that a crash interrupted, or removes its traces. It returns the parts of the log.
func (l *log) recover(ctx context.Context, beside folders) (layout.Parts, error) {
	l.offsets.Lock()
	defer l.offsets.Unlock()
	p, err := layout.Find(l.file)
	if err != nil {
		return p, err
	}
	if p.Marker != nil {
		l.offsets.Moved()
		if err := l.complete(ctx, *p.Marker, p); err != nil {
			return p, fmt.Errorf("complete a rotation: %w", err)
		}
		l.completed = true
	}
	files, err := beside.beside(l.path)
	if err = errors.Join(err, l.drop(files.Copies)); err != nil {
		return p, err
	}
	if err := l.closeHoles(ctx); err != nil {
		return p, fmt.Errorf("close holes: %w", err)
	}
	return layout.Find(l.file)
}

// dropCopies removes the copies of rotations that did not reach their marker.
func (l *log) dropCopies() error {
	files, err := layout.List(l.path)
	return errors.Join(err, l.drop(files.Copies))
}

func (l *log) drop(copies []string) (err error) {
	for _, path := range copies {
		if e := l.remove(path); !errors.Is(e, fs.ErrNotExist) {
			err = errors.Join(err, e)
		}
	}
	return err
}

func (l *log) remove(path string) error {
	return l.steps.Perform(crashpoint.LogRemove, func() error { return os.Remove(path) })
}

func (l *log) sync() error { return datasync(l.file) }

func (l *log) syncFolder() error {
	return l.steps.Perform(crashpoint.LogCopy.SyncFolder(), func() error {
		return safefile.SyncDir(filepath.Dir(l.path))
	})
}

// copySize is the size of the pieces in which lines are copied.
const copySize = 256 << 10

// copyTo copies size bytes of a log. It fails if ctx ends.
func copyTo(ctx context.Context, to io.Writer, from io.Reader, size int64) error {
	buf := make([]byte, min(copySize, size))
	for size > 0 {
		if err := context.Cause(ctx); err != nil {
			return err
		}
		n, err := io.ReadFull(from, buf[:min(size, copySize)])
		if err != nil {
			return fmt.Errorf("read the log: %w", err)
		}
		if _, err := to.Write(buf[:n]); err != nil {
			return err
		}
		size -= int64(n)
	}
	return nil
}
