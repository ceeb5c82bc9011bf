package tail

import (
	"fmt"
	"os"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/core-tools/hsu-master/supervisor/logs"
	"github.com/core-tools/hsu-master/supervisor/logs/layout"
	"github.com/core-tools/hsu-master/supervisor/logs/offsets"
	"github.com/core-tools/hsu-master/supervisor/logs/rotate"
)

// nextMaster returns the host of the next process, which knows nothing of the former one.
func (h *host) nextMaster() *host {
	tables := &offsets.Tables{}
	next := &host{t: h.t, dir: h.dir, rotated: make(chan rotate.Event, 1<<16), hub: NewHub(h.dir, tables)}
	next.rotator = rotate.New(next.event, tables)
	return next
}

// A writer goes on while one master after another rotates its log and serves a follower that stops anywhere. The
// follower gets each line once.
func TestResumeOverRotations(t *testing.T) {
	for name, collapse := range map[string]bool{"collapse": true, "punch": false} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			h := newHost(t)
			s := h.source("web-0", "")
			stop := startWriter(t, s.Path, "a")
			seen, q := newSequence(t), Query{Lines: -1, Positions: true}
			policy := logs.Policy{MaxSize: 64 << 10, Keep: 1 << 20, Compress: true}
			for master := range 10 {
				end := h.serve(policy, collapse, s)
				f := h.follow(q, s)
				for rotations := 0; rotations <= master%3; {
					select {
					case <-h.rotated:
						rotations++
					case c := <-f.chunks:
						seen.add(c)
						q.After = map[string]Position{"web-0": *c.Position}
					}
				}
				f.stop()
				if master%2 == 0 {
					h.awaitRotations(1) // without the follower
				}
				end()
				h = h.nextMaster()
			}
			written := stop()
			for f := h.follow(q, s); seen.last["a"] < written; {
				seen.add(f.next())
			}
		})
	}
}

// place follows a log up to a text, and returns the position there.
func (h *host) place(q Query, s Source, end string) Position {
	h.t.Helper()
	q.Positions = true
	f := h.follow(q, s)
	defer f.stop()
	for {
		if c := f.next(); c.Position != nil && strings.HasSuffix(string(c.Text), end) {
			return *c.Position
		}
	}
}

// rotateLog makes the n-th rotated file of the present lines, and a log that goes on with what follows. The log stays
// the same file.
func (h *host) rotateLog(s Source, n uint64) {
	h.t.Helper()
	content, err := os.ReadFile(s.Path)
	if err == nil {
		err = os.WriteFile(layout.RotatedPath(s.Path, n), content, 0o600)
	}
	if err == nil {
		err = os.Truncate(s.Path, 0)
	}
	if err != nil {
		h.t.Fatal(err)
	}
}

func (h *host) remove(paths ...string) {
	h.t.Helper()
	for _, path := range paths {
		if err := os.Remove(path); err != nil {
			h.t.Fatal(err)
		}
	}
}

