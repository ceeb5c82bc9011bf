package unmanaged

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/core-tools/hsu-master/identity"
	"github.com/core-tools/hsu-master/internal/leaks"
	"github.com/core-tools/hsu-master/internal/systemd"
	"github.com/core-tools/hsu-master/store"
	"github.com/core-tools/hsu-master/store/records"
	"github.com/core-tools/hsu-master/supervisor/probe"
	"github.com/core-tools/hsu-master/supervisor/process"
	"github.com/core-tools/hsu-master/supervisor/process/oneshot"
	"github.com/core-tools/hsu-master/supervisor/unit"
	"github.com/core-tools/hsu-master/supervisor/worker"
)

func TestMain(m *testing.M) { os.Exit(leaks.Run(m, os.Stderr)) }

// world is a fake machine: one process at most for each pattern.
type world struct {
	mu       sync.Mutex
	pid      int
	living   map[string]*fake // by pattern
	searches int
	queries  []process.Query // of the last search
}

// fake is a process, which nothing can signal.
type fake struct {
	id      identity.Process
	done    chan struct{}
	exit    identity.Exit
	mu      sync.Mutex
	stopped bool
	changed error
	handles int
}

func (f *fake) Identity() identity.Process { return f.id }
func (f *fake) Done() <-chan struct{}      { return f.done }
func (f *fake) Exit() identity.Exit        { return f.exit }
func (f *fake) Close() error               { f.set(func() { f.handles-- }); return nil }
func (f *fake) Stopped() (is bool)         { f.set(func() { is = f.stopped }); return is }

func (f *fake) Signal(syscall.Signal) error { return nil }

func (f *fake) Matches(process.Pattern) (err error) {
	f.set(func() { err = f.changed })
	return err
}

func (f *fake) set(do func()) {
	f.mu.Lock()
	defer f.mu.Unlock()
	do()
}

func (w *world) start(p process.Pattern) *fake {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.pid++
	f := &fake{
		id: identity.Process{
			BootID: "boot", PIDNamespace: 1, PID: 1000 + w.pid, Inode: uint64(w.pid), StartTicks: uint64(w.pid),
		},
		done: make(chan struct{}),
	}
	w.living[p.String()] = f
	return f
}

// hide makes the process of a pattern one that no search finds.
func (w *world) hide(p process.Pattern) {
	w.mu.Lock()
	defer w.mu.Unlock()
	delete(w.living, p.String())
}

// end ends the process of a pattern.
func (w *world) end(p process.Pattern, exit identity.Exit) {
	w.mu.Lock()
	f := w.living[p.String()]
	delete(w.living, p.String())
	w.mu.Unlock()
	f.exit = exit
	close(f.done)
}

func (w *world) count() int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.searches
}

func (w *world) discover(_ context.Context, _ process.Own, queries []process.Query) []finding {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.searches++
	w.queries = queries
	findings := make([]finding, len(queries))
	for i, q := range queries {
		f := w.living[q.Pattern.String()]
		if f == nil {
			findings[i].err = fmt.Errorf("%w: no %s", process.ErrGone, q.Pattern)
			continue
		}
		f.set(func() { f.handles++ })
		findings[i] = finding{target: f, name: "db", started: time.Now()}
	}
	return findings
}

// watcher is a set that runs in a bubble.
type watcher struct {
	*Set
	t       *testing.T
	store   *store.DB
	stop    func()
	failing func(bool)
	changes func() int
	main    func(pid int, err error) // answers for a systemd unit
}

