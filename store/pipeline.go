package store

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/core-tools/hsu-master/identity"
	bolt "go.etcd.io/bbolt"
)

// pipeline is the way of the changes and counts of all callers into the files, and of their outcomes back. Callers add
// to the queue; the committer takes what they have added, and the writer makes it durable; the teller notifies the
// callers of a count. Its methods may be called concurrently, after open.
type pipeline struct {
	queue     *queue
	counter   *counter
	committer *committer
	teller    *teller
	unsynced  bool // see config
}

// config is what a pipeline works on.
type config struct {
	dir     *stateDir
	lock    *mastership
	self    *ownRecord
	results *results
	// interval is the time from a write of a count without a sync to its sync.
	interval time.Duration
	// unsynced is set if callers write their counts themselves, and the committer syncs them later.
	unsynced bool
}

// newPipeline returns a pipeline that is not open yet.
func newPipeline(conf config) *pipeline {
	p := &pipeline{queue: newQueue(), teller: newTeller(), unsynced: conf.unsynced}
	c := &committer{
		queue: p.queue, teller: p.teller, interval: conf.interval,
		stop: make(chan struct{}), done: make(chan struct{}),
	}
	p.committer = c
	p.counter = &counter{ops: conf.dir.ops, wake: p.queue.kick, failed: c.fail}
	c.writer = &writer{
		dir: conf.dir, lock: conf.lock, database: new(database), counter: p.counter, results: conf.results,
		self: conf.self, failed: c.fail,
	}
	c.repairer = &repairer{writer: c.writer, home: conf.self.lastDir()}
	return p
}

// open opens the files, or creates them, and starts the goroutines.
func (p *pipeline) open() error {
	c := p.committer
	o := opener{dir: c.writer.dir, writer: c.writer, fail: c.fail, broken: p.queue.cause}
	if err := o.open(); err != nil {
		return errors.Join(err, c.writer.exchange(nil, nil))
	}
	c.repairer.start(p.queue.cause() != nil)
	go c.run()
	go p.teller.run(p.counter.add)
	return nil
}

// migrate opens the database of a state without a master, and brings it up to the schema of this release.
func migrate(dir *stateDir, lock *mastership, id identity.FileID) (copied string, err error) {
	w := newPipeline(config{dir: dir, lock: lock, self: newOwnRecord(dir.path, id)}).committer.writer
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

// view runs fn in a read transaction of the open file.
func (p *pipeline) view(fn func(*bolt.Tx) error) error {
	stuck, err := p.committer.writer.database.view(fn)
	if errors.Is(err, errNotOpen) {
		return cmp.Or(p.queue.refusal(), ErrUnavailable)
	}
	if stuck {
		p.committer.fail(err) // the committer must not use the file any more
	}
	return err
}

// apply makes all of muts durable in one transaction. ctx bounds only the wait.
func (p *pipeline) apply(ctx context.Context, muts []Mutation) error {
	return p.queue.do(ctx, request{muts: muts})
}

// add counts n requests and returns when they are as durable as promised. ctx bounds only the wait.
func (p *pipeline) add(ctx context.Context, n int64) error {
	if !p.unsynced {
		return p.queue.do(ctx, request{count: n})
	}
	if err := ctx.Err(); err != nil {
		return fmt.Errorf("count a request: %w", err)
	}
	return p.counter.add(n)
}

// count counts one request and notifies done, from the teller.
func (p *pipeline) count(done Counted) {
	if p.unsynced {
		// The teller counts all waiting requests with one write.
		p.teller.tell(notice{done: done, uncounted: true})
		return
	}
	if err := p.queue.addCount(done); err != nil {
		p.teller.tell(notice{done: done, err: err})
	}
}

// countOnce counts a request with an id and stores its result.
func (p *pipeline) countOnce(r *pendingResult) {
	err := CheckRequestID(r.ID)
	if err == nil {
		err = p.queue.addResult(r)
	}
	if err != nil {
		p.teller.tell(notice{done: r.done, err: err})
	}
}

// processed returns the acknowledged count.
func (p *pipeline) processed() int64 { return p.counter.processed.Load() }

// flush brings the count into the database.
func (p *pipeline) flush() error { return p.queue.do(context.Background(), request{flush: true}) }

// alive returns nil if the committer answers, even if nothing can be written.
func (p *pipeline) alive(ctx context.Context) error { return p.queue.do(ctx, request{ping: true}) }

// refusal returns the error that a request would get now, or nil.
func (p *pipeline) refusal() error { return p.queue.refusal() }

// close completes what was added before, records the clean shutdown and closes the files.
func (p *pipeline) close() error {
	p.queue.close()
	p.teller.drain() // waiting counts can still be written at this point
	p.counter.close()
	close(p.committer.stop)
	<-p.committer.done
	p.teller.end()
	return p.committer.err
}
