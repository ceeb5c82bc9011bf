package tail

import (
	"context"
	"errors"
	"fmt"
	"os"
	"regexp"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/core-tools/hsu-master/supervisor/logs"
)

// Processes write without a rest while their log is rotated a hundred times. The follower gets each line once,
// whichever way the rotated lines are freed.
func TestFollowOverRotations(t *testing.T) {
	for name, collapse := range map[string]bool{"collapse": true, "punch": false} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			h := newHost(t)
			s := h.source("web-0", "")
			h.serve(logs.Policy{MaxSize: 64 << 10, Keep: 1 << 20, Compress: true}, collapse, s)
			f := h.follow(Query{Lines: -1}, s)
			stops := map[string]func() int{}
			for _, writer := range []string{"a", "b"} {
				stops[writer] = startWriter(t, s.Path, writer)
			}
			seen := newSequence(t)
			for rotations := 0; rotations < manyRotations; {
				select {
				case <-h.rotated:
					rotations++
				case c := <-f.chunks:
					seen.add(c)
				}
			}
			for writer, stop := range stops {
				written := stop()
				for seen.last[writer] < written {
					seen.add(f.next())
				}
				t.Logf("%d lines of writer %s", written, writer)
			}
		})
	}
}

// Lines of several logs come in the order in which they are written, from the first new one on.
func TestFollowSeveral(t *testing.T) {
	h := newHost(t)
	a, b := h.source("a-0", "old\nolder\n"), h.source("b-0", "")
	f := h.follow(Query{Lines: 1}, a, b)
	if got := f.await("older\n"); got != "older\n" {
		t.Errorf("first comes %q", got)
	}
	for n := range 20 {
		s := []Source{a, b}[n%2]
		text := fmt.Sprintln(n)
		h.write(s.Path, text)
		if c := f.next(); string(c.Text) != text || c.Worker != s.Worker || time.Since(c.Time) > patience {
			t.Fatalf("%+v, want %q of %s", c, text, s.Worker)
		}
	}
}

func TestFollowMatches(t *testing.T) {
	h := newHost(t)
	s := h.source("a-0", "yes 1\nno 1\n")
	f := h.follow(Query{Lines: 5, Match: regexp.MustCompile("^yes")}, s)
	f.await("yes 1\n")
	h.write(s.Path, "no 2\nye")
	h.write(s.Path, "s 2\n")
	if got := f.await("2\n"); got != "yes 2\n" {
		t.Errorf("%q", got)
	}
}

// A log that does not exist yet, that is deleted and made anew, or truncated by its program, is followed on.
func TestFollowOtherFiles(t *testing.T) {
	h := newHost(t)
	s := Source{"a-0", logs.Path(h.dir, "a-0")}
	f := h.follow(Query{Lines: 1}, s, h.source("b-0", "old\n"))
	f.await("old\n") // of the second log: the follower has found that the first one is missing
	h.write(s.Path, "1\n")
	f.await("1\n")
	if err := os.Rename(s.Path, s.Path+".old"); err != nil {
		t.Fatal(err)
	}
	h.write(s.Path+".old", "2\n") // of the writer that has it open
	h.write(s.Path, "3\n")
	if got := f.await("3\n"); got != "2\n3\n" {
		t.Errorf("after a move: %q", got)
	}
	if err := os.Truncate(s.Path, 0); err != nil {
		t.Fatal(err)
	}
	if got := f.await("!"); got != "! a program has truncated the log\n" {
		t.Errorf("after a truncation: %q", got)
	}
	h.write(s.Path, "4\n")
	if got := f.await("4\n"); got != "4\n" {
		t.Errorf("after a truncation: %q", got)
	}
}

// A client that does not read stops its follower, and neither the writer nor the rotator. Lines that were removed
// meanwhile are reported, and what follows is whole.
func TestSlowFollower(t *testing.T) {
	for name, keep := range map[string]int{"keep two": 2, "keep none": logs.KeepNone} {
		t.Run(name, func(t *testing.T) {
			h := newHost(t)
			s := h.source("a-0", "")
			h.serve(logs.Policy{MaxSize: 64 << 10, Keep: keep}, true, s)
			f := h.follow(Query{Lines: -1}, s)
			stop := startWriter(t, s.Path, "a")
			first := f.next() // the next one is not read for now
			h.awaitRotations(5)
			written := stop()
			if !strings.HasPrefix(string(first.Text), numbered("a", 1)) {
				t.Errorf("first comes %.60q", first.Text)
			}
			text := f.await(numbered("a", written))
			lost := regexp.MustCompile(`! \d+ bytes were rotated and removed before they could be read\n`)
			if !lost.MatchString(text) {
				t.Errorf("no line tells of lost lines")
			}
			if !strings.HasSuffix(text, "\n"+numbered("a", written)) {
				t.Errorf("it ends with %.200q", text[max(0, len(text)-200):])
			}
		})
	}
}

