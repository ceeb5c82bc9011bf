package supervisor

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/core-tools/hsu-master/identity"
	"github.com/core-tools/hsu-master/store/records"
	"github.com/core-tools/hsu-master/supervisor/unit"
)

// away makes every process that is started before that time exit at once, as if its database were away.
func away(world *fakeOS, until time.Time) {
	world.behave = func(p *fakeProcess) {
		if time.Now().Before(until) {
			p.exitsAfter, p.exitCode, p.readyAfter = time.Millisecond, 3, -1
		}
	}
}

// A worker whose database is away uses up its budget, and is back by itself soon after the database is.
func TestWorkerWhoseDatabaseWasAwayComesBack(t *testing.T) {
	for name, test := range map[string]struct {
		away, back time.Duration // back: at the latest, after the database
		starts     int           // at most, while the database is away
	}{
		// 11 starts use up the budget; then there is one after 5, 10, 20 and 30 minutes, and so on.
		"ten minutes": {10 * time.Minute, 10 * time.Minute, 12},
		"a day":       {24 * time.Hour, 30 * time.Minute, 11 + 3 + 2*24},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				world := newFakeOS(t)
				away(world, time.Now().Add(test.away))
				m := startMaster(t, world, t.TempDir(), 1)
				settle(test.away - time.Second)
				w := m.worker("worker-0")
				if w.Status != records.StatusFailed || w.Restarts != 10 ||
					!strings.Contains(w.Reason, "10/5m used up") {
					t.Errorf("worker = %+v, want it failed with its budget used up", w)
				}
				if until := time.Until(w.RetryAt); until <= 0 || until > test.back {
					t.Errorf("it is tried again in %s, want it within %s", until, test.back)
				}
				if n := world.starts("worker-0"); n > test.starts {
					t.Errorf("started %d times within %s, want at most %d", n, test.away, test.starts)
				}
				if _, err := m.Acquire(t.Context(), unit.DefaultService, ""); !errors.Is(err, ErrNoWorker) ||
					errors.Is(err, context.DeadlineExceeded) {
					t.Errorf("Acquire = %v, want ErrNoWorker at once", err)
				}
				tries := world.starts("worker-0")
				settle(test.back + 2*time.Second)
				more := world.starts("worker-0") - tries
				if w := m.worker("worker-0"); !w.Ready || more != 1 {
					t.Errorf("worker = %+v after %d more starts, want it back with one", w, more)
				}
				settle(2 * time.Minute)
				if w := m.worker("worker-0"); len(w.History.Spent) != 0 || w.History.FailedWait != 0 {
					t.Errorf("history = %+v after two minutes of being ready, want the whole budget", w.History)
				}
				m.stop(nil)
			})
		})
	}
}

// Masters that come and go neither shorten nor lengthen the wait of a failed worker.
func TestRestartsOfTheMasterDoNotMoveTheTryOfAFailedWorker(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		world, dir := newFakeOS(t), t.TempDir()
		away(world, time.Now().Add(24*time.Hour))
		m := startMaster(t, world, dir, 1)
		due := m.await("worker-0", records.StatusFailed, 5*time.Minute).RetryAt
		for time.Until(due) > 31*time.Second {
			m.crash()
			time.Sleep(20 * time.Second)
			m = startMaster(t, world, dir, 1)
			settle(10 * time.Second)
			if got := m.worker("worker-0").RetryAt; got.Sub(due).Abs() > time.Millisecond {
				t.Fatalf("the try is due at %s, want it at %s", got, due)
			}
		}
		before := world.starts("worker-0")
		settle(time.Until(due) - time.Second)
		if n := world.starts("worker-0"); n != before {
			t.Errorf("tried %d times before it was due", n-before)
		}
		settle(2 * time.Second)
		if n := world.starts("worker-0"); n != before+1 {
			t.Errorf("tried %d times when it was due, want once", n-before)
		}
		if wait := m.worker("worker-0").History.FailedWait; wait != 2*defaults.Restart.RetryFailed {
			t.Errorf("the next wait is %s, want twice the first", wait)
		}
		m.stop(nil)
	})
}

