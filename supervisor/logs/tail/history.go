package tail

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math"
	"time"

	"github.com/core-tools/hsu-master/supervisor/logs"
)

// place is the beginning of a line.
type place struct {
	segment int // index of the rotated file; behind the last one is the log
	line    int // number of the line in it, counted from where the survey begins in it
}

func (p place) before(o place) bool {
	return p.segment < o.segment || p.segment == o.segment && p.line < o.line
}

// everything is behind every line.
var everything = place{segment: math.MaxInt}

// survey is what there is of a log when a query begins, and the selected part of it.
type survey struct {
	*tail
	segments []segment
	live     reader // at the first line in the log
	end      int64  // logical offset of the end of the log

	from, to place
	offset   int64 // the bytes of the segment of from that are not read
	skip     int   // number of matching lines from from on that are left out
	printing bool  // the part is chosen
}

// history passes the selected lines that are there, and leaves the reader behind them.
func (t *tail) history() error {
	s, err := t.survey()
	if err != nil {
		return t.notice(err.Error(), time.Time{})
	}
	if err := s.choose(); errors.Is(err, ErrNoPrevious) {
		return err
	} else if err != nil {
		return t.notice(err.Error(), time.Time{})
	}
	return s.print()
}

// survey takes the present lines from the reader.
func (t *tail) survey() (*survey, error) {
	r := t.reader
	s := &survey{tail: t, segments: r.todo, live: *r, to: everything}
	s.live.todo, r.todo = nil, nil
	s.end = r.at
	if r.file != nil {
		info, err := r.file.Stat()
		if err != nil {
			return nil, err
		}
		s.end = max(r.at, r.at+info.Size()-r.lines)
	}
	r.at = s.end
	return s, nil
}

// scan passes the lines of a segment to visit, until that returns false. A file that was removed has none. Other errors
// are returned only when the lines are printed: until then, what cannot be read has no lines.
func (s *survey) scan(i int, l *lines, visit func(n int, l line) bool) error {
	from, left, err := s.open(i)
	if errors.Is(err, fs.ErrNotExist) || err != nil && !s.printing {
		return nil
	}
	if err != nil {
		return fmt.Errorf("a rotated file is not readable: %w", err)
	}
	defer func() { _ = from.Close() }()
	buf, n, going := s.batch.buffer(), 0, true
	partial := i == s.from.segment && s.offset > 0 // begins within a line
	for going && left > 0 {
		if err := s.ctx.Err(); err != nil {
			return err
		}
		size, err := from.Read(buf[:min(left, readSize)])
		left -= int64(size)
		s.read.offset += int64(size)
		if r, ok := from.(rotatable); ok {
			s.read = r.spot
		}
		l.feed(buf[:size], func(l line) {
			if partial {
				partial = l.more
				return
			}
			if going {
				going = visit(n, l)
				n++
			}
		})
		if errors.Is(err, io.EOF) || err != nil && !s.printing {
			break
		}
		if err != nil {
			return err
		}
	}
	if going && !partial && (i < len(s.segments) || !s.query.Follow) {
		l.end(func(l line) { visit(n, l) })
	}
	return nil
}

// open opens a segment, and returns how many bytes are to be read at most.
func (s *survey) open(i int) (io.ReadCloser, int64, error) {
	skip := int64(0)
	if i == s.from.segment {
		skip = s.offset
	}
	if i < len(s.segments) {
		segment := s.segments[i]
		segment.skip = skip
		s.read = spot{segment.n, skip}
		from, err := openSegment(s.source.Path, segment)
		return from, math.MaxInt64, err
	}
	live := s.live
	live.at += skip
	live.spot.offset += skip
	s.read = live.spot
	return rotatable{&live}, s.end - live.at, nil
}

// rotatable is a reader that leaves the log open.
type rotatable struct{ *reader }

func (r rotatable) Close() error {
	if r.from == nil {
		return nil
	}
	return r.from.Close()
}

// choose finds the part that the query selects.
func (s *survey) choose() error {
	if !s.query.Since.IsZero() {
		if err := s.skipOlder(); err != nil {
			return err
		}
	}
	if s.query.Previous {
		if err := s.skipPresent(); err != nil {
			return err
		}
	}
	if s.query.Lines < 0 {
		return nil
	}
	return s.skipFirst()
}

