// Package tail reads the logs of workers: the lines that are kept, and those that are written from then on.
//
// The lines of a log have no times. [Query] describes how a query by time finds them.
package tail

import (
	"context"
	"errors"
	"io"
	"regexp"
	"sync"
	"time"

	"github.com/core-tools/hsu-master/supervisor/logs/offsets"
)

// Source is the log of a worker.
type Source struct {
	Worker string
	Path   string
}

// Query selects lines.
type Query struct {
	// Lines is the number of last lines of each log, of those that the other fields select; negative for all.
	Lines int
	// Since, if it is not zero, leaves out lines that are known to be older. That is known from the sizes of the log
	// that the rotator has seen, about every second at first and ever less often the longer ago; from the lines of
	// starts, which have a time; and from the times of the files.
	Since time.Time
	// Match, if it is not nil, selects the lines that it matches.
	Match *regexp.Regexp
	// Previous selects the output of the instance before the present one.
	Previous bool
	// Follow continues with the lines that are written from then on.
	Follow bool
	// Later has logs of workers that come while the others are followed, each worker once. Lines that are known to be
	// older than the query are left out. It may be nil.
	Later <-chan Source
	// Positions has the chunks carry positions. It requires Follow.
	Positions bool
	// After are positions, by worker, behind which the output of these workers is continued: Lines and Since do not
	// select lines of them.
	After map[string]Position
}

// Chunk is text of a worker, or a notice about its log.
type Chunk struct {
	Worker string
	// Text are lines, each with its newline. Only the last one may have none: then the next text of the worker
	// continues it.
	Text []byte
	// Time is when the lines were written, at most some milliseconds earlier; zero if that is not known.
	Time time.Time
	// Notice describes a fault of the log.
	Notice string
	// Position is behind the text, which may be empty. It is nil in notices, and in queries without Positions.
	Position *Position
}

// Hub reads the logs in a folder. Its methods may be called from any goroutine.
type Hub struct {
	offsets *offsets.Tables
	dir     string

	mu      sync.Mutex
	watcher *watcher // nil if nothing is followed
}

// NewHub returns a hub for the logs in a folder, whose rotator uses the same tables.
func NewHub(dir string, tables *offsets.Tables) *Hub { return &Hub{offsets: tables, dir: dir} }

// ErrNoPrevious is returned if no worker has output of a previous instance.
var ErrNoPrevious = errors.New("no output of a previous instance is kept")

// ErrUnreadable is returned if no log can be read. The reasons are in notices.
var ErrUnreadable = errors.New("no log can be read")

// lag is more than the time of a file, which the kernel takes from a coarse clock, can be behind.
const lag = time.Second

// Copy passes the selected lines to send: first those that are there, of one log after the other, then, if the query
// follows, those of all logs in the order in which they are written, until ctx ends. It returns the error of send, or
// nil. While send blocks, Copy reads nothing and holds no lock.
func (h *Hub) Copy(ctx context.Context, sources []Source, q Query, send func([]Chunk) error) error {
	out := &batch{send: send}
	defer out.rest()
	begun := time.Now().Add(-lag)
	var sub *subscription
	if q.Follow {
		var err error
		if sub, err = h.subscribe(sources); err != nil {
			return err
		}
		defer h.unsubscribe(sub)
	}
	tails, none, err := h.begin(ctx, sources, q, out)
	defer func() {
		for _, t := range tails {
			t.reader.close()
		}
	}()
	if err != nil {
		return err
	}
	switch {
	case len(tails) == 0 && (len(sources) > 0 || !q.Follow || q.Later == nil):
		return errors.Join(out.flush(), ErrUnreadable)
	case len(none) == len(tails) && len(none) > 0:
		return ErrNoPrevious
	}
	for _, worker := range none {
		if err := out.add(Chunk{Worker: worker, Notice: ErrNoPrevious.Error()}); err != nil {
			return err
		}
	}
	if err := out.flush(); err != nil || !q.Follow {
		return err
	}
	out.rest()
	q.Lines = -1
	if q.Since.Before(begun) {
		q.Since = begun
	}
	join := func(s Source) (*tail, error) {
		sub.join(s)
		t, err := h.open(ctx, s, q, out)
		if err != nil {
			return nil, out.add(Chunk{Worker: s.Worker, Notice: err.Error()})
		}
		tails = append(tails, t)
		return t, t.start()
	}
	return follow(ctx, sub, tails, out, q.Later, join)
}