// A change of retry_failed reaches a worker that has failed.
func TestApplyHasAFailedWorkerTriedAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		world := newFakeOS(t)
		away(world, time.Now().Add(10*time.Minute))
		m := startMaster(t, world, t.TempDir(), 1, givesUp)
		settle(time.Hour)
		if w := m.worker("worker-0"); w.Status != records.StatusFailed || !w.RetryAt.IsZero() {
			t.Fatalf("worker = %+v, want it given up", w)
		}
		u := unitOf(t, "worker", 1)
		u.Restart.RetryFailed = time.Minute
		if err := m.Apply(t.Context(), u); err != nil {
			t.Fatal(err)
		}
		settle(62 * time.Second)
		if w := m.worker("worker-0"); !w.Ready {
			t.Errorf("worker = %+v, want it back after a minute", w)
		}
		m.stop(nil)
	})
}

// A change of a key that can keep a worker from getting ready has a failed worker tried at once, with its whole budget.
// Other changes leave it its wait.
func TestApplyHasAWorkerTriedWhoseCheckIsMended(t *testing.T) {
	for name, test := range map[string]struct {
		change func(u *unit.Spec)
		tried  bool
	}{
		"health":        {func(u *unit.Spec) { u.Health.Readiness.Service = "acme.Search" }, true},
		"start timeout": {func(u *unit.Spec) { u.Start.Timeout = time.Minute }, true},
		"limits":        {func(u *unit.Spec) { u.Limits.PIDs = 100 }, true},
		"stop grace":    {func(u *unit.Spec) { u.Stop.Grace = time.Minute }, false},
		"nothing":       {func(*unit.Spec) {}, false},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				world := newFakeOS(t)
				world.behave = func(p *fakeProcess) { p.readyAfter = -1 }
				m := startMaster(t, world, t.TempDir(), 1)
				m.await("worker-0", records.StatusFailed, time.Hour)
				starts := world.starts("worker-0")
				world.set(func() { world.behave = nil })
				u := unitOf(t, "worker", 1)
				test.change(&u)
				if err := m.Apply(t.Context(), u); err != nil {
					t.Fatal(err)
				}
				settle(2 * time.Second)
				w, more := m.worker("worker-0"), world.starts("worker-0")-starts
				if w.Ready != test.tried || (more == 1) != test.tried || (len(w.History.Spent) == 0) != test.tried {
					t.Errorf("worker = %+v after %d more starts, want it tried: %t", w, more, test.tried)
				}
				m.stop(nil)
			})
		})
	}
}

// A master that is killed when the change is recorded, and before it has begun to start the worker anew, is followed by
// one that starts it. That costs one start, also if the master is killed again.
func TestKilledApplyHasAFailedWorkerTriedByTheNextMaster(t *testing.T) {
	fails := func(p *fakeProcess) { p.readyAfter = -1 }
	for name, test := range map[string]struct {
		begin   func(p *fakeProcess)
		before  func(u *unit.Spec)
		change  func(u *unit.Spec)
		started bool
	}{
		"command": {fails, givesUp, func(u *unit.Spec) { u.Args = []string{"--mended"} }, true},
		"health":  {fails, givesUp, func(u *unit.Spec) { u.Health.Readiness.Service = "acme.Search" }, true},
		"start":   {fails, givesUp, func(u *unit.Spec) { u.Start.Timeout = time.Minute }, true},
		"policy": {
			func(p *fakeProcess) { p.exitsAfter = time.Second }, onFailure,
			func(u *unit.Spec) { u.Restart.Mode = unit.RestartAlways }, true,
		},
		"stop":    {fails, givesUp, func(u *unit.Spec) { u.Stop.Grace = time.Minute }, false},
		"nothing": {fails, givesUp, func(*unit.Spec) {}, false},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				world, dir := newFakeOS(t), t.TempDir()
				world.behave = test.begin
				m := startMaster(t, world, dir, 1, test.before)
				settle(time.Hour)
				w, starts := m.worker("worker-0"), world.starts("worker-0")
				if w.Status != records.StatusFailed && w.Status != records.StatusCompleted {
					t.Fatalf("worker = %+v, want it failed or completed", w)
				}
				world.set(func() { world.behave = nil })
				u := unitOf(t, "worker", 1)
				test.before(&u)
				test.change(&u)
				_ = m.ApplyReporting(t.Context(), m.crash, u) // fails, or has nothing to do any more
				if n := world.starts("worker-0"); n != starts {
					t.Fatalf("%d starts before the crash, want none", n-starts)
				}
				m = startUnits(t, world, openStore(t, world, dir), u)
				for range 2 { // the next one continues nothing
					settle(2 * time.Second)
					w, more := m.worker("worker-0"), world.starts("worker-0")-starts
					if w.Ready != test.started || (more == 1) != test.started {
						t.Errorf("worker = %+v after %d more starts, want it started: %t", w, more, test.started)
					}
					if rest := m.rollouts(t); len(rest) > 0 {
						t.Errorf("rollouts %v are left", rest)
					}
					m.crash()
					m = startUnits(t, world, openStore(t, world, dir), u)
				}
				m.stop(nil)
			})
		})
	}
}

