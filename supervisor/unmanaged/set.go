// Package unmanaged watches the processes of unmanaged units, which other programs start: it searches for them, proves
// which process it has found, and notices when that ends or fails its health check. It signals one only for an
// operator, and only if its unit allows that.
//
// A found process is held by an open handle, so that the evidence is about one process even if its PID is reused. All
// units share one goroutine, one search, and the scheduler of the checks: an idle unit costs neither a goroutine nor a
// timer. A process that is found stays the one of its unit until it ends or does not match any more,
// even if others match meanwhile.
//
// A record of each unit names the process, so that the history has its end also if no master ran then. next.go decides
// what an event means, search.go finds processes, and check.go has their health.
package unmanaged

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"reflect"
	"slices"
	"sync"
	"time"

	"github.com/core-tools/hsu-master/identity"
	"github.com/core-tools/hsu-master/internal/crashpoint"
	"github.com/core-tools/hsu-master/internal/systemd"
	"github.com/core-tools/hsu-master/store"
	"github.com/core-tools/hsu-master/store/records"
	"github.com/core-tools/hsu-master/supervisor/probe"
	"github.com/core-tools/hsu-master/supervisor/process"
	"github.com/core-tools/hsu-master/supervisor/process/oneshot"
	"github.com/core-tools/hsu-master/supervisor/unit"
	"github.com/core-tools/hsu-master/supervisor/worker"
)

// Options configure a [Set].
type Options struct {
	Store  *store.DB        // records the processes that are found
	Checks *probe.Scheduler // checks it
	Log    *slog.Logger
	BootID string
	// Own returns the processes of this master, which are never found.
	Own func() process.Own
	// Changed is called after each change of a status or of readiness.
	Changed func()
	// Run runs the command of a check of type exec for the unit.
	Run func(ctx context.Context, u *unit.Spec, id string, command []string) (oneshot.Ran, error)

	// Tests put fakes here.
	discover func(ctx context.Context, own process.Own, queries []process.Query) []finding
	apply    func(ctx context.Context, muts ...records.Mutation) error // to the store
	mainPID  func(ctx context.Context, unit string) (int, error)       // of a systemd unit
	restart  func(ctx context.Context, unit string) error              // a systemd unit
}

// Set is the set of watched units. Its methods may be called from any goroutine.
type Set struct {
	opts    Options
	systemd *systemd.Manager
	wake    chan struct{} // one token: there is something to do

	// durable is held while records are written, so that no record is written after it was removed.
	durable sync.Mutex
	told    bool // a failed write has been logged

	mu       sync.Mutex
	items    []*item                   // in the order of the units
	recorded map[string]records.Worker // by an earlier master, of units that are not in the set yet
	searched time.Time                 // when the last search was
	delay    time.Duration             // before the next search; 0: search now
}

// item is one unit.
type item struct {
	id      string
	unit    *unit.Spec
	after   <-chan struct{} // nil, or closed when the id is free
	rec     records.Worker
	unsaved []records.Event // not recorded yet, and neither is rec
	watch   *watch          // nil if there is no process
}

// New returns an empty set, which does nothing until [Set.Serve].
func New(opts Options) *Set {
	if opts.discover == nil {
		opts.discover = discover
	}
	if opts.apply == nil {
		opts.apply = opts.Store.Apply
	}
	manager := systemd.NewManager()
	if opts.mainPID == nil {
		opts.mainPID = manager.MainPID
	}
	if opts.restart == nil {
		opts.restart = systemd.Restart
	}
	return &Set{
		opts: opts, systemd: manager, wake: make(chan struct{}, 1), recorded: map[string]records.Worker{},
	}
}

// idOf returns the id of the only worker of a unit.
func idOf(u *unit.Spec) string { return u.WorkerID(0) }

// watched returns the units that a set of units has to watch.
func watched(units []unit.Spec) []unit.Spec {
	return slices.DeleteFunc(slices.Clone(units), func(u unit.Spec) bool { return u.Starts() || u.Replicas == 0 })
}

// Restore adds the records of an earlier master. Those of units that are started now are left alone.
func (s *Set) Restore(recs []records.Worker) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, rec := range recs {
		if rec.Unmanaged() {
			s.recorded[rec.ID] = rec
		}
	}
}