// open starts a set on the state in dir.
func (w *world) open(t *testing.T, dir string, units ...unit.Spec) *watcher {
	t.Helper()
	db, err := store.Open(dir, store.Options{Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	var mu sync.Mutex
	fails, changes := false, 0
	mainPID, mainErr := 0, error(nil)
	checks := probe.NewScheduler()
	s := New(Options{
		Store: db, Checks: checks, Log: slog.New(slog.DiscardHandler), BootID: "boot",
		Own:      func() process.Own { return process.Own{} },
		Changed:  func() { mu.Lock(); defer mu.Unlock(); changes++ },
		discover: w.discover,
		mainPID: func(context.Context, string) (int, error) {
			mu.Lock()
			defer mu.Unlock()
			return mainPID, mainErr
		},
		apply: func(ctx context.Context, muts ...records.Mutation) error {
			mu.Lock()
			defer mu.Unlock()
			if fails {
				return store.ErrUnavailable
			}
			return db.Apply(ctx, muts...)
		},
	})
	snap, err := db.Snapshot()
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	var running sync.WaitGroup
	running.Go(func() { checks.Serve(ctx) })
	running.Go(func() { s.Serve(ctx) })
	wt := &watcher{
		Set: s, t: t, store: db,
		stop: sync.OnceFunc(func() {
			cancel()
			running.Wait()
			if err := db.Close(); err != nil {
				t.Error(err)
			}
		}),
		failing: func(is bool) { mu.Lock(); defer mu.Unlock(); fails = is },
		changes: func() int { mu.Lock(); defer mu.Unlock(); return changes },
		main:    func(pid int, err error) { mu.Lock(); defer mu.Unlock(); mainPID, mainErr = pid, err },
	}
	t.Cleanup(wt.stop)
	s.Restore(snap.Workers)
	wt.put(units...)
	synctest.Wait()
	return wt
}

func (w *watcher) put(units ...unit.Spec) {
	w.t.Helper()
	if err := w.Remove(w.t.Context(), units, func(string) bool { return false }); err != nil {
		w.t.Fatal(err)
	}
	w.Put(units, func(string) <-chan struct{} { return nil })
	synctest.Wait()
}

func newWorld() *world { return &world{living: map[string]*fake{}} }

func unitOf(name string) unit.Spec {
	return *unit.Spec{
		Name: name, Kind: unit.Unmanaged, Replicas: 1, Discover: process.Pattern{PIDFile: "/run/" + name + ".pid"},
	}.WithDefaults()
}

func pass(d time.Duration) {
	time.Sleep(d)
	synctest.Wait()
}

// shown returns the status, the PID and the reason that are shown of a unit.
func (w *watcher) shown(name string) string {
	w.t.Helper()
	i := w.info(name)
	text := string(i.Status)
	if i.Found != nil {
		text += fmt.Sprint(" ", i.Found.PID)
	}
	if i.Ready {
		text += " ready"
	}
	return strings.TrimSuffix(text+": "+i.Reason, ": ")
}

func (w *watcher) info(name string) worker.Info {
	w.t.Helper()
	infos := w.Infos()
	i := slices.IndexFunc(infos, func(i worker.Info) bool { return i.Unit == name })
	if i < 0 {
		w.t.Fatalf("no unit %s in %+v", name, infos)
	}
	return infos[i]
}

func (w *watcher) wantShown(name, want string) {
	w.t.Helper()
	if got := w.shown(name); got != want {
		w.t.Errorf("%s is %q, want %q", name, got, want)
	}
}

// history returns the types of the recorded events of a unit.
func (w *watcher) history(name string) string {
	w.t.Helper()
	snap, err := w.store.Snapshot()
	if err != nil {
		w.t.Fatal(err)
	}
	var types []string
	for _, e := range snap.Events {
		if e.Worker == name+"-0" {
			types = append(types, e.Type)
		}
	}
	return strings.Join(types, " ")
}

func (w *watcher) wantHistory(name, want string) {
	w.t.Helper()
	if got := w.history(name); got != want {
		w.t.Errorf("the history of %s is %q, want %q", name, got, want)
	}
}

// recordOf returns the record of a unit, nil if there is none.
func (w *watcher) recordOf(name string) *records.Worker {
	w.t.Helper()
	snap, err := w.store.Snapshot()
	if err != nil {
		w.t.Fatal(err)
	}
	for _, rec := range snap.Workers {
		if rec.ID == name+"-0" {
			return &rec
		}
	}
	return nil
}

func TestAProcessIsFoundGoneAndBackAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld()
		db := unitOf("db")
		s := w.open(t, t.TempDir(), db)
		s.wantShown("db", "absent: no pid file /run/db.pid")
		if !s.Searched() {
			t.Error("it does not seem searched for")
		}
		w.start(db.Discover)
		pass(firstDelay)
		s.wantShown("db", "running 1001 ready")
		if rec := s.recordOf("db"); rec == nil || rec.Found == nil || rec.Found.PID != 1001 || rec.Instance != nil {
			t.Errorf("recorded is %+v", rec)
		}
		pass(time.Hour)
		before := s.changes()
		w.end(db.Discover, identity.Exit{Signal: 9, Source: identity.ExitPidfd})
		synctest.Wait() // at once: no time passes
		s.wantShown("db", "absent: no pid file /run/db.pid")
		if exit := s.info("db").LastExit; exit == nil || exit.Signal != 9 || exit.At.IsZero() {
			t.Errorf("its last exit is %+v", exit)
		}
		if s.changes() == before {
			t.Error("nobody was told")
		}
		w.start(db.Discover)
		pass(firstDelay)
		s.wantShown("db", "running 1002 ready")
		s.wantHistory("db", "absent found gone found")
	})
}

