package rotate

import (
	"context"
	"errors"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/core-tools/hsu-master/supervisor/logs"
	"github.com/core-tools/hsu-master/supervisor/logs/layout"
	"github.com/core-tools/hsu-master/supervisor/logs/offsets"
)

// Log is a log to rotate.
type Log struct {
	Path   string
	Policy logs.Policy
	// AppendsOnly reports whether every descriptor with which a process may write to the log has O_APPEND. Collapsing
	// the log under another writer would leave NULs in it. If AppendsOnly is nil or fails, there may be one.
	AppendsOnly func(context.Context) (bool, error)
	// Lost reports whether a process writes to a file that was the log, and that has been deleted or moved since; nil
	// if none does.
	Lost func() bool

	put int // which call of Put it is from
}

// Kind is the kind of an event.
type Kind int

const (
	// Rotated means that lines were moved into a rotated file.
	Rotated Kind = iota + 1
	// Truncated means that a program truncated the log: it has lost lines.
	Truncated
	// Failed means that the log could not be rotated, or its rotated files not be compressed or removed. It is tried
	// again, and not reported again until it has succeeded.
	Failed
	// Lost means that a process writes to a file that was the log, and that has been deleted or moved since. It is not
	// reported again for the same process.
	Lost
)

// Event is what happened to a log.
type Event struct {
	Kind   Kind
	Worker string
	Path   string // of the log
	Bytes  int64  // moved, if Rotated; lost at least, if Truncated
	Err    error  // if Failed
}

// Rotator rotates logs. Its methods may be called from any goroutine.
type Rotator struct {
	report func(context.Context, Event)
	space  space
	steps  steps
	// offsets are those of the logs, for readers in this process.
	offsets *offsets.Tables
	untidy  chan struct{} // has room for one: there is something in dirty
	alarms  *alarms       // of ServeAwaiting, nil otherwise

	mu    sync.Mutex
	logs  map[string]Log  // by worker
	shown map[string]Log  // a copy of logs that does not change; nil after a change of logs
	dirty map[string]bool // workers whose rotated files may have to be compressed or removed
	puts  int             // calls of Put
}

// New returns a rotator without logs. It calls report from the goroutines of [Rotator.Serve], with their context.
// Readers of the logs use the tables.
func New(report func(context.Context, Event), tables *offsets.Tables) *Rotator {
	return &Rotator{
		report: report, space: system, offsets: tables, untidy: make(chan struct{}, 1),
		logs: map[string]Log{}, dirty: map[string]bool{},
	}
}

// Put adds the log of a worker, or replaces it.
func (r *Rotator) Put(worker string, l Log) {
	l.Policy = l.Policy.WithDefaults()
	r.mu.Lock()
	r.puts++
	l.put = r.puts
	before := r.logs[worker]
	r.logs[worker], r.shown = l, nil
	r.mu.Unlock()
	if before.Path != l.Path || before.Policy != l.Policy {
		r.tidyUp(worker)
	}
}

// Remove forgets the log of a worker. Its files stay.
func (r *Rotator) Remove(worker string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.logs, worker)
	r.shown = nil
}

// list returns the logs. The caller must not change the map.
func (r *Rotator) list() map[string]Log {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.shown == nil {
		r.shown = maps.Clone(r.logs)
	}
	return r.shown
}

// tidyUp has the rotated files of a worker compressed and removed as the policy says.
func (r *Rotator) tidyUp(worker string) {
	r.mu.Lock()
	r.dirty[worker] = true
	r.mu.Unlock()
	select {
	case r.untidy <- struct{}{}:
	default:
	}
}

// takeDirty returns the logs that tidyUp was called for since the last call.
func (r *Rotator) takeDirty() map[string]Log {
	r.mu.Lock()
	defer r.mu.Unlock()
	taken := map[string]Log{}
	for worker := range r.dirty {
		if l, found := r.logs[worker]; found { // it may have been removed
			taken[worker] = l
		}
	}
	clear(r.dirty)
	return taken
}

// Intervals between two looks at a log. Looks that are due within the same fastest interval are made together, because
// waking this program costs more than a look.
const (
	fastest    = 10 * time.Millisecond
	quickest   = 100 * time.Millisecond
	slowest    = time.Second
	idle       = 500 * time.Millisecond // of a log that does not grow
	watched    = time.Minute            // of a log whose next change is reported
	fastWriter = 50 << 20               // bytes a second
)

// quietLooks is the number of looks in a row without a change after which the next change is awaited instead. Looking
// at the logs of idle workers takes a tenth of the processor time of an idle master (measured), and awaiting every line
// of a log that grows slowly would take more.
const quietLooks = 20

// ServeAwaiting is Serve, but awaits the next change of a log that is quiet instead of looking at it.
func (r *Rotator) ServeAwaiting(ctx context.Context) {
	r.alarms = newAlarms()
	defer r.alarms.close()
	r.Serve(ctx)
}