// begin opens the logs and passes the selected lines that are there. It returns those that it has opened, also if there
// is an error, and the workers without previous output.
func (h *Hub) begin(
	ctx context.Context, sources []Source, q Query, out *batch,
) (tails []*tail, none []string, err error) {
	for _, s := range sources {
		t, err := h.open(ctx, s, q, out)
		if err != nil {
			if err := out.add(Chunk{Worker: s.Worker, Notice: err.Error()}); err != nil {
				return tails, none, err
			}
			continue
		}
		tails = append(tails, t)
		err = t.start()
		if errors.Is(err, ErrNoPrevious) {
			none, err = append(none, s.Worker), nil
		}
		if err != nil {
			return tails, none, err
		}
	}
	return tails, none, nil
}

// batch gathers chunks, because sending one costs more than reading it. It also has the memory of the query that does
// not depend on the number of logs.
type batch struct {
	send   func([]Chunk) error
	chunks []Chunk
	size   int
	buf    *[readSize]byte // nil while nothing is read
}

// readBuffers holds buffers that are not used, so that queries that wait have none.
var readBuffers = sync.Pool{New: func() any { return new([readSize]byte) }}

// buffer returns the buffer for reading, which all logs of the query share.
func (b *batch) buffer() []byte {
	if b.buf == nil {
		b.buf = readBuffers.Get().(*[readSize]byte)
	}
	return b.buf[:]
}

// rest gives the buffer back until something is read again.
func (b *batch) rest() {
	if b.buf != nil {
		readBuffers.Put(b.buf)
		b.buf = nil
	}
}

// add adds a chunk, and sends all of them if they are many.
func (b *batch) add(c Chunk) error {
	b.chunks = append(b.chunks, c)
	if b.size += len(c.Text); b.size < batchSize {
		return nil
	}
	return b.flush()
}

func (b *batch) flush() error {
	if len(b.chunks) == 0 {
		return nil
	}
	chunks := b.chunks
	b.chunks, b.size = nil, 0 // they belong to the receiver
	return b.send(chunks)
}

// pace is the least time between two turns of a follower, so that lines of a fast writer are read many at a time.
const pace = 50 * time.Millisecond

// follow reads the logs that have changed until ctx ends, and those of later sources, which join opens.
func follow(
	ctx context.Context, sub *subscription, tails []*tail, out *batch, later <-chan Source,
	join func(Source) (*tail, error),
) error {
	byWorker := map[string]*tail{}
	for _, t := range tails {
		byWorker[t.source.Worker] = t
	}
	pause := time.NewTimer(0)
	defer pause.Stop()
	var more []change // logs that have not been read to their end
	always := make(chan struct{})
	close(always)
	for {
		select {
		case <-pause.C: // the time since the last turn is over
		case <-ctx.Done():
			return nil
		}
		ready := sub.wake
		if len(more) > 0 { // a writer that is faster than this follower must not keep later workers away
			ready = always
		}
		select {
		case <-ready:
		case s := <-later:
			t, err := join(s)
			if err != nil {
				return err
			}
			byWorker[s.Worker] = t
		case <-ctx.Done():
			return nil
		}
		turn := append(more, sub.take()...)
		more = nil
		for _, c := range turn {
			t := byWorker[c.worker]
			if t == nil {
				continue
			}
			ended, err := t.turn(c.replaced, time.Now())
			if err != nil {
				return err
			}
			if !ended {
				more = append(more, c)
			}
		}
		if err := out.flush(); err != nil {
			return err
		}
		pause.Reset(pace)
		if len(more) > 0 {
			pause.Reset(0)
		} else {
			out.rest()
		}
	}
}