// Remove stops watching everything that is not among the units, and removes its records, except those whose id is taken
// by another worker now: that worker's record replaces it. The processes go on.
func (s *Set) Remove(ctx context.Context, units []unit.Spec, taken func(id string) bool) error {
	s.durable.Lock()
	defer s.durable.Unlock()
	var muts []records.Mutation
	for _, rec := range s.drop(watched(units)) {
		e := s.log(rec, removed(rec.Found))
		if !taken(rec.ID) {
			muts = append(muts, records.DeleteWorker(rec.ID))
		}
		muts = append(muts, records.AppendEvent(e))
	}
	if len(muts) == 0 {
		return nil
	}
	err := crashpoint.Do(crashpoint.FoundRecord, func() error { return s.opts.apply(ctx, muts...) })
	if err != nil {
		return fmt.Errorf("remove the records of unmanaged units: %w", err)
	}
	return nil
}

// drop removes everything that is not among the units from memory and returns its records.
func (s *Set) drop(units []unit.Spec) (gone []records.Worker) {
	s.mu.Lock()
	defer s.mu.Unlock()
	wanted := map[string]bool{}
	for i := range units {
		wanted[idOf(&units[i])] = true
	}
	for id, rec := range s.recorded {
		if !wanted[id] {
			gone = append(gone, rec)
			delete(s.recorded, id)
		}
	}
	s.items = slices.DeleteFunc(s.items, func(x *item) bool {
		if wanted[x.id] {
			return false
		}
		x.release()
		if x.rec.Unmanaged() {
			gone = append(gone, x.rec)
		}
		return true
	})
	return gone
}

// Put makes the set watch the unmanaged ones among the units. after returns nil if an id is free. Otherwise a worker
// that has it is still being stopped, and after returns a channel that is closed when that is done.
func (s *Set) Put(units []unit.Spec, after func(id string) <-chan struct{}) {
	s.mu.Lock()
	defer s.mu.Unlock()
	known := map[string]*item{}
	for _, x := range s.items {
		known[x.id] = x
	}
	s.items = nil
	watched := watched(units)
	for i := range watched {
		u := &watched[i]
		x := known[idOf(u)]
		if x == nil {
			x = s.newItem(u, after(idOf(u)))
			s.delay = 0
		} else if before := x.unit; !reflect.DeepEqual(before, u) {
			x.unit = u
			s.recheck(x)
			s.delay = 0
		}
		s.items = append(s.items, x)
	}
	s.notify()
}

func (s *Set) newItem(u *unit.Spec, after <-chan struct{}) *item {
	id := idOf(u)
	x := &item{id: id, unit: u, after: after}
	x.rec = records.Worker{ID: id, Unit: u.Name, Desired: records.DesiredRunning}
	if rec, found := s.recorded[id]; found && after == nil {
		x.rec = rec
	}
	delete(s.recorded, id)
	return x
}

// free reports whether the id of the item is its own by now.
func (x *item) free() bool {
	select {
	case <-x.after:
		x.after = nil
	default:
	}
	return x.after == nil
}

// notify wakes the goroutine of Serve.
func (s *Set) notify() {
	select {
	case s.wake <- struct{}{}:
	default: // it has yet to wake up
	}
}

// Serve watches the units until ctx ends.
func (s *Set) Serve(ctx context.Context) {
	defer s.systemd.Close()
	defer s.release()
	for {
		searchAt := s.search(ctx)
		retryAt := s.record(ctx)
		if !s.wait(ctx, records.Earliest(searchAt, retryAt)) {
			return
		}
	}
}

// release closes all handles. The processes go on.
func (s *Set) release() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, x := range s.items {
		x.release()
	}
}

func (x *item) release() {
	if x.watch != nil {
		x.watch.end()
		x.watch = nil
	}
}

// wait returns when there is something to do, at a time if that is not zero. It returns false if ctx has ended. One
// select waits for the ends of all processes, so that none needs a goroutine.
func (s *Set) wait(ctx context.Context, at time.Time) bool {
	cases := []reflect.SelectCase{receive(ctx.Done()), receive(s.wake)}
	if !at.IsZero() {
		timer := time.NewTimer(max(0, time.Until(at)))
		defer timer.Stop()
		cases = append(cases, receive(timer.C))
	}
	ends := len(cases)
	s.mu.Lock()
	var watches []*watch
	for _, x := range s.items {
		if x.watch != nil {
			cases = append(cases, receive(x.watch.target.Done()))
			watches = append(watches, x.watch)
		}
	}
	for _, x := range s.items {
		if !x.free() {
			cases = append(cases, receive(x.after))
		}
	}
	s.mu.Unlock()
	chosen, _, _ := reflect.Select(cases)
	switch i := chosen - ends; {
	case i >= len(watches): // an id is free
		s.mu.Lock()
		s.delay = 0
		s.mu.Unlock()
	case i >= 0:
		s.ended(watches[i])
	}
	return chosen != 0
}

