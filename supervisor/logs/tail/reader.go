package tail

import (
	"compress/gzip"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"time"

	"github.com/core-tools/hsu-master/internal/safefile"
	"github.com/core-tools/hsu-master/supervisor/logs/layout"
	"github.com/core-tools/hsu-master/supervisor/logs/offsets"
)

// reader reads the bytes of a log in the order in which they were written: first those in rotated files, then those in
// the log. A rotation meanwhile repeats none and leaves out none, unless it removes a file that was not read yet.
type reader struct {
	path  string
	table *offsets.Table

	todo []segment     // rotated files to read before the log
	from io.ReadCloser // the rotated file that is read now; nil if none is

	file        *os.File // the log; nil if there is none
	lines       int64    // offset in the log of the byte whose logical offset is the table's base
	moves, gaps int      // of the table when lines and at were found
	at          int64    // logical offset of the next byte in the log
	number      uint64   // of the rotated file that the next rotation of the log makes
	inode       uint64   // of the log; 0 if there is none
	spot        spot     // behind the last byte that was read
	ended       bool     // the last read reached the end of the log
}

// segment is a rotated file, or the copy of a rotation that has no number yet.
type segment struct {
	n, id uint64
	skip  int64 // the bytes that are not read
}

// openReader returns a reader of all bytes that are kept. The log may be missing.
func openReader(path string, table *offsets.Table) (*reader, error) {
	table.RLock()
	defer table.RUnlock()
	files, err := layout.List(path)
	if err != nil {
		return nil, err
	}
	r := &reader{path: path, table: table, moves: table.Moves(), number: files.Next()}
	for _, f := range files.Rotated {
		if n := len(r.todo); n == 0 || r.todo[n-1].n != f.N { // a file may exist in both forms
			r.todo = append(r.todo, segment{n: f.N})
		}
	}
	marker, err := r.open()
	if err != nil {
		return nil, err
	}
	if n := len(r.todo); marker != nil && (n == 0 || r.todo[n-1].n != marker.N) {
		r.todo = append(r.todo, segment{n: marker.N, id: marker.ID})
	}
	r.spot = spot{file: r.number}
	return r, nil
}