// The search for an absent process becomes slower, serves all units at once, and ends when all are found.
func TestTheSearchIsCheap(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld()
		var units []unit.Spec
		for i := range 50 {
			units = append(units, unitOf(fmt.Sprint("u", i, "x")))
		}
		w.open(t, t.TempDir(), units...)
		if n := w.count(); n != 1 {
			t.Errorf("%d searches at the start, want one for all", n)
		}
		pass(time.Hour)
		if n, most := w.count(), int(time.Hour/maxDelay)+5; n > most || n < most-10 {
			t.Errorf("%d searches in an hour, want about %d", n, most)
		}
		for _, u := range units {
			w.start(u.Discover)
		}
		pass(maxDelay)
		n := w.count()
		pass(time.Hour)
		if w.count() != n {
			t.Errorf("%d searches in an hour although all are found", w.count()-n)
		}
	})
}

func TestAnIdleUnitCostsNoGoroutine(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld()
		var units []unit.Spec
		for i := range 200 {
			u := unitOf(fmt.Sprint("u", i, "x"))
			units = append(units, u)
			if i%2 == 0 {
				w.start(u.Discover)
			}
		}
		before := runtime.NumGoroutine()
		s := w.open(t, t.TempDir(), units...)
		pass(time.Minute)
		if n := runtime.NumGoroutine() - before; n > 20 {
			t.Errorf("%d goroutines for %d units", n, len(units))
		}
		s.wantShown("u198x", "running 1100 ready")
	})
}

// A process that its own supervisor restarts in a loop is not found at each of its starts.
func TestAFlappingProcessIsFoundLessOften(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld()
		db := unitOf("db")
		s := w.open(t, t.TempDir(), db)
		pass(55 * time.Millisecond) // the searches are not in the gaps
		for range 600 {
			w.start(db.Discover)
			pass(90 * time.Millisecond)
			w.end(db.Discover, identity.Exit{})
			pass(10 * time.Millisecond)
		}
		if n := strings.Count(s.history("db"), "found"); n > 30 || n < 3 {
			t.Errorf("found %d times in a minute of 600 starts", n)
		}
	})
}

func TestAProcessThatDoesNotMatchAnyMoreIsGone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld()
		db := unitOf("db")
		f := w.start(db.Discover)
		s := w.open(t, t.TempDir(), db)
		s.wantShown("db", "running 1001 ready")
		f.set(func() { f.changed = fmt.Errorf("%w: it executes another program", process.ErrGone) })
		w.hide(db.Discover)
		pass(db.Health.Liveness.Interval)
		if f.handles != 0 {
			t.Errorf("%d handles of it are open", f.handles)
		}
		s.wantShown("db", "absent: no pid file /run/db.pid")
		s.wantHistory("db", "found gone")
	})
}

func TestHealth(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld()
		db := unitOf("db")
		f := w.start(db.Discover)
		s := w.open(t, t.TempDir(), db)
		f.set(func() { f.stopped = true })
		pass(2 * db.Health.Liveness.Interval)
		s.wantShown("db", "running 1001 ready")
		pass(db.Health.Liveness.Interval)
		s.wantShown("db", "unhealthy 1001: its process: stopped by a signal")
		f.set(func() { f.stopped = false })
		pass(db.Health.Liveness.Interval)
		s.wantShown("db", "running 1001 ready")
		s.wantHistory("db", "found unhealthy running")
		if c := s.info("db").Checks; len(c) != 1 || c[0].Use != "health" || !c[0].Passed || c[0].Due.IsZero() {
			t.Errorf("its checks are %+v", c)
		}
	})
}