// A worker that is not mended by the change of its unit stops the reload, which has waited for it.
func TestApplyWaitsForAFailedWorkerThatItTries(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		world := newFakeOS(t)
		world.behave = func(p *fakeProcess) { p.readyAfter = -1 }
		m := startMaster(t, world, t.TempDir(), 1, givesUp)
		m.await("worker-0", records.StatusFailed, time.Hour)
		u := unitOf(t, "worker", 1)
		givesUp(&u)
		u.Start.Timeout = time.Minute
		if err := m.Apply(t.Context(), u); err == nil || !strings.Contains(err.Error(), "worker-0 is not ready") {
			t.Errorf("Apply = %v, want that the worker is not ready", err)
		}
		m.await("worker-0", records.StatusFailed, time.Hour)
		world.set(func() { world.behave = nil })
		u.Start.Timeout = 2 * time.Minute
		if err := m.Apply(t.Context(), u); err != nil {
			t.Error(err)
		}
		if w := m.worker("worker-0"); !w.Ready {
			t.Errorf("worker = %+v, want it ready when Apply returns", w)
		}
		if rest := m.rollouts(t); len(rest) > 0 {
			t.Errorf("rollouts %v are left", rest)
		}
		m.stop(nil)
	})
}

// A failed worker that the reload mends is tried before the new ones that depend on it are awaited.
func TestApplyTriesAMendedWorkerBeforeItsNewDependents(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		world := newFakeOS(t)
		world.behave = func(p *fakeProcess) { p.readyAfter = -1 }
		db := dependent(t, "db")
		givesUp(&db)
		m := startUnits(t, world, openStore(t, world, t.TempDir()), db)
		m.await("db-0", records.StatusFailed, time.Hour)
		world.set(func() { world.behave = nil })
		db.Health.Readiness.Service = "acme.Search"
		units := []unit.Spec{db, dependent(t, "app", "db ready")}
		changes, err := m.Changes(t.Context(), units...)
		if err != nil || !slices.ContainsFunc(changes, func(c Change) bool {
			return c.Action == ActionRetry && slices.Equal(c.Workers, []string{"db-0"})
		}) {
			t.Errorf("Changes = %+v, %v, want that db-0 is tried again", changes, err)
		}
		if err := m.Apply(t.Context(), units...); err != nil {
			t.Errorf("Apply = %v", err)
		}
		if got := m.ids(); got != "db-0 running, app-0 running" {
			t.Errorf("workers are %s", got)
		}
		if got := m.rolled(t, "reload-"); !slices.Equal(got, []string{"reload-completed db"}) {
			t.Errorf("events are %q, want the try recorded", got)
		}
		m.stop(nil)
	})
}

// A reload that stops before it has reached the failed worker leaves the try to the next one, which waits for it too.
func TestApplyAfterAStoppedOneWaitsForTheWorkerThatItTries(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		world, dir := newFakeOS(t), t.TempDir()
		world.behave = func(p *fakeProcess) { p.readyAfter = -1 }
		m := startMaster(t, world, dir, 1, givesUp)
		m.await("worker-0", records.StatusFailed, time.Hour)
		world.set(func() {
			world.behave = func(p *fakeProcess) {
				p.exitsAfter, p.exitCode, p.readyAfter = time.Second, 3, -1
				if p.worker == "worker-0" {
					p.exitsAfter, p.readyAfter = 0, time.Since(world.birth)+20*time.Second
				}
			}
		})
		u := unitOf(t, "worker", 1)
		givesUp(&u)
		u.Start.Timeout = time.Minute
		err := m.Apply(t.Context(), u, unitOf(t, "new", 1))
		if err == nil || !strings.Contains(err.Error(), "new-0 is not ready") {
			t.Errorf("Apply = %v, want that new-0 has failed", err)
		}
		if w := m.worker("worker-0"); w.Status != records.StatusFailed {
			t.Fatalf("worker = %+v, want it not tried yet", w)
		}
		changes, err := m.Changes(t.Context(), u)
		if err != nil || len(changes) != 2 || changes[0].Action != ActionRetry {
			t.Errorf("Changes = %+v, %v, want the try", changes, err)
		}
		if err := m.Apply(t.Context(), u); err != nil {
			t.Errorf("Apply = %v", err)
		}
		if w := m.worker("worker-0"); !w.Ready {
			t.Errorf("worker = %+v, want it ready when Apply returns", w)
		}
		m.stop(nil)
	})
}