// Serve completes the rotations that an earlier master began, and rotates logs until ctx ends.
func (r *Rotator) Serve(ctx context.Context) {
	var wg sync.WaitGroup
	defer wg.Wait()
	wg.Go(func() { r.tidyLogs(ctx) })
	watches := map[string]*watch{}
	for {
		wait := r.look(ctx, watches)
		select {
		case <-ctx.Done():
			return
		case <-r.alarms.rung():
			wake(watches, r.alarms.take(), time.Now())
		case <-time.After(wait):
		}
	}
}

// wake makes the looks at the logs of some workers due, which have changed now for the first time since the last look.
// The rate at which they grow is that from now on.
func wake(watches map[string]*watch, workers []string, now time.Time) {
	for _, worker := range workers {
		if w := watches[worker]; w != nil {
			w.due, w.quiet = time.Time{}, 0
			if reported := now.Add(-quickest); reported.After(w.at) {
				w.at = reported
			}
		}
	}
}

// look looks at the logs that are due and returns the time until the next one is.
func (r *Rotator) look(ctx context.Context, watches map[string]*watch) time.Duration {
	current := r.list()
	maps.DeleteFunc(watches, func(worker string, w *watch) bool { return current[worker].Path != w.path })
	next, beside := slowest, folders{}
	for worker, l := range current {
		w := watches[worker]
		if w == nil {
			w = &watch{path: l.Path}
			watches[worker] = w
		}
		if w.put != l.put { // the policy may be another one
			w.put, w.due, w.quiet = l.put, time.Time{}, 0
		}
		if now := time.Now(); !now.Add(fastest).Before(w.due) {
			w.due = time.Now().Add(r.visit(ctx, worker, l, w, beside))
		}
		next = min(next, max(0, time.Until(w.due)))
	}
	return next
}

// folders are the contents of folders, each read once for all of the logs in it. Only the rotator makes copies, so they
// are those that were there when it began.
type folders map[string]layout.Folder

// beside returns the files beside a log.
func (f folders) beside(log string) (layout.Files, error) {
	dir := filepath.Dir(log)
	folder, known := f[dir]
	if !known {
		var err error
		if folder, err = layout.ReadFolder(dir); err != nil {
			return layout.Files{}, err
		}
		f[dir] = folder
	}
	return folder.Beside(log), nil
}

// tidyInterval is the longest time between a file's reaching its age and its removal.
const tidyInterval = time.Minute

// tidyLogs compresses and removes rotated files until ctx ends. It has a goroutine of its own because compressing takes
// longer than rotating.
func (r *Rotator) tidyLogs(ctx context.Context) {
	aged := time.NewTicker(tidyInterval)
	defer aged.Stop()
	failed := map[string]bool{}
	for {
		select {
		case <-ctx.Done():
			return
		case <-r.untidy:
			r.tidyEach(ctx, r.takeDirty(), failed)
		case <-aged.C:
			r.tidyEach(ctx, r.list(), failed)
		}
	}
}

// tidyEach tidies some logs and reports for which of them that has begun to fail.
func (r *Rotator) tidyEach(ctx context.Context, some map[string]Log, failed map[string]bool) {
	beside := folders{}
	for worker, l := range some {
		files, err := beside.beside(l.Path)
		if err == nil && !files.None() {
			err = tidy(ctx, l, r.steps)
		}
		if err != nil && ctx.Err() == nil && !failed[worker] {
			r.report(ctx, Event{Kind: Failed, Worker: worker, Path: l.Path, Err: err})
		}
		failed[worker] = err != nil
	}
}

// watch is the rotator's memory of a log.
type watch struct {
	path      string
	due       time.Time
	recovered bool
	info      fs.FileInfo // at the last look
	at        time.Time   // of the last look
	base      int64       // offset of the first line
	enough    int64       // do not rotate below this size: no line ends early enough
	failures  int         // in a row
	lost      int         // the put of the log that was reported as lost, 0 if it is not lost
	put       int         // the put of the log at the last look
	quiet     int         // looks in a row without a change
}

// visit looks at a log, rotates it if it is large, and returns the time until the next look.
func (r *Rotator) visit(ctx context.Context, worker string, l Log, w *watch, beside folders) time.Duration {
	info, err := os.Lstat(l.Path)
	r.findLost(ctx, worker, l, w, info)
	if errors.Is(err, fs.ErrNotExist) {
		*w = watch{path: l.Path, lost: w.lost, put: w.put}
		return untilFull(0, 0, l.Policy)
	}
	rate := 0.0
	if err == nil {
		var lost int64
		if rate, lost = w.see(info, time.Now()); lost > 0 {
			r.report(ctx, Event{Kind: Truncated, Worker: worker, Path: l.Path, Bytes: lost})
		}
		if w.left(l.Policy) <= 0 {
			err = r.rotate(ctx, worker, l, w, beside)
		} else {
			r.offsets.Of(l.Path).See(w.at, w.base, w.info.Size())
		}
	}
	switch {
	case err == nil:
		w.failures = 0
		if w.quiet >= quietLooks && r.awaitChange(worker, w) {
			return watched
		}
		return untilFull(w.left(l.Policy), rate, l.Policy)
	case ctx.Err() != nil:
		return slowest
	case errors.Is(err, errShrunk), isGone(l.Path):
		return fastest // the next look reports what there is to report
	}
	if w.failures++; w.failures == 1 {
		r.report(ctx, Event{Kind: Failed, Worker: worker, Path: l.Path, Err: err})
	}
	return min(time.Minute, time.Second<<min(w.failures-1, 6))
}