// tail is a log that is read for a query.
type tail struct {
	source Source
	query  Query
	ctx    context.Context
	batch  *batch
	reader *reader
	lines  lines
	out    []byte

	read     spot     // behind the text that was read last
	position Position // of the last line that was read
	sent     Position // the last one that was passed
}

func (h *Hub) open(ctx context.Context, s Source, q Query, out *batch) (*tail, error) {
	r, err := openReader(s.Path, h.offsets.Of(s.Path))
	if err != nil {
		return nil, err
	}
	return &tail{source: s, query: q, ctx: ctx, batch: out, reader: r}, nil
}

// start passes the selected lines that are there.
func (t *tail) start() error {
	if p, known := t.query.After[t.source.Worker]; known {
		return t.resume(p)
	}
	return t.history()
}

const (
	readSize = 64 << 10
	// turnSize is the number of bytes that a follower reads of one log before it turns to the next one.
	turnSize = 256 << 10
	// chunkSize is the size from which lines are a chunk, and batchSize that from which chunks are sent.
	chunkSize = 32 << 10
	batchSize = 64 << 10
)

// turn passes on the new lines of the log, which were seen at a time. It returns false if there may be more. If the log
// is replaced, another file may have its path.
func (t *tail) turn(replaced bool, seen time.Time) (ended bool, err error) {
	buf := t.batch.buffer()
	for read := 0; read < turnSize; {
		n, failed := t.reader.Read(buf)
		read += n
		if err := t.pass(buf[:n], seen); err != nil {
			return false, err
		}
		switch {
		case failed == nil && !t.reader.ended, isLost(failed):
		case failed != nil && !errors.Is(failed, io.EOF):
			return true, t.notice(failed.Error(), seen)
		case !replaced:
			return true, t.flush(seen)
		default:
			replaced = false
			failed = t.reader.reopen()
		}
		if failed != nil && !errors.Is(failed, io.EOF) {
			if err := t.notice(failed.Error(), seen); err != nil {
				return false, err
			}
		}
	}
	return false, t.flush(seen)
}

// pass passes the lines in the text that match.
func (t *tail) pass(text []byte, seen time.Time) (err error) {
	t.read = t.reader.spot
	t.lines.feed(text, func(l line) {
		if err != nil {
			return
		}
		t.mark(l)
		if t.matches(l) {
			err = t.put(l, seen)
		}
	})
	return err
}

func (t *tail) matches(l line) bool {
	return t.query.Match == nil || t.query.Match.Match(trimmed(l.text))
}

// trimmed returns a line without its newline.
func trimmed(text []byte) []byte {
	if n := len(text); n > 0 && text[n-1] == '\n' {
		return text[:n-1]
	}
	return text
}

// put adds a line to the next chunk.
func (t *tail) put(l line, seen time.Time) error {
	if n := len(t.out); n > 0 && t.out[n-1] != '\n' && !l.cont { // the rest of that line does not match
		t.out = append(t.out, '\n')
	}
	if t.out = append(t.out, l.text...); len(t.out) < chunkSize {
		return nil
	}
	return t.flush(seen)
}

// flush sends the lines that were put, and the position behind the last one that was read.
func (t *tail) flush(seen time.Time) error {
	if len(t.out) == 0 && t.position == t.sent {
		return t.ctx.Err()
	}
	c := Chunk{Worker: t.source.Worker, Text: t.out, Time: seen}
	if t.query.Positions {
		t.sent = t.position
		c.Position = new(t.position)
	}
	t.out = nil // it belongs to the receiver
	return t.batch.add(c)
}

// notice ends the line that is incomplete, and sends a notice after it.
func (t *tail) notice(text string, seen time.Time) error {
	var failed error
	t.lines.end(func(l line) {
		t.mark(l)
		if t.matches(l) {
			failed = t.put(l, seen)
		}
	})
	if failed == nil {
		failed = t.flush(seen)
	}
	if failed == nil {
		failed = t.batch.add(Chunk{Worker: t.source.Worker, Notice: text})
	}
	return failed
}