// A hundred followers cost one inotify instance, and leave nothing behind.
func TestManyFollowers(t *testing.T) {
	h := newHost(t)
	s := h.source("a-0", "")
	var followers []*follower
	for range 100 {
		followers = append(followers, h.follow(Query{Lines: -1}, s))
	}
	h.write(s.Path, "a\n")
	for _, f := range followers {
		f.await("a\n")
	}
	h.hub.mu.Lock()
	subscribed := len(h.hub.watcher.all)
	h.hub.mu.Unlock()
	if subscribed != len(followers) {
		t.Errorf("%d subscriptions, want %d", subscribed, len(followers))
	}
	for _, f := range followers {
		f.stop()
	}
	if h.hub.watcher != nil {
		t.Error("the watcher goes on")
	}
}

// A follower whose client pauses over several rotations finds its lines in the rotated files, of which some are
// compressed meanwhile.
func TestFollowerBehindSeveralRotations(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	s := h.source("a-0", "")
	h.serve(logs.Policy{MaxSize: 64 << 10, Keep: 1 << 20, Compress: true}, true, s)
	f := h.follow(Query{Lines: -1}, s)
	stop := startWriter(t, s.Path, "a")
	seen := newSequence(t)
	for range 3 {
		seen.add(f.next())
		h.awaitRotations(5)
	}
	for written := stop(); seen.last["a"] < written; {
		seen.add(f.next())
	}
}

// heap returns the bytes that are in use.
func heap() int {
	runtime.GC()
	runtime.GC() // which frees the memory that the first one has left in pools
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int(m.HeapAlloc) //nolint:gosec // it is less than the memory
}

// A query that waits for lines keeps little for each of its logs.
func TestWaitingFollowersKeepLittle(t *testing.T) {
	const queries, each = 200, 4
	h := newHost(t)
	var sources []Source
	for i := range each {
		sources = append(sources, h.source(fmt.Sprintf("a-%d", i), "before\n"))
	}
	before := heap()
	var followers []*follower
	for range queries {
		followers = append(followers, h.follow(Query{Lines: -1}, sources...))
	}
	for _, f := range followers {
		for range sources {
			f.await("before\n")
		}
	}
	for _, s := range sources {
		h.write(s.Path, "after\n")
	}
	for _, f := range followers {
		for range sources {
			f.await("after\n")
		}
	}
	const most = queries * (32 << 10)
	// They may have yet to give their buffers back.
	for deadline := time.Now().Add(patience); ; time.Sleep(time.Millisecond) {
		kept := heap() - before
		if kept <= most {
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("%d bytes are kept for %d queries of %d logs, want %d at most", kept, queries, each, most)
		}
	}
}

// A client that never reads keeps little, and stops neither the writer of the log nor its rotation.
func TestClientsThatNeverRead(t *testing.T) {
	const queries = 50
	h := newHost(t)
	s := h.source("a-0", strings.Repeat(strings.Repeat("x", 99)+"\n", 50_000))
	before := heap()
	ctx, cancel := context.WithCancel(t.Context())
	var all sync.WaitGroup
	defer all.Wait()
	defer cancel()
	sending := make(chan struct{}, queries)
	for i := range queries {
		all.Go(func() {
			err := h.hub.Copy(ctx, []Source{s}, Query{Lines: -1, Follow: i%2 == 0}, func([]Chunk) error {
				sending <- struct{}{}
				<-ctx.Done()
				return ctx.Err()
			})
			if !errors.Is(err, context.Canceled) {
				t.Errorf("copy: %v", err)
			}
		})
	}
	for range queries {
		<-sending
	}
	if kept, most := heap()-before, queries*(256<<10); kept > most {
		t.Errorf("%d bytes are kept for %d clients, want %d at most", kept, queries, most)
	}
	stop := startWriter(t, s.Path, "1")
	h.serve(logs.Policy{MaxSize: 64 << 10, Keep: 3}, true, s)
	h.awaitRotations(2)
	if n := stop(); n == 0 {
		t.Error("the writer has written nothing")
	}
}