// open opens the log, if there is one, and goes to its first line. The caller holds the table.
func (r *reader) open() (*layout.Marker, error) {
	r.at, r.gaps = r.table.Base(), r.table.Gaps()
	f, err := safefile.Open(r.path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	r.file = f
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	r.inode = inodeOf(info)
	return r.locate()
}

// locate finds the first line in the log. The caller holds the table.
func (r *reader) locate() (*layout.Marker, error) {
	parts, err := layout.Find(r.file)
	if err != nil {
		return nil, err
	}
	moves := r.table.Moves()
	switch {
	case parts.Marker != nil:
		r.number = parts.Marker.N + 1
	case r.number == 0 || r.moves != moves:
		files, err := layout.List(r.path)
		if err != nil {
			return nil, err
		}
		r.number = files.Next()
	}
	r.lines, r.moves = parts.Lines, moves
	return parts.Marker, nil
}

// reopen opens the log anew if another file has its path. The rest of the former one must have been read.
func (r *reader) reopen() error {
	now, err := os.Lstat(r.path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	if r.file != nil {
		if was, err := r.file.Stat(); err != nil || os.SameFile(was, now) {
			return err
		}
		_ = r.file.Close()
		r.file = nil
	}
	r.number = 0 // the rotated files may be others too
	r.table.RLock()
	defer r.table.RUnlock()
	_, err = r.open()
	return err
}

func (r *reader) close() {
	if r.from != nil {
		_ = r.from.Close()
	}
	if r.file != nil {
		_ = r.file.Close()
	}
}

// lostError is returned once for bytes that cannot be read. The reader continues behind them.
type lostError struct{ what string }

func (e *lostError) Error() string { return e.what }

func isLost(err error) bool {
	_, lost := errors.AsType[*lostError](err)
	return lost
}

// Read returns io.EOF if there are no more bytes for now.
func (r *reader) Read(buf []byte) (int, error) {
	r.ended = false
	for {
		if r.from == nil && len(r.todo) > 0 {
			if err := r.next(); err != nil {
				return 0, err
			}
		}
		if r.from == nil {
			n, err := r.live(buf)
			if n > 0 || err != nil {
				return n, err
			}
			continue // with a rotated file
		}
		n, err := r.from.Read(buf)
		r.spot.offset += int64(n)
		if n > 0 {
			return n, nil
		}
		if err != nil {
			err = errors.Join(ignoreEOF(err), r.from.Close())
			r.from = nil
			if err != nil {
				return 0, &lostError{fmt.Sprintf("a rotated file is not readable: %v", err)}
			}
		}
	}
}

func ignoreEOF(err error) error {
	if err == io.EOF { //nolint:errorlint // a wrapped one is another
		return nil
	}
	return err
}

// next opens the next rotated file.
func (r *reader) next() error {
	s := r.todo[0]
	r.todo = r.todo[1:]
	from, err := openSegment(r.path, s)
	if errors.Is(err, fs.ErrNotExist) {
		return &lostError{"lines were rotated and removed before they could be read"}
	}
	if err != nil {
		return &lostError{fmt.Sprintf("a rotated file is not readable: %v", err)}
	}
	r.from, r.spot = from, spot{s.n, s.skip}
	return nil
}

// openSegment opens a rotated file in the form that it has now.
func openSegment(log string, s segment) (io.ReadCloser, error) {
	path := layout.RotatedPath(log, s.n)
	f, err := safefile.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		if f, err = safefile.Open(layout.CompressedPath(path)); err == nil {
			return unpack(f, s.skip)
		}
	}
	if errors.Is(err, fs.ErrNotExist) && s.id != 0 {
		f, err = safefile.Open(layout.CopyPath(log, s.id))
	}
	if err != nil {
		return nil, err
	}
	if _, err := f.Seek(s.skip, io.SeekStart); err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return f, nil
}

// unpacked is the content of a compressed file.
type unpacked struct {
	*gzip.Reader
	file *os.File
}

func unpack(f *os.File, skip int64) (io.ReadCloser, error) {
	z, err := gzip.NewReader(f)
	if err == nil {
		_, err = io.CopyN(io.Discard, z, skip)
		err = ignoreEOF(err)
	}
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return unpacked{z, f}, nil
}

func (u unpacked) Close() error { return errors.Join(u.Reader.Close(), u.file.Close()) }

// live reads from the log. It returns 0 and no error if the next bytes are in a rotated file, which is to be read now.
func (r *reader) live(buf []byte) (int, error) {
	r.table.RLock()
	defer r.table.RUnlock()
	r.at, r.gaps = r.table.Adjust(r.at, r.gaps)
	base := r.table.Base()
	if r.at < base {
		return 0, r.followRotation(base)
	}
	if r.file == nil {
		return 0, io.EOF
	}
	// Before the first byte is read, the log may begin with NULs, which are no lines.
	if r.moves != r.table.Moves() || r.at == base {
		if _, err := r.locate(); err != nil {
			return 0, err
		}
	}
	offset := r.lines + r.at - base
	n, err := r.file.ReadAt(buf, offset)
	r.at += int64(n)
	r.ended = n < len(buf)
	r.spot = spot{r.number, r.at - base}
	if n > 0 {
		return n, nil
	}
	if !errors.Is(err, io.EOF) {
		return 0, err
	}
	info, err := r.file.Stat()
	if err != nil {
		return 0, err
	}
	if info.Size() < offset {
		r.at = base
		_, err := r.locate()
		return 0, errors.Join(err, &lostError{"a program has truncated the log"})
	}
	return 0, io.EOF
}

// followRotation continues in the rotated file that has the next byte.
func (r *reader) followRotation(base int64) error {
	rotated, found := r.table.Rotated(r.at)
	if !found {
		rotated.Begin = base
	}
	if lost := rotated.Begin - r.at; lost > 0 {
		r.at = rotated.Begin
		return &lostError{fmt.Sprintf("%d bytes were rotated and removed before they could be read", lost)}
	}
	r.todo = append(r.todo, segment{n: rotated.N, id: rotated.ID, skip: r.at - rotated.Begin})
	r.at = rotated.End
	return nil
}

// changed returns when a rotated file got its last line.
func (s segment) changed(log string) (time.Time, error) {
	path := layout.RotatedPath(log, s.n)
	info, err := os.Lstat(path)
	if errors.Is(err, fs.ErrNotExist) {
		info, err = os.Lstat(layout.CompressedPath(path))
	}
	if errors.Is(err, fs.ErrNotExist) && s.id != 0 {
		info, err = os.Lstat(layout.CopyPath(log, s.id))
	}
	if err != nil {
		return time.Time{}, err
	}
	return info.ModTime(), nil
}
