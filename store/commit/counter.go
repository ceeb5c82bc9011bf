package commit

import (
	"errors"
	"io/fs"
	"sync"
	"sync/atomic"

	"github.com/core-tools/hsu-master/internal/crashpoint"
	"github.com/core-tools/hsu-master/store/counterfile"
	"github.com/core-tools/hsu-master/store/statefile"
)

// counter is the acknowledged count of processed requests and counter.dat, which holds it ahead of state.db.
//
// With SyncAlways, only the committer writes the file. With SyncInterval, callers write it too, under mu. In both modes
// only the committer replaces the file.
//
// Invariant: while refusal is nil, the file has at least the acknowledged count of requests without an id. unsynced is
// set from the first write without a sync until the sync begins.
type counter struct {
	ops    statefile.Ops
	wake   func()      // is called when there is something to sync
	failed func(error) // is called when a caller's write has failed

	processed atomic.Int64 // acknowledged processed requests

	mu       sync.Mutex
	keyed    int64 // the part of processed that was counted by CountOnce
	file     *counterfile.File
	refusal  error // why callers must not write the file, nil if they may
	unsynced bool  // the file has unsynced counts, and the committer has been notified
}

// tally returns the acknowledged counts.
func (c *counter) tally() counterfile.Tally {
	c.mu.Lock()
	defer c.mu.Unlock()
	return counterfile.Tally{Processed: c.processed.Load(), Keyed: c.keyed}
}

// acknowledge sets the acknowledged counts.
func (c *counter) acknowledge(t counterfile.Tally) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.processed.Store(t.Processed)
	c.keyed = t.Keyed
}

// add counts n requests and writes the file in the caller's own goroutine: one short write into the page cache is
// cheaper than handing the count over to another goroutine. The count survives the death of this process, but not yet
// a power cut.
func (c *counter) add(n int64) error {
	c.mu.Lock()
	if err := c.refusal; err != nil {
		c.mu.Unlock()
		return err
	}
	count := counterfile.Tally{Processed: c.processed.Load() + n, Keyed: c.keyed}
	err := c.ops.Perform(crashpoint.Count, func() error { return c.file.Write(count) })
	if err != nil {
		c.refusal = unavailable(err)
		c.mu.Unlock()
		c.failed(err)
		return unavailable(err)
	}
	c.processed.Store(count.Processed)
	first := !c.unsynced
	c.unsynced = true
	c.mu.Unlock()
	if first {
		c.wake()
	}
	return nil
}

// addStored adds a count that has just become durable in the database, and writes it to the file as well. It does not
// sync: the write matters only if the database is lost too. If the write fails, the count stays acknowledged, but
// nothing more must be acknowledged until the state is repaired; addStored returns the error if it is new.
func (c *counter) addStored(n, results int64) error {
	c.mu.Lock()
	// With SyncInterval, other callers may have counted in the meantime.
	count := counterfile.Tally{Processed: c.processed.Load() + n + results, Keyed: c.keyed + results}
	c.processed.Store(count.Processed)
	c.keyed = count.Keyed
	err := c.refusal
	if err == nil || errors.Is(err, ErrClosed) { // Close lets earlier requests finish
		err = c.ops.Perform(crashpoint.Count, func() error { return c.file.Write(count) })
	}
	c.unsynced = c.unsynced || err == nil
	c.mu.Unlock()
	if errors.Is(err, ErrUnavailable) {
		return nil
	}
	return err
}

// write writes a count that is not acknowledged yet and syncs it. Only the committer calls it, with SyncAlways.
func (c *counter) write(count counterfile.Tally) error {
	if err := c.ops.Perform(crashpoint.Count, func() error { return c.file.Write(count) }); err != nil {
		return err
	}
	return c.ops.Perform(crashpoint.CountSync, c.file.Sync)
}

// needsSync reports whether callers have written a count that is not synced.
func (c *counter) needsSync() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.unsynced && c.refusal == nil
}

// sync makes the written counts survive a power cut. Only the committer calls it.
func (c *counter) sync() error {
	// Clear the flag before the sync: a count written during the sync needs another one.
	c.mu.Lock()
	c.unsynced = false
	c.mu.Unlock()
	return c.ops.Perform(crashpoint.CountSync, c.file.Sync)
}

// refuse makes callers get err instead of writing the file, unless they are refused already.
func (c *counter) refuse(err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.refusal == nil {
		c.refusal = err
	}
}

// close makes callers get ErrClosed from now on.
func (c *counter) close() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.refusal = ErrClosed
}

// resume lets callers write the file again, unless the counter is closed.
func (c *counter) resume() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !errors.Is(c.refusal, ErrClosed) {
		c.refusal = nil
	}
}

// exchange replaces the open file by next, which has every acknowledged count, and returns the previous one. Either may
// be nil.
func (c *counter) exchange(next *counterfile.File) (previous *counterfile.File) {
	c.mu.Lock()
	defer c.mu.Unlock()
	previous, c.file = c.file, next
	if next != nil {
		c.unsynced = false
	}
	return previous
}

// info describes the open file, nil if there is none. Only the committer calls it.
func (c *counter) info() fs.FileInfo {
	if c.file == nil {
		return nil
	}
	return c.file.Info()
}