// A worker that comes while others are followed joins them: with the lines that it has written since, and not with
// those that the log has of an earlier worker of its name.
func TestLaterWorkersJoin(t *testing.T) {
	h := newHost(t)
	a := h.source("a-0", "")
	later := make(chan Source)
	f := h.follow(Query{Lines: -1, Later: later}, a)
	h.write(a.Path, "1\n")
	f.await("1\n")
	b := h.source("b-0", "of long ago\n")
	hourAgo := time.Now().Add(-time.Hour)
	if err := os.Chtimes(b.Path, hourAgo, hourAgo); err != nil {
		t.Fatal(err)
	}
	later <- b
	c := h.source("c-0", "just written\n")
	later <- c
	if got := f.next(); got.Worker != "c-0" || string(got.Text) != "just written\n" {
		t.Errorf("the new worker begins with %+v", got)
	}
	for n := range 5 {
		for _, s := range []Source{a, b, c} {
			text := fmt.Sprintln(n, s.Worker)
			h.write(s.Path, text)
			if got := f.next(); string(got.Text) != text || got.Worker != s.Worker {
				t.Fatalf("%+v, want %q of %s", got, text, s.Worker)
			}
		}
	}
}

// A follower that is slower than a writer gets later workers all the same, and not when it has caught up.
func TestLaterWorkersJoinBesideABusyWriter(t *testing.T) {
	h := newHost(t)
	a := h.source("a-0", "begin\n")
	later := make(chan Source)
	f := h.follow(Query{Lines: -1, Later: later}, a)
	f.await("begin\n")
	b := h.source("b-0", "joined\n")
	h.write(a.Path, strings.Repeat(strings.Repeat("x", 99)+"\n", 64*turnSize/100))
	f.next() // the follower is behind from here on
	joining := make(chan struct{})
	go func() {
		defer close(joining)
		later <- b
	}()
	size := 0
	for c := f.next(); c.Worker != b.Worker; c = f.next() {
		size += len(c.Text)
	}
	<-joining
	if size > 32*turnSize {
		t.Errorf("it joins after %d bytes of the other worker", size)
	}
}

// If none of the logs can be read, later ones are not awaited.
func TestFollowNothingReadable(t *testing.T) {
	h := newHost(t)
	path := logs.Path(h.dir, "a-0")
	if err := os.Symlink("/dev/null", path); err != nil {
		t.Fatal(err)
	}
	send := func([]Chunk) error { return nil }
	q := Query{Lines: 5, Follow: true, Later: make(chan Source)}
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	if err := h.hub.Copy(ctx, []Source{{"a-0", path}}, q, send); !errors.Is(err, ErrUnreadable) {
		t.Errorf("%v, want %v", err, ErrUnreadable)
	}
}

// A unit without workers is followed until it has one.
func TestFollowFromNoWorkerOn(t *testing.T) {
	h := newHost(t)
	later := make(chan Source)
	f := h.follow(Query{Lines: 5, Later: later})
	s := h.source("a-0", "")
	later <- s
	h.write(s.Path, "1\n")
	f.await("1\n")
}

// Writers that never pause, one beside the other, are followed over the rotations of their log: as fast as they write,
// each line comes once.
func TestFollowWritersThatNeverPause(t *testing.T) {
	for name, collapse := range map[string]bool{"collapse": true, "punch": false} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			const lines = 40_000 // of each, 20 MB
			h := newHost(t)
			s := h.source("web-0", "")
			h.serve(logs.Policy{MaxSize: 64 << 10, Keep: 1 << 20, Compress: true}, collapse, s)
			f := h.follow(Query{Lines: -1}, s)
			seen := newSequence(t)
			for pair := 0; len(h.rotated) < 3; pair++ { // the faster they write, the more
				a, b := fmt.Sprint("a", pair), fmt.Sprint("b", pair)
				stopA := startBurst(t, s.Path, a, lines)
				stopB := startBurst(t, s.Path, b, lines)
				for seen.last[a] < lines || seen.last[b] < lines {
					seen.add(f.next())
				}
				if m, n := stopA(), stopB(); m != lines || n != lines {
					t.Errorf("they have written %d and %d lines, want %d", m, n, lines)
				}
			}
		})
	}
}
