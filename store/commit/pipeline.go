// Package commit opens the files of a state for writing and makes the changes and counts of all callers durable. What
// is acknowledged is durable, in the order in which it was added; if a write fails, nothing is acknowledged until the
// state has been written anew.
package commit

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/core-tools/hsu-master/identity"
	"github.com/core-tools/hsu-master/store/once"
	"github.com/core-tools/hsu-master/store/records"
	"github.com/core-tools/hsu-master/store/statedir"
	bolt "go.etcd.io/bbolt"
)

// Pipeline is the way of the changes and counts of all callers into the files, and of their outcomes back. Callers add
// to the queue; the committer takes these as a batch, and the writer makes it durable; the teller notifies the
// callers of a count. Its methods may be called concurrently, after open.
type Pipeline struct {
	queue     *queue
	counter   *counter
	committer *committer
	teller    *teller
	unsynced  bool // see config
}

// Config has the files and settings of a pipeline.
type Config struct {
	Dir     *statedir.Dir
	Lock    *statedir.Mastership
	Self    *statedir.Own
	Results *once.Index
	// Interval is the time from a write of a count without a sync to its sync.
	Interval time.Duration
	// Unsynced is set if callers write their counts themselves, and the committer syncs them later.
	Unsynced bool
}

// New returns a pipeline that is not open yet.
func New(conf Config) *Pipeline {
	p := &Pipeline{queue: newQueue(), teller: newTeller(), unsynced: conf.Unsynced}
	c := &committer{
		queue: p.queue, gatherer: newGatherer(p.queue), teller: p.teller, interval: conf.Interval,
		stop: make(chan struct{}), done: make(chan struct{}),
	}
	p.committer = c
	p.counter = &counter{ops: conf.Dir.Ops, wake: p.queue.kick, failed: c.fail}
	c.writer = &writer{
		dir: conf.Dir, lock: conf.Lock, database: new(database), counter: p.counter, results: conf.Results,
		self: conf.Self, failed: c.fail, feed: new(feed),
	}
	c.repairer = &repairer{writer: c.writer, home: conf.Self.LastDir()}
	return p
}

// Open opens the files, or creates them, and starts the goroutines.
func (p *Pipeline) Open() error {
	c := p.committer
	o := opener{dir: c.writer.dir, writer: c.writer, fail: c.fail, broken: p.queue.cause}
	if err := o.open(); err != nil {
		return errors.Join(err, c.writer.exchange(nil, nil))
	}
	if _, err := c.writer.database.view(func(tx *bolt.Tx) error {
		c.writer.feed.publish(records.LastEvent(tx))
		return nil
	}); err != nil {
		return errors.Join(err, c.writer.exchange(nil, nil))
	}
	c.repairer.start(p.queue.cause() != nil)
	go c.run()
	go p.teller.run(p.counter.add)
	return nil
}

// Migrate opens the database of a state without a master, and brings it up to the schema of this release.
func Migrate(dir *statedir.Dir, lock *statedir.Mastership, id identity.FileID) (copied string, err error) {
	w := New(Config{Dir: dir, Lock: lock, Self: statedir.NewOwn(dir.Path, id)}).committer.writer
	defer func() { err = errors.Join(err, w.exchange(nil, nil)) }()
	o := opener{dir: dir, writer: w, broken: func() error { return nil }}
	if err := o.openExisting(); err != nil {
		return "", err
	}
	if err := o.syncMeta(); err != nil {
		return "", err
	}
	return o.migrate()
}

// View runs fn in a read transaction of the open file.
func (p *Pipeline) View(fn func(*bolt.Tx) error) error {
	stuck, err := p.committer.writer.database.view(fn)
	if errors.Is(err, errNotOpen) {
		return cmp.Or(p.queue.refusal(), ErrUnavailable)
	}
	if stuck {
		p.committer.fail(err) // the committer must not use the file any more
	}
	return err
}

// LastEvent returns the number of the newest acknowledged event, and a channel that is closed when there is a newer
// one.
func (p *Pipeline) LastEvent() (last uint64, grown <-chan struct{}) {
	return p.committer.writer.feed.read()
}

// Apply makes all of muts durable in one transaction. ctx bounds only the wait.
func (p *Pipeline) Apply(ctx context.Context, muts []records.Mutation) error {
	return p.queue.do(ctx, request{muts: muts})
}

// Add counts n requests and returns when they are as durable as promised. ctx bounds only the wait.
func (p *Pipeline) Add(ctx context.Context, n int64) error {
	if !p.unsynced {
		return p.queue.do(ctx, request{count: n})
	}
	if err := ctx.Err(); err != nil {
		return fmt.Errorf("count a request: %w", err)
	}
	return p.counter.add(n)
}

// Count counts one request and notifies done, from the teller.
func (p *Pipeline) Count(done once.Counted) {
	if p.unsynced {
		// The teller counts all waiting requests with one write.
		p.teller.tell(notice{done: done, uncounted: true})
		return
	}
	if err := p.queue.addCount(done); err != nil {
		p.teller.tell(notice{done: done, err: err})
	}
}

// CountOnce counts a request with an id and stores its result.
func (p *Pipeline) CountOnce(r *once.Pending) {
	err := records.CheckRequestID(r.ID)
	if err == nil {
		err = p.queue.addResult(r)
	}
	if err != nil {
		p.teller.tell(notice{done: r.Done, err: err})
	}
}

// Processed returns the acknowledged count.
func (p *Pipeline) Processed() int64 { return p.counter.processed.Load() }

// Flush brings the count into the database.
func (p *Pipeline) Flush() error { return p.queue.do(context.Background(), request{flush: true}) }

// Alive returns nil if the committer answers, even if nothing can be written.
func (p *Pipeline) Alive(ctx context.Context) error { return p.queue.do(ctx, request{ping: true}) }

// Refusal returns the error that a request would get now, or nil.
func (p *Pipeline) Refusal() error { return p.queue.refusal() }

// Close completes the changes that were added before, records the clean shutdown and closes the files.
func (p *Pipeline) Close() error {
	p.queue.close()
	p.teller.drain() // waiting counts can still be written at this point
	p.counter.close()
	close(p.committer.stop)
	<-p.committer.done
	p.teller.end()
	return p.committer.err
}