// awaitChange has the next change of a log reported. It returns false if that is not possible, or if the log has
// changed since the last look.
func (r *Rotator) awaitChange(worker string, w *watch) bool {
	if !r.alarms.watch(worker, w.path) {
		return false
	}
	info, err := os.Lstat(w.path)
	return err == nil && os.SameFile(info, w.info) && info.Size() == w.info.Size()
}

// isGone reports whether a log has been removed, which may happen between a look and the rotation that follows.
func isGone(path string) bool {
	_, err := os.Lstat(path)
	return errors.Is(err, fs.ErrNotExist)
}

// findLost reports a process that writes to a deleted log. While the log is the same file as at the last look, there is
// none.
func (r *Rotator) findLost(ctx context.Context, worker string, l Log, w *watch, info fs.FileInfo) {
	if info != nil && w.info != nil && os.SameFile(info, w.info) && w.lost == 0 {
		return
	}
	if l.Lost == nil || !l.Lost() {
		w.lost = 0
	} else if w.lost != l.put {
		w.lost = l.put
		r.report(ctx, Event{Kind: Lost, Worker: worker, Path: l.Path})
	}
}

// see remembers a look at the log. It returns the bytes a second that it has grown by, and the bytes that a program has
// removed from it.
func (w *watch) see(info fs.FileInfo, now time.Time) (rate float64, lost int64) {
	if w.info == nil || !os.SameFile(info, w.info) {
		*w = watch{path: w.path, failures: w.failures, info: info, at: now, lost: w.lost, put: w.put}
		return 0, 0
	}
	if w.quiet++; info.Size() != w.info.Size() {
		w.quiet = 0
	}
	grown := info.Size() - w.info.Size()
	if elapsed := now.Sub(w.at).Seconds(); elapsed > 0 {
		rate = float64(grown) / elapsed
	}
	if w.info, w.at = info, now; grown < 0 {
		w.recovered = false // base has no meaning any more
	}
	return rate, -grown
}

// left returns the bytes that the log may grow by until it is rotated. A log that was not recovered has none left.
func (w *watch) left(p logs.Policy) int64 {
	if !w.recovered {
		return 0
	}
	return max(p.MaxSize+w.base, w.enough) - w.info.Size()
}

// untilFull returns the time until the next look at a log that may grow by left bytes, at a rate. A log that grows is
// looked at more than once until then, because its writer may become faster.
func untilFull(left int64, rate float64, p logs.Policy) time.Duration {
	seconds := func(s float64) time.Duration { return time.Duration(s * float64(time.Second)) }
	if rate <= 0 {
		return idle
	}
	busy := min(slowest, max(quickest, seconds(float64(min(p.MaxSize, fastWriter))/fastWriter)))
	return max(fastest, seconds(min(busy.Seconds(), float64(left)/rate/2)))
}

// rotate recovers a log, and rotates it if it is large.
func (r *Rotator) rotate(ctx context.Context, worker string, l Log, w *watch, beside folders) (err error) {
	f, err := open(l, r.space, r.steps, r.offsets.Of(l.Path))
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.close()) }()
	parts, err := f.recover(ctx, beside)
	if f.completed {
		r.tidyUp(worker)
	}
	if err != nil {
		return err
	}
	var moved int64
	if parts.Size-parts.Lines >= l.Policy.MaxSize {
		if moved, err = f.rotate(ctx, parts, l.Policy.Keep > 0); err != nil {
			return err
		}
		w.enough = 0
		if moved == 0 {
			w.enough = parts.Size + parts.Size/4
		}
		if parts, err = layout.Find(f.file); err != nil {
			return err
		}
	}
	if parts.First >= l.Policy.MaxSize {
		if err := f.freeZeros(); err != nil {
			return err
		}
	}
	w.recovered, w.base = true, parts.Lines
	if w.info, err = f.file.Stat(); err != nil {
		return err
	}
	w.at = time.Now()
	if moved > 0 {
		r.report(ctx, Event{Kind: Rotated, Worker: worker, Path: l.Path, Bytes: moved})
		f.offsets.Forget(l.Policy.Keep)
		r.tidyUp(worker)
	}
	return nil
}
