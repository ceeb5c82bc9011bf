package tail

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/core-tools/hsu-master/internal/leaks"
	"github.com/core-tools/hsu-master/supervisor/logs"
	"github.com/core-tools/hsu-master/supervisor/logs/internal/logwriter"
	"github.com/core-tools/hsu-master/supervisor/logs/offsets"
	"github.com/core-tools/hsu-master/supervisor/logs/rotate"
)

func TestMain(m *testing.M) {
	logwriter.Main(func(writer string, n int) []byte { return []byte(numbered(writer, n)) }, 10)
	os.Exit(leaks.Run(m, os.Stderr))
}

// patience bounds every wait of a test. A wait normally takes far less.
const patience = time.Minute

// numbered returns the n-th line of a writer. Every tenth is long.
func numbered(writer string, n int) string {
	size := n * 37 % 150
	if n%10 == 0 {
		size = n * 37 % 9000
	}
	return fmt.Sprintf("%s %d %s.\n", writer, n, strings.Repeat(string(rune('a'+n%26)), size))
}

// startWriter starts a process that writes to a log. stop ends it, and returns how many lines it has written.
func startWriter(t *testing.T, path, name string) (stop func() int) {
	t.Helper()
	return startBurst(t, path, name, 0)
}

// startBurst is startWriter for a process that writes so many lines without a pause, and no more.
func startBurst(t *testing.T, path, name string, lines int) (stop func() int) {
	t.Helper()
	end, err := logwriter.Writer{Path: path, Name: name, Burst: lines}.Start()
	if err != nil {
		t.Fatal(err)
	}
	stop = sync.OnceValue(func() int {
		n, err := end()
		if err != nil {
			t.Error(err)
		}
		return n
	})
	t.Cleanup(func() { stop() })
	return stop
}

// host is a folder of logs with the rotator and the readers of a master.
type host struct {
	t       *testing.T
	dir     string
	hub     *Hub
	rotator *rotate.Rotator
	rotated chan rotate.Event
}

func newHost(t *testing.T) *host {
	t.Helper()
	tables := &offsets.Tables{}
	h := &host{t: t, dir: t.TempDir(), rotated: make(chan rotate.Event, 1<<16)}
	h.hub = NewHub(h.dir, tables)
	h.rotator = rotate.New(h.event, tables)
	return h
}

func (h *host) event(_ context.Context, e rotate.Event) {
	if e.Kind == rotate.Rotated {
		h.rotated <- e
	} else if e.Kind != rotate.Truncated {
		h.t.Errorf("event %+v", e)
	}
}

// source creates the log of a worker.
func (h *host) source(worker, content string) Source {
	h.t.Helper()
	s := Source{Worker: worker, Path: logs.Path(h.dir, worker)}
	if err := os.WriteFile(s.Path, []byte(content), 0o600); err != nil {
		h.t.Fatal(err)
	}
	return s
}

// write appends to a file.
func (h *host) write(path, content string) {
	h.t.Helper()
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_APPEND|os.O_CREATE, 0o600)
	if err == nil {
		_, err = f.WriteString(content)
		_ = f.Close()
	}
	if err != nil {
		h.t.Fatal(err)
	}
}

// start begins the output of an instance of a worker.
func (h *host) start(worker string, incarnation uint64) {
	h.t.Helper()
	f, err := logs.MarkStart(h.dir, worker, logs.ToFile, incarnation)
	if err != nil {
		h.t.Fatal(err)
	}
	_ = f.Close()
}

// serve rotates the logs until the end of the test, or until stop is called.
func (h *host) serve(policy logs.Policy, collapse bool, sources ...Source) (stop func()) {
	for _, s := range sources {
		h.rotator.Put(s.Worker, rotate.Log{
			Path: s.Path, Policy: policy,
			AppendsOnly: func(context.Context) (bool, error) { return collapse, nil },
		})
	}
	ctx, cancel := context.WithCancel(h.t.Context())
	var wg sync.WaitGroup
	wg.Go(func() { h.rotator.Serve(ctx) })
	stop = func() {
		cancel()
		wg.Wait()
	}
	h.t.Cleanup(stop)
	return stop
}

// awaitRotations returns after n rotations.
func (h *host) awaitRotations(n int) {
	h.t.Helper()
	late := time.After(patience)
	for range n {
		select {
		case <-h.rotated:
		case <-late:
			h.t.Fatal("the logs are not rotated")
		}
	}
}

// textOf returns the text of a chunk, or a line for a notice.
func textOf(c Chunk) string {
	if c.Notice != "" {
		return "! " + c.Notice + "\n"
	}
	return string(c.Text)
}

// read returns the output of a query without Follow, with a line "! notice" for a notice.
func (h *host) read(q Query, sources ...Source) (string, error) {
	var text strings.Builder
	err := h.hub.Copy(h.t.Context(), sources, q, func(chunks []Chunk) error {
		for _, c := range chunks {
			text.WriteString(textOf(c))
		}
		return nil
	})
	return text.String(), err
}

// follower is a query with Follow that runs until the end of the test.
type follower struct {
	t      *testing.T
	stop   func()
	chunks chan Chunk
}

func (h *host) follow(q Query, sources ...Source) *follower {
	h.t.Helper()
	q.Follow = true
	ctx, cancel := context.WithCancel(h.t.Context())
	f := &follower{t: h.t, chunks: make(chan Chunk)}
	var wg sync.WaitGroup
	wg.Go(func() {
		defer close(f.chunks)
		err := h.hub.Copy(ctx, sources, q, func(chunks []Chunk) error {
			for _, c := range chunks {
				select {
				case f.chunks <- c:
				case <-ctx.Done():
					return ctx.Err()
				}
			}
			return nil
		})
		if err != nil && ctx.Err() == nil {
			h.t.Errorf("follow: %v", err)
		}
	})
	f.stop = func() {
		cancel()
		wg.Wait()
	}
	h.t.Cleanup(f.stop)
	return f
}

// next returns the next chunk.
func (f *follower) next() Chunk {
	f.t.Helper()
	select {
	case c, going := <-f.chunks:
		if !going {
			f.t.Fatal("the follower has ended")
		}
		return c
	case <-time.After(patience):
		f.t.Fatal("there is no chunk")
	}
	return Chunk{}
}

// await returns when a text has come, and what came before it.
func (f *follower) await(end string) string {
	f.t.Helper()
	var text strings.Builder
	for !strings.Contains(text.String(), end) {
		text.WriteString(textOf(f.next()))
	}
	return text.String()
}

// sequence checks the lines of writers: each is to come once, whole and in order.
type sequence struct {
	t    *testing.T
	last map[string]int
	rest string
}

func newSequence(t *testing.T) *sequence { return &sequence{t: t, last: map[string]int{}} }

func (s *sequence) add(c Chunk) {
	s.t.Helper()
	if c.Notice != "" {
		s.t.Fatalf("notice %q", c.Notice)
	}
	text := s.rest + string(c.Text)
	for {
		line, rest, whole := strings.Cut(text, "\n")
		if !whole {
			s.rest = text
			return
		}
		text = rest
		writer, number, _ := strings.Cut(line, " ")
		number, _, _ = strings.Cut(number, " ")
		n, _ := strconv.Atoi(number)
		if line+"\n" != numbered(writer, n) || n != s.last[writer]+1 {
			s.t.Fatalf("%.60q comes after line %d", line, s.last[writer])
		}
		s.last[writer] = n
	}
}

func glob(t *testing.T, pattern string) []string {
	t.Helper()
	paths, err := filepath.Glob(pattern)
	if err != nil {
		t.Fatal(err)
	}
	return paths
}