func receive[T any](c <-chan T) reflect.SelectCase {
	return reflect.SelectCase{Dir: reflect.SelectRecv, Chan: reflect.ValueOf(c)}
}

// ended notes the end of a process.
func (s *Set) ended(w *watch) {
	exit := w.target.Exit() // may take some milliseconds
	s.mu.Lock()
	defer s.mu.Unlock()
	if x := w.item; x.watch == w {
		s.lose(x, event{kind: evEnded, exit: exit})
	}
}

// lose ends the watch of a process and starts to search for another. The caller holds s.mu.
func (s *Set) lose(x *item, e event) {
	if time.Since(x.watch.since) >= stable {
		s.delay = 0
	}
	x.release()
	s.step(x, e)
}

// step applies an event. The caller holds s.mu.
func (s *Set) step(x *item, e event) {
	before := x.rec
	rec, said := next(x.rec, e, time.Now())
	x.rec = rec
	if len(said) == 0 && rec.Status == before.Status && rec.Reason == before.Reason {
		return
	}
	for _, n := range said {
		x.unsaved = append(x.unsaved, s.log(rec, n))
	}
	if len(said) == 0 && rec.Status == records.StatusAbsent && rec.Reason != before.Reason {
		s.log(rec, absent(rec.Reason))
	}
	s.notify()
	if rec.Status != before.Status || rec.Found != before.Found {
		s.opts.Changed()
	}
}

// recordRetry is the delay before a failed write of the records is tried again.
const recordRetry = 250 * time.Millisecond

// record makes the changes of the items durable. It returns when to try again if the state cannot be written now.
func (s *Set) record(ctx context.Context) (retryAt time.Time) {
	s.durable.Lock()
	defer s.durable.Unlock()
	var muts []records.Mutation
	count := map[*item]int{}
	s.mu.Lock()
	for _, x := range s.items {
		if len(x.unsaved) == 0 {
			continue
		}
		muts = append(muts, records.PutWorker(x.rec))
		for _, e := range x.unsaved {
			muts = append(muts, records.AppendEvent(e))
		}
		count[x] = len(x.unsaved)
	}
	s.mu.Unlock()
	if len(muts) == 0 {
		return time.Time{}
	}
	err := crashpoint.Do(crashpoint.FoundRecord, func() error { return s.opts.apply(ctx, muts...) })
	if errors.Is(err, store.ErrUnavailable) {
		if !s.told {
			s.told = true
			s.opts.Log.Error("process not recorded, retrying", "error", err)
		}
		return time.Now().Add(recordRetry)
	}
	if err != nil && ctx.Err() == nil {
		s.opts.Log.Error("process not recorded", "error", err)
	}
	s.told = false
	s.mu.Lock()
	defer s.mu.Unlock()
	for x, n := range count {
		x.unsaved = x.unsaved[n:]
	}
	return time.Time{}
}

// Infos lists the units.
func (s *Set) Infos() []worker.Info {
	s.mu.Lock()
	defer s.mu.Unlock()
	infos := make([]worker.Info, 0, len(s.items))
	for _, x := range s.items {
		if !x.free() {
			continue // the worker that has its id is shown
		}
		info := worker.Info{Worker: x.rec}
		if x.watch == nil {
			info.Found, info.Status = nil, records.StatusAbsent
			if info.Reason == "" || x.rec.Found != nil {
				info.Reason = "it is being looked for"
			}
		} else {
			info.Ready, info.Probe, info.Checks = x.watch.ready(), x.watch.probe(), x.watch.infos()
		}
		infos = append(infos, info)
	}
	return infos
}

// Searched reports whether each unit has been searched for, now or by an earlier master.
func (s *Set) Searched() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return !slices.ContainsFunc(s.items, func(x *item) bool { return x.rec.Status == "" })
}

// last returns the process that a search finds again, if it is of this boot.
func (s *Set) last(x *item) identity.Process {
	if f := x.rec.Found; f != nil && f.BootID == s.opts.BootID {
		return f.Process
	}
	return identity.Process{}
}