// Readiness alone does not change the status.
func TestReadinessApartFromLiveness(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld()
		db := unitOf("db")
		db.Health.Readiness = probe.Spec{Type: probe.TypeExec, Command: []string{"./ready"}}.WithDefaults()
		db.Health.Liveness = probe.Spec{Type: probe.TypeProcess}.WithDefaults()
		w.start(db.Discover)
		s := w.open(t, t.TempDir())
		var ready atomic.Bool
		s.opts.Run = func(_ context.Context, u *unit.Spec, id string, command []string) (oneshot.Ran, error) {
			if u.Name != "db" || id != "db-0" || command[0] != "./ready" {
				t.Errorf("it runs %q for %s of %s", command, id, u.Name)
			}
			if !ready.Load() {
				return oneshot.Ran{}, errors.New("not yet")
			}
			return oneshot.Ran{Exit: identity.Exit{Source: identity.ExitWait}}, nil
		}
		s.put(db)
		pass(time.Minute)
		s.wantShown("db", "running 1001")
		ready.Store(true)
		pass(db.Health.Readiness.Interval)
		s.wantShown("db", "running 1001 ready")
		s.wantHistory("db", "found")
	})
}

func TestTheNextMasterKnowsTheProcess(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld()
		dir := t.TempDir()
		same, other, ended, stays := unitOf("same"), unitOf("other"), unitOf("ended"), unitOf("stays")
		for _, u := range []unit.Spec{same, other, ended} {
			w.start(u.Discover)
		}
		s := w.open(t, dir, same, other, ended, stays)
		s.stop()
		for p, f := range w.living {
			if f.handles != 0 {
				t.Errorf("%s: %d handles are open after the end", p, f.handles)
			}
		}
		w.end(other.Discover, identity.Exit{})
		w.start(other.Discover)
		w.end(ended.Discover, identity.Exit{})
		pass(time.Hour)
		s = w.open(t, dir, same, other, ended, stays)
		s.wantShown("same", "running 1001 ready")
		s.wantShown("other", "running 1004 ready")
		s.wantShown("ended", "absent: no pid file /run/ended.pid")
		s.wantHistory("same", "found")
		s.wantHistory("other", "found gone found")
		s.wantHistory("ended", "found gone")
		s.wantHistory("stays", "absent")
		if got := w.queries[0].Last; got.PID != 1001 {
			t.Errorf("it searches for the last process %+v", got)
		}
	})
}

// The process of a systemd unit is given up when the unit has another one, and not when systemd has no answer.
func TestMainProcessOfASystemdUnit(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld()
		db := unitOf("db")
		db.Discover = process.Pattern{Systemd: "db.service"}
		w.start(db.Discover)
		s := w.open(t, t.TempDir())
		s.main(1001, nil)
		s.put(db)
		pass(2 * db.Health.Liveness.Interval)
		s.wantShown("db", "running 1001 ready")
		s.main(0, fmt.Errorf("%w: executed again", systemd.ErrNoAnswer))
		pass(2 * db.Health.Liveness.Interval)
		s.wantShown("db", "running 1001 ready")
		s.wantHistory("db", "found")
		w.start(db.Discover)
		s.main(1002, nil)
		pass(db.Health.Liveness.Interval + maxDelay)
		s.wantShown("db", "running 1002 ready")
		s.wantHistory("db", "found gone found")
	})
}

// Only a process of this boot can be the same.
func TestAnotherBoot(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld()
		db := unitOf("db")
		f := w.start(db.Discover)
		dir := t.TempDir()
		f.id.BootID = "earlier"
		w.open(t, dir, db).stop()
		f.id.BootID = "boot"
		s := w.open(t, dir, db)
		if got := w.queries[0].Last; got.PID != 0 {
			t.Errorf("it searches for the process of another boot: %+v", got)
		}
		s.wantHistory("db", "found gone found")
	})
}