// skipOlder leaves out lines that are known to be older.
func (s *survey) skipOlder() error {
	if s.skipSeen() {
		return nil
	}
	for s.from.segment < len(s.segments) {
		changed, err := s.segments[s.from.segment].changed(s.source.Path)
		if err == nil && !changed.Before(s.query.Since) {
			break
		}
		s.from.segment++
	}
	if s.from.segment == len(s.segments) && s.live.file != nil {
		info, err := s.live.file.Stat()
		if err == nil && info.ModTime().Before(s.query.Since) {
			s.from.segment++
			return nil
		}
	}
	for i := len(s.segments); i >= s.from.segment; i-- {
		found := place{segment: -1}
		err := s.scan(i, &lines{}, func(n int, l line) bool {
			if at, _, ok := logs.ParseStart(l.text, s.source.Worker); ok && at.Before(s.query.Since) {
				found = place{i, n + 1}
			}
			return true
		})
		if err != nil {
			return err
		}
		if found.segment >= 0 {
			s.from = found
			return nil
		}
	}
	return nil
}

// skipSeen goes to where the log ended at the last sight before the time. It returns false if there is none.
func (s *survey) skipSeen() bool {
	table := s.live.table
	table.RLock()
	defer table.RUnlock()
	at, known := table.Since(s.query.Since)
	if !known {
		return false
	}
	at = max(0, at-1) // if that is a newline, the first line is whole
	if at >= s.live.at {
		s.from, s.offset = place{segment: len(s.segments)}, at-s.live.at
		return true
	}
	rotated, found := table.Rotated(at)
	if !found || rotated.Begin > at {
		return false
	}
	for i, segment := range s.segments {
		if segment.n == rotated.N {
			s.from, s.offset = place{segment: i}, at-rotated.Begin
			return true
		}
	}
	return false
}

// skipPresent leaves out the output of the present instance, and that of instances before the previous one.
func (s *survey) skipPresent() error {
	s.to = place{segment: -1}
	first := s.from
	for i := len(s.segments); i >= first.segment; i-- {
		var starts []place // the last two
		err := s.scan(i, &lines{}, func(n int, l line) bool {
			if _, _, ok := logs.ParseStart(l.text, s.source.Worker); ok && !(place{i, n}).before(first) {
				starts = append(starts[max(0, len(starts)-1):], place{i, n})
			}
			return true
		})
		if err != nil {
			return err
		}
		for len(starts) > 0 {
			last := starts[len(starts)-1]
			starts = starts[:len(starts)-1]
			if s.to.segment >= 0 {
				s.begin(last)
				return nil
			}
			s.to = last
		}
	}
	if s.to.segment < 0 || s.to == first || s.to == (place{}) {
		return ErrNoPrevious
	}
	return nil // the line of that start is not kept any more
}

// begin selects the lines from a place on.
func (s *survey) begin(p place) {
	if p.segment != s.from.segment {
		s.offset = 0
	}
	s.from = p
}

// skipFirst leaves out all lines but the last ones that match.
func (s *survey) skipFirst() error {
	total := 0
	for i := min(len(s.segments), s.to.segment); i >= s.from.segment; i-- {
		found := 0
		err := s.scan(i, &lines{}, func(n int, l line) bool {
			at := place{i, n}
			if !at.before(s.to) {
				return false
			}
			if !at.before(s.from) && s.matches(l) {
				found++
			}
			return true
		})
		if err != nil {
			return err
		}
		if total += found; total >= s.query.Lines {
			if i != s.from.segment {
				s.begin(place{segment: i})
			}
			s.skip = total - s.query.Lines
			return nil
		}
	}
	return nil
}

// begins returns where the first byte of the selected part is.
func (s *survey) begins() spot {
	switch n := len(s.segments); {
	case s.from.segment < n:
		return spot{s.segments[s.from.segment].n, s.offset}
	case s.from.segment == n:
		return spot{s.live.number, s.offset}
	}
	return spot{s.live.number, s.end - s.live.at}
}

// print passes the selected lines, and keeps an incomplete one at the end for the follower.
func (s *survey) print() error {
	s.printing = true
	s.stand(s.begins())
	for i := s.from.segment; i <= min(len(s.segments), s.to.segment); i++ {
		var failed error
		err := s.scan(i, &s.lines, func(n int, l line) bool {
			at := place{i, n}
			if !at.before(s.to) {
				return false
			}
			s.mark(l)
			if at.before(s.from) || !s.matches(l) {
				return true
			}
			if s.skip > 0 {
				s.skip--
				return true
			}
			failed = s.put(l, time.Time{})
			return failed == nil
		})
		if failed == nil && s.ctx.Err() != nil {
			failed = s.ctx.Err()
		}
		if failed == nil && err != nil {
			failed = s.notice(err.Error(), time.Time{})
		}
		if failed != nil {
			return failed
		}
	}
	return s.flush(time.Time{})
}
