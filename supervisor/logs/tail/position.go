package tail

import (
	"bytes"
	"errors"
	"hash/crc32"
	"io"
	"os"
	"slices"
	"time"
)

// Position is the end of a line in the output of a worker, or of a piece of a line that was cut. It stays valid over
// rotations, and in the next process.
//
// The log has no name for a byte that outlives a rotation: the lines before it are moved away. But a rotation copies
// them as they are. So the position is the number of the file that the next rotation makes, and the offset from the
// first line that no rotated file contains. If that file is shorter than the offset, the rest is in the next ones.
type Position struct {
	File   uint64
	Offset int64
	// Size is the number of bytes of the line, or of its piece, and Sum is the CRC-32C of these without NULs. They show
	// whether the position is still that of the same line. Size is 0 if that is not known.
	Size int
	Sum  uint32
	// Inode is that of the log; 0 if it is not known.
	Inode uint64
}

// mostChecked bounds the size of a line whose sum is in a position. A line is larger than MaxLine only with NULs.
const mostChecked = 4 * MaxLine

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// spot is a byte in a rotated file, or in the one that the next rotation makes.
type spot struct {
	file   uint64
	offset int64
}

// mark records that everything up to the end of a line, in the text that was read last, is passed on.
func (t *tail) mark(l line) {
	if !t.query.Positions {
		return
	}
	p := Position{File: t.read.file, Offset: t.read.offset - int64(l.left), Inode: t.reader.inode}
	if l.raw <= mostChecked && int64(l.raw) <= p.Offset {
		p.Size, p.Sum = l.raw, crc32.Checksum(l.text, castagnoli)
	}
	t.position = p
}

// stand records that everything before a byte, which begins a line, is passed on.
func (t *tail) stand(at spot) {
	if t.query.Positions {
		t.position = Position{File: at.file, Offset: at.offset, Inode: t.reader.inode}
	}
}

// lostPosition is the notice for a position that is not found.
const lostPosition = "lines may be missing, or come again: the last one that was sent is not found any more"

// resume passes the lines behind a position, and leaves the reader behind them.
func (t *tail) resume(p Position) error {
	t.position, t.sent = p, p
	if !t.reader.resume(p) {
		if err := t.notice(lostPosition, time.Time{}); err != nil {
			return err
		}
		t.stand(t.reader.start())
	}
	for {
		ended, err := t.turn(false, time.Time{})
		if ended || err != nil {
			return err
		}
		if err := t.ctx.Err(); err != nil { // also if no line is selected, so that none is sent
			return err
		}
	}
}

// start returns where the first byte is that a reader which has read nothing will read.
func (r *reader) start() spot {
	if len(r.todo) > 0 {
		return spot{r.todo[0].n, r.todo[0].skip}
	}
	return spot{file: r.number}
}

// resume goes to a position. If that is not found, it returns false, and goes to the oldest line that is left and not
// known to be before the position. The reader must not have read anything.
func (r *reader) resume(p Position) bool {
	if len(r.todo) > 0 && p.File > r.number {
		return false // the numbers have begun anew, so everything is newer
	}
	r.todo = slices.DeleteFunc(r.todo, func(s segment) bool { return s.n < p.File })
	first := *r
	if r.seek(p) {
		return true
	}
	if r.from != nil {
		_ = r.from.Close()
	}
	*r = first
	return false
}

// seek goes to a position, by way of the line before it. If that is another line, it returns false, and the reader may
// be anywhere.
func (r *reader) seek(p Position) bool {
	at := p.Offset - int64(p.Size)
	if p.Size < 0 || p.Size > mostChecked || at < 0 || len(r.todo) > 0 && r.todo[0].n != p.File {
		return false
	}
	todo := slices.Clone(r.todo)
	for len(todo) > 0 {
		size, err := sizeOf(r.path, todo[0])
		if err != nil {
			return false
		}
		if at < size {
			todo[0].skip = at
			break
		}
		at -= size
		todo = todo[1:]
	}
	if r.todo = todo; len(todo) == 0 {
		if at > 0 && r.file == nil || p.Inode != 0 && p.Inode != r.inode {
			return false
		}
		r.at += at
		r.spot.offset += at
	}
	return p.Size == 0 || r.skipLine(p)
}

// skipLine reads the line before a position, and reports whether it is the one of the position.
func (r *reader) skipLine(p Position) bool {
	text := make([]byte, p.Size)
	for n := 0; n < len(text); {
		read, err := r.Read(text[n:])
		if err != nil {
			return false
		}
		n += read
	}
	if bytes.IndexByte(text, 0) >= 0 {
		text = withoutNULs(text)
	}
	return crc32.Checksum(text, castagnoli) == p.Sum
}

// sizeOf returns the number of bytes in a rotated file that is not compressed, or in the content of one that is.
func sizeOf(log string, s segment) (int64, error) {
	from, err := openSegment(log, segment{n: s.n, id: s.id})
	if err != nil {
		return 0, err
	}
	if f, ok := from.(*os.File); ok {
		size := int64(0)
		info, err := f.Stat()
		if err == nil {
			size = info.Size()
		}
		return size, errors.Join(err, f.Close())
	}
	size, err := io.Copy(io.Discard, from)
	return size, errors.Join(err, from.Close())
}