// A recorded try whose program has gone when the next master makes it has failed: it is not forgotten as completed.
func TestResumedTryStopsIfAProgramIsMissing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		world, dir := newFakeOS(t), t.TempDir()
		world.behave = func(p *fakeProcess) { p.readyAfter = -1 }
		m := startMaster(t, world, dir, 1, givesUp)
		m.await("worker-0", records.StatusFailed, time.Hour)
		world.set(func() { world.behave = nil })
		u := unitOf(t, "worker", 1)
		givesUp(&u)
		u.Start.Timeout, u.Start.Before = time.Minute, []string{filepath.Join(t.TempDir(), "program")}
		if err := os.Symlink(u.Path, u.Start.Before[0]); err != nil {
			t.Fatal(err)
		}
		_ = m.ApplyReporting(t.Context(), m.crash, u) // fails, or has nothing to do any more
		if err := os.Remove(u.Start.Before[0]); err != nil {
			t.Fatal(err)
		}
		m = startUnits(t, world, openStore(t, world, dir), u)
		settle(time.Minute)
		got := m.rolled(t, "reload-")
		if len(got) != 2 || !strings.HasPrefix(got[1], "reload-stopped worker: ") ||
			!strings.Contains(got[1], "worker-0 cannot be started: start.before: ") {
			t.Errorf("events are %q, want that the try has stopped", got)
		}
		if w := m.worker("worker-0"); w.Ready {
			t.Errorf("worker = %+v, want it not started", w)
		}
		m.stop(nil)
	})
}

// A completed worker whose policy is now "always" is started again.
func TestApplyStartsACompletedWorkerIfItsPolicyIsAlwaysNow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		world := newFakeOS(t)
		world.behave = func(p *fakeProcess) { p.exitsAfter = time.Second }
		m := startMaster(t, world, t.TempDir(), 1, onFailure)
		settle(time.Minute)
		if w := m.worker("worker-0"); w.Status != records.StatusCompleted {
			t.Fatalf("worker = %+v, want it completed", w)
		}
		world.set(func() { world.behave = nil })
		if err := m.Apply(t.Context(), unitOf(t, "worker", 1)); err != nil {
			t.Fatal(err)
		}
		settle(time.Second)
		if w := m.worker("worker-0"); !w.Ready || w.Incarnation != 2 {
			t.Errorf("worker = %+v, want it running again", w)
		}
		m.stop(nil)
	})
}

func onFailure(u *unit.Spec) {
	u.Restart.Mode, u.Restart.SuccessCodes = unit.RestartOnFailure, []int{0, 7}
}

// A worker that has done its work stays completed, also for the next master, until its unit changes.
func TestCompletedWorkerIsNotStartedAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		world, dir := newFakeOS(t), t.TempDir()
		m := startMaster(t, world, dir, 1, onFailure)
		settle(time.Minute)
		world.of("worker-0").die(identity.Exit{Code: 7, Source: identity.ExitWait})
		settle(time.Minute)
		check := func(what string) {
			t.Helper()
			w, starts := m.worker("worker-0"), world.starts("worker-0")
			if w.Status != records.StatusCompleted || w.Reason != "exited with code 7" || starts != 1 {
				t.Errorf("%s: worker = %+v after %d starts, want it completed", what, w, starts)
			}
		}
		check("at once")
		if _, err := m.Acquire(t.Context(), unit.DefaultService, ""); !errors.Is(err, ErrNoWorker) {
			t.Errorf("Acquire = %v, want ErrNoWorker at once", err)
		}
		for _, end := range []error{ErrDetach, nil} {
			m.stop(end)
			m = startMaster(t, world, dir, 1, onFailure)
			settle(time.Minute)
			check("after a restart of the master")
		}
		u := unitOf(t, "worker", 1)
		onFailure(&u)
		if err := m.Apply(t.Context(), u); err != nil {
			t.Fatal(err)
		}
		check("after Apply of the same unit")
		u.Args = []string{"--again"}
		if err := m.Apply(t.Context(), u); err != nil {
			t.Fatal(err)
		}
		settle(time.Second)
		if w := m.worker("worker-0"); !w.Ready || world.starts("worker-0") != 2 {
			t.Errorf("worker = %+v, want the changed unit started", w)
		}
		m.stop(nil)
	})
}

