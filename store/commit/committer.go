package commit

import (
	"cmp"
	"errors"
	"time"

	"github.com/core-tools/hsu-master/internal/crashpoint"
	"github.com/core-tools/hsu-master/store/once"
	"github.com/core-tools/hsu-master/store/records"
)

const (
	// foldEvery is how long the count in state.db may lag behind counter.dat while requests arrive.
	foldEvery = time.Second

	// The delay between attempts to rewrite the state doubles from the first value to the last.
	firstRepairDelay = 100 * time.Millisecond
	lastRepairDelay  = 5 * time.Second
)

// committer takes batches from the queue, has them made durable and releases their callers. All but fail runs in one
// goroutine, which also does the work that is due at certain times.
//
// Invariant: from a failed write until a successful repair, the queue and the counter refuse requests with the cause,
// so that nothing is acknowledged.
type committer struct {
	queue    *queue
	gatherer *gatherer
	teller   *teller
	writer   *writer
	repairer *repairer

	interval time.Duration // from a write of a count without a sync to its sync

	spare *batch // the batch to put in the place of the next one; nil means that a new one is made
	// The times at which work is due; zero means that there is none. See also writer.foldAt.
	syncAt, dropAt, readAt, repairAt time.Time
	repairDelay                      time.Duration

	stop chan struct{}
	done chan struct{} // closed when run has returned
	err  error         // the error of finish, valid once done is closed
}

// run is the committer's goroutine.
func (c *committer) run() {
	defer close(c.done)
	timer := time.NewTimer(0)
	defer timer.Stop()
	armed := time.Time{}
	for {
		select {
		case <-c.queue.wake:
			c.gatherer.wait()
		case <-timer.C:
			armed = time.Time{}
		case <-c.stop:
			c.commitNext()
			c.err = c.finish()
			return
		}
		c.commitNext()
		if due := c.chores(); due != armed {
			armed = due
			if due.IsZero() {
				timer.Stop()
			} else {
				timer.Reset(time.Until(due))
			}
		}
	}
}

// commitNext commits the batch that callers have joined so far.
func (c *committer) commitNext() {
	b := c.queue.take(c.spare)
	if b == nil {
		return
	}
	c.spare = nil
	// Changes of the registry are committed with the first group of requests that have an id. The remaining
	// requests go into further transactions, so that no transaction becomes too large.
	some, more := once.NextResults(b.results)
	began := time.Now()
	b.err = c.commit(b.request, some)
	c.gatherer.observe(b.joined, time.Since(began))
	c.teller.tellAll(b.counts, b.err)
	c.teller.tellResults(some, b.err)
	for len(more) > 0 {
		some, more = once.NextResults(more)
		c.teller.tellResults(some, c.commit(request{}, some))
	}
	if b.done != nil {
		close(b.done)
		return
	}
	c.spare = b.reset()
}

func (c *committer) commit(r request, results []*once.Pending) error {
	if r.ping && c.queue.cause() == nil {
		// A ping also checks the paths of the files: there may be no write for hours.
		if err := c.writer.present(); err != nil {
			c.fail(err)
		}
	}
	cause := c.queue.cause()
	if cause != nil && (len(results) > 0 || len(r.muts) > 0 || r.flush || r.count > 0) {
		return unavailable(cause)
	}
	if err := c.writer.roomFor(results); err != nil {
		for _, r := range results {
			r.Err = err
		}
		results = nil
	}
	registry := len(results) > 0 || len(r.muts) > 0 || r.flush && (r.count > 0 || c.writer.hasUnfolded())
	if !registry && r.count == 0 {
		return nil
	}
	var err error
	if registry {
		err = c.writer.commitRegistry(r.muts, r.count, results...)
	} else {
		err = c.writer.commitCount(r.count)
	}
	if err != nil {
		c.fail(err)
		return unavailable(err)
	}
	return nil
}

// fail makes everything unavailable until the state has been rewritten. Only the first cause is recorded. Any goroutine
// may call it.
func (c *committer) fail(cause error) {
	first := c.queue.fail(cause)
	c.writer.counter.refuse(unavailable(cause))
	if first {
		c.writer.dir.Log.Error("state write failed", "path", c.writer.dir.Database, "error", cause)
		c.queue.kick()
	}
}

// chores does the work that is due apart from the batches. It returns when the next chore is due, or zero if there
// is none.
func (c *committer) chores() time.Time {
	now := time.Now()
	due := func(at *time.Time, wanted bool, delay time.Duration) bool {
		if !wanted {
			*at = time.Time{}
			return false
		}
		if at.IsZero() {
			*at = now.Add(delay)
		}
		if now.Before(*at) {
			return false
		}
		*at = time.Time{}
		return true
	}
	var err error
	if due(&c.syncAt, c.writer.counter.needsSync(), c.interval) {
		err = c.writer.syncCount()
	}
	if err == nil && due(&c.writer.foldAt, c.queue.cause() == nil && c.writer.hasUnfolded(), foldEvery) {
		err = c.writer.commitRegistry(nil, 0)
	}
	dropDue := func() (in time.Duration, is bool) {
		in, some := c.writer.results.DropIn()
		return in, due(&c.dropAt, some && c.queue.cause() == nil, max(in, once.DropEvery))
	}
	readDue := func() bool {
		in, some := c.writer.results.Unread()
		return due(&c.readAt, some && c.queue.cause() == nil, in)
	}
	if readDue() && err == nil {
		err = c.writer.readResults()
		readDue()
	}
	if in, is := dropDue(); err == nil && is {
		if in == 0 { // only if a result is due, since the result that the timer was set for may already be gone
			err = c.writer.commitRegistry(nil, 0)
		}
		dropDue()
	}
	if err != nil {
		c.fail(err)
	}
	if due(&c.repairAt, c.queue.cause() != nil, c.repairDelay) {
		c.repair()
	}
	return records.Earliest(c.syncAt, c.writer.foldAt, c.dropAt, c.readAt, c.repairAt)
}

// repair rewrites the state and resumes service. If that fails, it schedules the next attempt.
func (c *committer) repair() {
	log := c.writer.dir.Log
	if err := c.writer.dir.Ops.Perform(crashpoint.Repair, c.repairer.repair); err != nil {
		c.repairDelay = cmp.Or(min(2*c.repairDelay, lastRepairDelay), firstRepairDelay)
		c.repairAt = time.Now().Add(c.repairDelay)
		c.queue.setCause(err) // report the newest reason
		log.Warn("state repair failed", "path", c.writer.dir.Database, "retry_in", c.repairDelay, "error", err)
		return
	}
	c.repairDelay, c.repairAt = 0, time.Time{}
	c.queue.setCause(nil)
	c.writer.counter.resume()
	log.Info("state repaired", "path", c.writer.dir.Database)
	if o := c.queue.takeOutage(); !o.since.IsZero() && c.writer.dir.Repaired != nil {
		c.writer.dir.Repaired(o.since, o.cause)
	}
}

// finish ends the committer in an orderly way: it records the count and the clean shutdown, then closes the files.
func (c *committer) finish() error {
	err := c.recordEnd()
	if err != nil {
		c.fail(err)
		c.repair() // one last attempt
		err = c.recordEnd()
	}
	return errors.Join(err, c.repairer.close(), c.writer.exchange(nil, nil))
}

// recordEnd records the count and the clean shutdown in the database.
func (c *committer) recordEnd() error {
	if cause := c.queue.cause(); cause != nil {
		return unavailable(cause)
	}
	record := c.writer.self.Get()
	record.CleanShutdown = true
	return c.writer.commitRecord(record)
}