// What happens to a log between two masters decides what the second one begins with.
func TestResume(t *testing.T) {
	const lost = "! " + lostPosition + "\n"
	long := strings.Repeat("x", MaxLine+10)
	for name, test := range map[string]struct {
		before  string // in the log
		sent    string // the end of what the first master sends
		between func(*host, Source)
		want    string
	}{
		"nothing happens":   {"a\nb\n", "b\n", func(*host, Source) {}, ""},
		"a line":            {"a\nb\n", "b\n", func(h *host, s Source) { h.write(s.Path, "c\n") }, "c\n"},
		"the end of a line": {"a\nb", "a\n", func(h *host, s Source) { h.write(s.Path, "c\n") }, "bc\n"},
		"the end of a long line": {
			"a\n" + long, "x", func(h *host, s Source) { h.write(s.Path, "c\n") }, "xxxxxxxxxxc\n",
		},
		"no line yet": {"", "", func(h *host, s Source) { h.write(s.Path, "c\n") }, "c\n"},
		"NULs": {
			"a\x00b\n\x00c\x00c\n", "cc\n", func(h *host, s Source) { h.write(s.Path, "\x00d\n") }, "d\n",
		},
		"a rotation": {"a\nb\n", "b\n", func(h *host, s Source) {
			h.write(s.Path, "c\n")
			h.rotateLog(s, 1)
			h.write(s.Path, "d\n")
		}, "c\nd\n"},
		"a rotation at the place": {"a\nb\n", "b\n", func(h *host, s Source) {
			h.rotateLog(s, 1)
			h.write(s.Path, "c\n")
		}, "c\n"},
		"rotated twice": {"a\nb\n", "b\n", func(h *host, s Source) {
			h.rotateLog(s, 1)
			h.write(s.Path, "c\n")
			h.rotateLog(s, 2)
			h.write(s.Path, "d\n")
		}, "c\nd\n"},
		"removed": {"a\nb\n", "b\n", func(h *host, s Source) {
			h.rotateLog(s, 1)
			h.write(s.Path, "c\n")
			h.rotateLog(s, 2)
			h.write(s.Path, "d\n")
			h.remove(layout.RotatedPath(s.Path, 1))
		}, lost + "c\nd\n"},
		"no number left": {"a\nb\n", "b\n", func(h *host, s Source) {
			h.rotateLog(s, 1)
			h.write(s.Path, "c\n")
			h.remove(layout.RotatedPath(s.Path, 1))
		}, lost + "c\n"},
		"truncated": {"a\nb\n", "b\n", func(h *host, s Source) {
			h.rotateLog(s, 1)
			h.remove(layout.RotatedPath(s.Path, 1))
			h.write(s.Path, "x\ny\nz\n")
		}, lost + "x\ny\nz\n"},
		"replaced by a file with the same lines": {"a\nb\n", "b\n", func(h *host, s Source) {
			h.write(s.Path+".new", "a\nb\nc\n")
			if err := os.Rename(s.Path+".new", s.Path); err != nil {
				h.t.Error(err)
			}
		}, lost + "a\nb\nc\n"},
		"deleted": {"a\nb\n", "b\n", func(h *host, s Source) { h.remove(s.Path) }, lost},
	} {
		t.Run(name, func(t *testing.T) {
			h := newHost(t)
			s := h.source("web-0", test.before)
			at := h.place(Query{Lines: -1}, s, test.sent)
			test.between(h, s)
			// Lines and Since are for workers without a position.
			q := Query{Positions: true, After: map[string]Position{"web-0": at}, Since: time.Now().Add(time.Hour)}
			next := h.nextMaster()
			f := next.follow(q, s)
			next.write(s.Path, "end\n")
			if got := f.await("end\n"); got != test.want+"end\n" {
				t.Errorf("%.200q, want %q and the end", got, test.want)
			}
		})
	}
}

// The numbers of rotated files begin anew when all are gone. What was sent does not come again.
func TestResumeWhenOldFilesAreRemoved(t *testing.T) {
	h := newHost(t)
	s := h.source("web-0", "b\n")
	h.write(layout.RotatedPath(s.Path, 7), "a\n")
	at := h.place(Query{Lines: -1}, s, "b\n")
	if at.File != 8 || at.Offset != 2 {
		t.Errorf("%+v", at)
	}
	h.remove(layout.RotatedPath(s.Path, 7))
	f := h.nextMaster().follow(Query{Positions: true, After: map[string]Position{"web-0": at}}, s)
	h.write(s.Path, "c\n")
	if got := f.await("c\n"); got != "c\n" {
		t.Errorf("%q, want c", got)
	}
	f.stop()
	h.rotateLog(s, 1)
	h.write(s.Path, "d\n")
	f = h.nextMaster().follow(Query{Positions: true, After: map[string]Position{"web-0": at}}, s)
	if got := f.await("d\n"); got != "! "+lostPosition+"\nb\nc\nd\n" {
		t.Errorf("after other rotations: %q", got)
	}
}

// The position goes on behind lines that do not match, and is not sent to a client that does not want it.
func TestPositionOfOtherLines(t *testing.T) {
	h := newHost(t)
	s := h.source("web-0", "yes\nno\n")
	q := Query{Lines: -1, Match: regexp.MustCompile("^yes"), Positions: true}
	f := h.follow(q, s)
	if c := f.next(); string(c.Text) != "yes\n" || c.Position.Offset != 7 {
		t.Errorf("%+v", c)
	}
	h.write(s.Path, "no\n")
	if c := f.next(); len(c.Text) > 0 || c.Position == nil || c.Position.Offset != 10 {
		t.Errorf("%+v", c)
	}
	q.Positions = false
	plain := h.follow(q, s)
	if c := plain.next(); string(c.Text) != "yes\n" || c.Position != nil {
		t.Errorf("%+v", c)
	}
	h.write(s.Path, "no\nyes 2\n")
	if c := plain.next(); string(c.Text) != "yes 2\n" {
		t.Errorf("%+v", c)
	}
}