// A call that waits for a worker to get ready ends when the worker completes or fails instead.
func TestCallDoesNotWaitForAWorkerThatHasEnded(t *testing.T) {
	for code, want := range map[int]records.Status{0: records.StatusCompleted, 3: records.StatusFailed} {
		synctest.Test(t, func(t *testing.T) {
			world := newFakeOS(t)
			world.behave = func(p *fakeProcess) { p.readyAfter, p.exitsAfter, p.exitCode = -1, 5*time.Second, code }
			m := startMaster(t, world, t.TempDir(), 1, func(u *unit.Spec) { u.Restart.Mode = unit.RestartNever })
			settle(time.Second)
			ended := make(chan error, 1)
			go func() {
				_, err := m.Acquire(t.Context(), unit.DefaultService, "")
				ended <- err
			}()
			m.await("worker-0", want, 10*time.Second)
			select {
			case err := <-ended:
				if !errors.Is(err, ErrNoWorker) {
					t.Errorf("Acquire = %v, want ErrNoWorker", err)
				}
			default:
				t.Errorf("a call waits for a worker that is %s", want)
			}
			m.stop(nil)
		})
	}
}

// Only the codes of the unit are a success; the death by a signal never is.
func TestExitsThatAreNoSuccess(t *testing.T) {
	for name, exit := range map[string]identity.Exit{
		"another code": {Code: 1, Source: identity.ExitWait},
		"a signal":     {Signal: 15, Source: identity.ExitWait},
		"unknown":      {},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				world := newFakeOS(t)
				m := startMaster(t, world, t.TempDir(), 1, onFailure)
				settle(time.Minute)
				world.of("worker-0").die(exit)
				settle(time.Minute)
				if n := world.starts("worker-0"); n != 2 {
					t.Errorf("started %d times, want it restarted", n)
				}
				m.stop(nil)
			})
		})
	}
}

// A worker with the policy never that has failed is not tried again.
func TestWorkerThatIsNeverRestartedStaysFailed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		world, dir := newFakeOS(t), t.TempDir()
		never := func(u *unit.Spec) { u.Restart.Mode = unit.RestartNever }
		m := startMaster(t, world, dir, 1, never)
		settle(time.Minute)
		world.of("worker-0").die(identity.Exit{Code: 3, Source: identity.ExitWait})
		for range 2 {
			settle(24 * time.Hour)
			if w := m.worker("worker-0"); w.Status != records.StatusFailed || !w.RetryAt.IsZero() {
				t.Errorf("worker = %+v, want it failed", w)
			}
			m.stop(nil)
			m = startMaster(t, world, dir, 1, never)
		}
		m.stop(nil)
		if n := world.starts("worker-0"); n != 1 {
			t.Errorf("started %d times", n)
		}
	})
}

// A machine that was suspended wakes up with the wait of a failed worker over, or shorter by that time.
func TestWaitOfAFailedWorkerCountsSuspendedTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		world := newFakeOS(t)
		away(world, time.Now().Add(5*time.Minute))
		m := startMaster(t, world, t.TempDir(), 1, func(u *unit.Spec) { u.Restart.RetryFailed = 25 * time.Minute })
		m.await("worker-0", records.StatusFailed, 10*time.Minute)
		settle(time.Minute)
		tries := world.starts("worker-0")
		world.suspended.Add(int64(10 * time.Minute))
		settle(2 * time.Minute)
		if n := world.starts("worker-0"); n != tries {
			t.Errorf("tried %d times before it was due", n-tries)
		}
		if w := m.worker("worker-0"); time.Until(w.RetryAt) > 13*time.Minute {
			t.Errorf("it is tried again in %s, want the suspended time counted", time.Until(w.RetryAt))
		}
		world.suspended.Add(int64(12 * time.Minute))
		settle(time.Minute + time.Second)
		if w := m.worker("worker-0"); !w.Ready || world.starts("worker-0") != tries+1 {
			t.Errorf("worker = %+v after %d tries, want it ready after one", w, world.starts("worker-0")-tries)
		}
		m.stop(nil)
	})
}
