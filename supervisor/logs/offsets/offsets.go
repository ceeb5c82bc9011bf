// Package offsets gives each byte of a log a number that stays the same while the log is rotated.
//
// A rotation moves lines into a file beside the log and frees them in place, which may move the other lines to lower
// offsets in the log. So a reader's position cannot be an offset in the log. It is a logical offset: the number of
// bytes between the first line that was in no rotated file when the table was made, and the byte.
//
// The rotator changes the table, and readers use it, in the process of the master. A reader holds the table of the log
// while it reads from the log, so a rotation never frees bytes under a read.
package offsets

import (
	"slices"
	"sync"
	"time"

	"github.com/core-tools/hsu-master/supervisor/logs/layout"
)

// Tables has a table for each log. The zero value is ready to use.
type Tables struct {
	mu   sync.Mutex
	logs map[string]*Table // by path; never removed, because a reader may hold one
}

// Of returns the table of the log at path.
func (t *Tables) Of(path string) *Table {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.logs == nil {
		t.logs = map[string]*Table{}
	}
	if t.logs[path] == nil {
		t.logs[path] = &Table{}
	}
	return t.logs[path]
}

// Table maps the logical offsets of one log to its files. The rotator locks it while lines move, and readers lock it
// for reading. Its methods say which of the locks their caller holds.
type Table struct {
	sync.RWMutex

	base    int64     // logical offset of the first line in the log that no rotated file contains
	rotated []Rotated // oldest first
	gaps    []Gap
	moves   int // how often lines have moved

	seen history
}

// Rotated are the logical offsets of the lines in a rotated file.
type Rotated struct {
	Begin, End int64
	N          uint64 // number of the file
	ID         uint64 // of its rotation, whose copy it is until it has its number
}

// Gap is a number of NULs that were removed from within a log. The bytes behind have new logical offsets.
type Gap struct {
	At, Size int64
}

// Rotate records that the lines up to the end of the marker are rotated. The first of them is at the offset lines of
// the log. The caller holds the lock.
func (t *Table) Rotate(m layout.Marker, lines int64) {
	// A number that is used again belongs to a file that was removed.
	t.rotated = slices.DeleteFunc(t.rotated, func(r Rotated) bool { return r.N >= m.N })
	t.rotated = append(t.rotated, Rotated{Begin: t.base, End: t.base + m.End - lines, N: m.N, ID: m.ID})
	t.base += m.End - lines
	t.moves++
}

// Skip records that the log begins with NULs of its worker, which readers skip. The caller holds the lock.
func (t *Table) Skip(nuls int64) {
	t.base += nuls
	if n := len(t.rotated); n > 0 {
		t.rotated[n-1].End = t.base // a reader that is within the NULs finds no more in that file
	}
}

// Forget forgets all rotated files but the newest ones. The caller holds no lock.
func (t *Table) Forget(newest int) {
	t.Lock()
	defer t.Unlock()
	t.rotated = slices.Delete(t.rotated, 0, max(0, len(t.rotated)-max(0, newest)))
}

// Remove records that size NULs were removed, which began at the offset at of a log whose first line is at lines. The
// caller holds the lock.
func (t *Table) Remove(at, lines, size int64) {
	t.moves++
	if at > lines {
		t.gaps = append(t.gaps, Gap{t.base + at - lines, size})
	}
}

// Moved records that lines may have moved, without a change of their logical offsets. The caller holds the lock.
func (t *Table) Moved() { t.moves++ }

// Base returns the logical offset of the first line in the log that no rotated file contains. It is the same until
// Moves is another. The caller holds a lock.
func (t *Table) Base() int64 { return t.base }

// Moves returns how often lines have moved. The caller holds a lock.
func (t *Table) Moves() int { return t.moves }

// Rotated returns the rotated lines from a logical offset on: those in the file that contains it or, if that was
// removed, in the next one. It returns false if there are none. The caller holds a lock.
func (t *Table) Rotated(at int64) (Rotated, bool) {
	i := slices.IndexFunc(t.rotated, func(r Rotated) bool { return r.End > at })
	if i < 0 {
		return Rotated{}, false
	}
	return t.rotated[i], true
}

// Adjust returns the logical offset, now, of a byte that had the offset at when the log had the first gaps, and the
// number of gaps. The caller holds a lock.
func (t *Table) Adjust(at int64, gaps int) (now int64, all int) {
	for _, g := range t.gaps[gaps:] {
		if at > g.At {
			at = max(g.At, at-g.Size)
		}
	}
	return at, len(t.gaps)
}

// Gaps returns the number of gaps. The caller holds a lock.
func (t *Table) Gaps() int { return len(t.gaps) }

// See records that a log, whose first line is at lines, has the size at a time. The caller holds no lock.
func (t *Table) See(now time.Time, lines, size int64) {
	t.Lock()
	defer t.Unlock()
	t.seen.add(now, t.base+size-lines)
}

// Since returns the greatest logical offset that the log is known not to have exceeded before a time. It returns false
// if none is known. The caller holds a lock.
func (t *Table) Since(when time.Time) (int64, bool) { return t.seen.before(when) }