func TestRemove(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld()
		dir := t.TempDir()
		a, b, c := unitOf("a"), unitOf("b"), unitOf("c")
		f := w.start(a.Discover)
		s := w.open(t, dir, a, b, c)
		s.put(b, c)
		if infos := s.Infos(); len(infos) != 2 || f.handles != 0 {
			t.Errorf("%d units are watched, and %d handles open", len(infos), f.handles)
		}
		if rec := s.recordOf("a"); rec != nil {
			t.Errorf("recorded is %+v", rec)
		}
		s.wantHistory("a", "found removed")
		c.Replicas = 0 // disabled
		s.put(b, c)
		if rec := s.recordOf("c"); rec != nil || len(s.Infos()) != 1 {
			t.Errorf("recorded of a disabled unit is %+v", rec)
		}
		pass(time.Hour)
		s.wantHistory("a", "found removed")
		s.stop()
		// A unit that is removed while no master runs.
		s = w.open(t, dir)
		if rec := s.recordOf("b"); rec != nil {
			t.Errorf("recorded is %+v", rec)
		}
		s.wantHistory("b", "absent removed")
	})
}

// The id of a unit that is started now belongs to its worker: neither the removal nor a late write touches its record.
func TestTheRecordOfAWorkerIsLeftAlone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld()
		db := unitOf("db")
		w.start(db.Discover)
		s := w.open(t, t.TempDir(), db)
		if err := s.Remove(t.Context(), nil, func(id string) bool { return id == "db-0" }); err != nil {
			t.Fatal(err)
		}
		if s.recordOf("db") == nil {
			t.Error("the record was removed")
		}
		started := records.Worker{
			ID: "db-0", Unit: "db", Desired: records.DesiredRunning, Status: records.StatusStarting, Incarnation: 1,
			Instance: &records.Instance{Token: "t"},
		}
		if err := s.store.Apply(t.Context(), records.PutWorker(started)); err != nil {
			t.Fatal(err)
		}
		w.end(db.Discover, identity.Exit{})
		pass(time.Hour)
		if rec := s.recordOf("db"); rec == nil || rec.Instance == nil || rec.Instance.Token != "t" {
			t.Errorf("recorded is %+v, want the worker", rec)
		}
		// And back: the worker has to be gone first.
		free := make(chan struct{})
		w.start(db.Discover)
		s.Put([]unit.Spec{db}, func(string) <-chan struct{} { return free })
		pass(time.Hour)
		if len(s.Infos()) != 0 || s.recordOf("db").Instance == nil || s.Searched() {
			t.Errorf("it is watched while its worker is being stopped: %+v", s.Infos())
		}
		if err := s.store.Apply(t.Context(), records.DeleteWorker("db-0")); err != nil {
			t.Fatal(err)
		}
		close(free)
		synctest.Wait()
		s.wantShown("db", "running 1002 ready")
		if rec := s.recordOf("db"); rec == nil || rec.Instance != nil || rec.Found == nil {
			t.Errorf("recorded is %+v", rec)
		}
	})
}

func TestAChangedUnitIsCheckedAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld()
		db := unitOf("db")
		f := w.start(db.Discover)
		s := w.open(t, t.TempDir(), db)
		// The same process by another pattern.
		db.Discover = process.Pattern{Name: "db"}
		s.put(db)
		s.wantShown("db", "running 1001 ready")
		s.wantHistory("db", "found")
		// Another process.
		db.Discover = process.Pattern{Port: 5432}
		w.start(db.Discover)
		f.set(func() { f.changed = fmt.Errorf("%w: it does not listen", process.ErrGone) })
		s.put(db)
		pass(firstDelay)
		s.wantShown("db", "running 1002 ready")
		s.wantHistory("db", "found gone found")
	})
}

func TestWhatCannotBeRecordedIsRecordedLater(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld()
		db := unitOf("db")
		s := w.open(t, t.TempDir(), db)
		s.failing(true)
		w.start(db.Discover)
		pass(time.Minute)
		s.wantShown("db", "running 1001 ready")
		s.wantHistory("db", "absent")
		w.end(db.Discover, identity.Exit{})
		pass(time.Minute)
		s.failing(false)
		pass(recordRetry)
		s.wantHistory("db", "absent found gone")
		if rec := s.recordOf("db"); rec == nil || rec.Found != nil {
			t.Errorf("recorded is %+v", rec)
		}
	})
}