// A position that no master makes is one that is not found.
func TestWrongPositions(t *testing.T) {
	h := newHost(t)
	s := h.source("web-0", "a\n")
	for _, p := range []Position{
		{},
		{File: 1, Offset: -1},
		{File: 1, Offset: 1, Size: 2},
		{File: 1, Offset: 1, Size: -1},
		{File: 1, Offset: 1 << 62, Size: 1 << 30},
		{File: 1, Offset: 2, Size: 2, Sum: 1},
	} {
		t.Run(fmt.Sprintf("%+v", p), func(t *testing.T) {
			f := (&host{t: t, dir: h.dir, hub: h.hub}).follow(
				Query{Positions: true, After: map[string]Position{"web-0": p}}, s)
			if got, want := f.await("a\n"), "! "+lostPosition+"\na\n"; got != want && p != (Position{}) {
				t.Errorf("%q, want %q", got, want)
			}
		})
	}
}

// A line that was read in two pieces is found again.
func TestResumeBehindALineInPieces(t *testing.T) {
	h := newHost(t)
	s := h.source("web-0", "a\nb")
	f := h.follow(Query{Lines: -1, Positions: true}, s)
	f.await("a\n")
	h.write(s.Path, "c\n")
	c := f.next()
	if string(c.Text) != "bc\n" || c.Position.Size != 3 {
		t.Fatalf("%+v", c)
	}
	f.stop()
	h.write(s.Path, "d\n")
	f = h.nextMaster().follow(Query{Positions: true, After: map[string]Position{"web-0": *c.Position}}, s)
	if got := f.await("d\n"); got != "d\n" {
		t.Errorf("%q, want d", got)
	}
}

// A position that is not found is said once, also if no line comes before the next master does.
func TestLostPositionIsToldOnce(t *testing.T) {
	h := newHost(t)
	s := h.source("web-0", "a\n")
	at := h.place(Query{Lines: -1}, s, "a\n")
	if err := os.Truncate(s.Path, 0); err != nil {
		t.Fatal(err)
	}
	f := h.nextMaster().follow(Query{Positions: true, After: map[string]Position{"web-0": at}}, s)
	if got := f.next(); got.Notice != lostPosition {
		t.Fatalf("%+v", got)
	}
	at = *f.next().Position
	f.stop()
	h.write(s.Path, "b\n")
	f = h.nextMaster().follow(Query{Positions: true, After: map[string]Position{"web-0": at}}, s)
	if got := f.await("b\n"); got != "b\n" {
		t.Errorf("%q, want b", got)
	}
}

// A position that is made while a rotation is not complete is found when it is.
func TestResumeOverAnInterruptedRotation(t *testing.T) {
	h := newHost(t)
	old := strings.Repeat("x", 2*layout.MarkerSize) + "\n"
	s := h.source("web-0", old+"a\n")
	m := layout.Marker{ID: 7, N: 1, End: int64(len(old))}
	h.write(layout.CopyPath(s.Path, m.ID), old)
	overwrite := func(with []byte) {
		t.Helper()
		f, err := os.OpenFile(s.Path, os.O_WRONLY, 0)
		if err == nil {
			_, err = f.WriteAt(with, 0)
			_ = f.Close()
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	overwrite(m.Bytes())
	at := h.place(Query{Lines: -1}, s, "a\n")
	if err := os.Rename(layout.CopyPath(s.Path, m.ID), layout.RotatedPath(s.Path, m.N)); err != nil {
		t.Fatal(err)
	}
	overwrite(make([]byte, m.End))
	h.write(s.Path, "b\n")
	f := h.nextMaster().follow(Query{Positions: true, After: map[string]Position{"web-0": at}}, s)
	if got := f.await("b\n"); got != "b\n" {
		t.Errorf("%q, want b", got)
	}
}
