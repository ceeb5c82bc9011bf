package supervisor

import (
	"context"
	"errors"
	"net"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/core-tools/hsu-master/identity"
	"github.com/core-tools/hsu-master/store"
	"github.com/core-tools/hsu-master/store/records"
	"github.com/core-tools/hsu-master/supervisor/process"
	"github.com/core-tools/hsu-master/supervisor/unit"
	"github.com/core-tools/hsu-master/supervisor/worker"
)

func TestStartsEveryWorkerAndHandsThemOutInTurn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		world := newFakeOS(t)
		m := startMaster(t, world, t.TempDir(), 3)
		settle(time.Second)
		seen := map[string]int{}
		for range 6 {
			l, err := m.Acquire(t.Context(), unit.DefaultService, "")
			if err != nil {
				t.Fatal(err)
			}
			seen[l.Worker()]++
			l.End(nil)
		}
		for _, id := range []string{"worker-0", "worker-1", "worker-2"} {
			if seen[id] != 2 {
				t.Errorf("%s got %d of 6 requests, want 2", id, seen[id])
			}
			if w := m.worker(id); w.Status != records.StatusRunning || !w.Ready || w.Adopted || w.Instance.PID == 0 {
				t.Errorf("%s = %+v, want it running", id, w)
			}
		}
		m.stop(nil)
		if n := world.living(); n != 0 {
			t.Errorf("%d processes live after the stop", n)
		}
	})
}

func TestCrashedMasterAdoptsWhatLives(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		world, dir := newFakeOS(t), t.TempDir()
		m := startMaster(t, world, dir, 3)
		settle(time.Second)
		before := m.worker("worker-1")
		m.crash()
		world.of("worker-2").die(identity.Exit{Signal: 9, Source: identity.ExitUnknown})

		m = startMaster(t, world, dir, 3)
		<-m.Recovered()
		settle(time.Second)
		after := m.worker("worker-1")
		if !after.Adopted || after.Instance.PID != before.Instance.PID ||
			after.Instance.Port != before.Instance.Port || !after.Ready {
			t.Errorf("survivor = %+v, want %+v adopted", after, before)
		}
		if n := world.starts("worker-0") + world.starts("worker-1"); n != 2 {
			t.Errorf("survivors were started %d times in all, want 2", n)
		}
		if n := world.starts("worker-2"); n != 2 {
			t.Errorf("the dead one was started %d times, want 2", n)
		}
		w := m.worker("worker-2")
		if w.LastExit == nil || w.LastExit.Source != identity.ExitUnknown || w.Restarts != 1 {
			t.Errorf("the dead one = %+v, want its exit recorded as unknown and one restart", w)
		}
		m.stop(nil)
	})
}

func TestCrashLoopFailsAndARestartOfTheMasterDoesNotRefillItsBudget(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		world, dir := newFakeOS(t), t.TempDir()
		world.behave = func(p *fakeProcess) { p.exitsAfter, p.exitCode, p.readyAfter = time.Millisecond, 3, -1 }
		m := startMaster(t, world, dir, 1, givesUp)
		settle(time.Hour)
		w := m.worker("worker-0")
		if got := world.starts("worker-0"); got != 11 || w.Status != records.StatusFailed {
			t.Errorf("started %d times and is %s, want 11 and failed", got, w.Status)
		}
		if !strings.Contains(w.Reason, "exited with code 3") {
			t.Errorf("reason = %q, want the exit in it", w.Reason)
		}
		if _, err := m.Acquire(t.Context(), unit.DefaultService, ""); !errors.Is(err, ErrNoWorker) {
			t.Errorf("Acquire with all workers failed = %v, want ErrNoWorker at once", err)
		}
		m.stop(nil)

		m = startMaster(t, world, dir, 1, givesUp)
		settle(time.Hour)
		if got := world.starts("worker-0"); got != 11 {
			t.Errorf("started %d times after a restart of the master, want still 11", got)
		}
		m.stop(nil)

		// Another spec has not failed yet.
		m = startMaster(t, world, dir, 1, givesUp, func(u *unit.Spec) { u.Args = []string{"--fixed"} })
		settle(time.Hour)
		if got := world.starts("worker-0"); got != 22 {
			t.Errorf("started %d times with a new spec, want 22", got)
		}
		m.stop(nil)
	})
}

func TestCrashOfTheMasterInTheMiddleOfALoopKeepsCount(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		world, dir := newFakeOS(t), t.TempDir()
		world.behave = func(p *fakeProcess) { p.exitsAfter, p.exitCode, p.readyAfter = time.Millisecond, 3, -1 }
		for range 40 {
			m := startMaster(t, world, dir, 1)
			settle(3 * time.Second)
			m.crash()
		}
		if got := world.starts("worker-0"); got != 11 {
			t.Errorf("started %d times over 40 masters, want 11", got)
		}
	})
}

func TestStartCutOffByACrashIsFoundByItsToken(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		world, dir := newFakeOS(t), t.TempDir()
		m := startMaster(t, world, dir, 1)
		settle(time.Second)
		pid := m.worker("worker-0").Instance.PID
		// This is the record between the fork and the record of the PID.
		rec := m.worker("worker-0").Worker
		cut := *rec.Instance
		cut.PID, cut.Inode = 0, 0
		rec.Instance, rec.Status = &cut, records.StatusStarting
		m.crashWith(rec)

		m = startMaster(t, world, dir, 1)
		settle(time.Second)
		if w := m.worker("worker-0"); w.Instance.PID != pid || w.Status != records.StatusRunning {
			t.Errorf("worker = %+v, want process %d running", w, pid)
		}
		if n := world.starts("worker-0"); n != 1 {
			t.Errorf("started %d times, want 1", n)
		}
		rec.Instance.Token = "of a process that never came to be"
		world.of("worker-0").die(identity.Exit{})
		m.crashWith(rec)

		m = startMaster(t, world, dir, 1)
		settle(time.Second)
		w := m.worker("worker-0")
		if n := world.starts("worker-0"); n != 2 || w.Restarts != 0 || len(w.History.Spent) != 0 {
			t.Errorf("started %d times at a cost of %d, want 2 and none: the master cut the start off", n, w.Restarts)
		}
		m.stop(nil)
	})
}

// crashWith crashes the master and replaces the record by that of another moment.
func (m *master) crashWith(rec records.Worker) {
	m.t.Helper()
	m.end(ErrDetach)
	if err := <-m.ended; err != nil {
		m.t.Error(err)
	}
	if err := m.store.Apply(m.t.Context(), records.PutWorker(rec)); err != nil {
		m.t.Error(err)
	}
	if err := m.store.Close(); err != nil {
		m.t.Error(err)
	}
}

func TestUnverifiableIsHeldAndNeverDoubled(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		world, dir := newFakeOS(t), t.TempDir()
		m := startMaster(t, world, dir, 2)
		settle(time.Second)
		m.crash()
		world.attachErr = process.ErrUnverifiable

		m = startMaster(t, world, dir, 2)
		<-m.Recovered()
		settle(time.Minute)
		if w := m.worker("worker-0"); w.Ready || !strings.HasPrefix(w.Reason, "held") {
			t.Errorf("worker = %+v, want it held", w)
		}
		if n := world.starts("worker-0"); n != 1 {
			t.Errorf("started %d times, want 1: nobody knows whether it lives", n)
		}
		world.mu.Lock()
		world.attachErr = nil
		world.mu.Unlock()
		settle(2 * worker.HoldInterval)
		if w := m.worker("worker-0"); !w.Ready || !w.Adopted || w.Reason != "" {
			t.Errorf("worker = %+v, want it adopted once it can be verified", w)
		}
		m.stop(nil)
	})
}

func TestAnotherBootStartsEverythingAtNoCost(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		world, dir := newFakeOS(t), t.TempDir()
		m := startMaster(t, world, dir, 2)
		settle(time.Second)
		m.crash()
		for _, id := range []string{"worker-0", "worker-1"} {
			world.of(id).die(identity.Exit{})
		}
		world.bootID = "another"
		m = startMaster(t, world, dir, 2)
		settle(time.Second)
		for _, id := range []string{"worker-0", "worker-1"} {
			if w := m.worker(id); !w.Ready || w.Restarts != 0 || world.starts(id) != 2 {
				t.Errorf("%s = %+v after %d starts, want it running at no cost", id, w, world.starts(id))
			}
		}
		m.stop(nil)
	})
}

func TestSilentWorkerIsReplaced(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		world := newFakeOS(t)
		m := startMaster(t, world, t.TempDir(), 1)
		settle(time.Minute)
		p := world.of("worker-0")
		p.set(func() { p.mute, p.ignoresTerm = true, true })
		if w := m.await("worker-0", records.StatusUnhealthy, 15*time.Second); w.Ready {
			t.Errorf("worker is %s and ready after three missed pings", w.Status)
		}
		settle(time.Minute)
		w := m.worker("worker-0")
		if w.Status != records.StatusRunning || w.Instance.PID == p.pid || !p.isDead() {
			t.Errorf("worker = %+v, want it replaced", w)
		}
		if w.LastExit == nil || w.LastExit.Signal != 9 {
			t.Errorf("last exit = %+v, want SIGKILL after its grace", w.LastExit)
		}
		m.stop(nil)
	})
}

func TestSuspendedWorkerIsReportedNotKilled(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		world := newFakeOS(t)
		m := startMaster(t, world, t.TempDir(), 1)
		settle(time.Second)
		p := world.of("worker-0")
		p.set(func() { p.suspended = true })
		settle(time.Hour)
		if w := m.worker("worker-0"); w.Status != records.StatusUnhealthy || p.isDead() ||
			!strings.Contains(w.Reason, "CONT") {
			t.Errorf("worker = %+v, want it unhealthy, alive, and told how to continue it", w)
		}
		p.set(func() { p.suspended = false })
		settle(time.Minute)
		if w := m.worker("worker-0"); !w.Ready || world.starts("worker-0") != 1 {
			t.Errorf("worker = %+v, want it back", w)
		}
		m.stop(nil)
	})
}

// Three missed Pings mean silence because they are sent at intervals; but each lost connection also causes a Ping.
func TestLostConnectionsAreNoMissedPings(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		world := newFakeOS(t)
		m := startMaster(t, world, t.TempDir(), 1)
		settle(time.Second)
		p := world.of("worker-0")
		p.set(func() { p.pingErr = errors.New("connection refused") })
		for range 2 * defaults.Health.Readiness.Missed {
			w := m.set.list()[0]
			w.ConnectionLost(t.Context(), 1, nil)
			settle(time.Millisecond)
		}
		if w := m.worker("worker-0"); w.Ready || w.Status != records.StatusRunning {
			t.Errorf("worker is %s and ready %v, want it out until the next Ping", w.Status, w.Ready)
		}
		m.await("worker-0", records.StatusUnhealthy, defaults.Health.Readiness.Interval+3*time.Second)
		p.set(func() { p.pingErr = nil })
		settle(defaults.Health.Readiness.Interval)
		if w := m.worker("worker-0"); !w.Ready || world.starts("worker-0") != 1 {
			t.Errorf("worker = %+v, want it back", w)
		}
		m.stop(nil)
	})
}

func TestBrokenConnectionIsProvenAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		world := newFakeOS(t)
		m := startMaster(t, world, t.TempDir(), 1)
		settle(time.Second)
		p := world.of("worker-0")
		p.set(func() { p.owner, p.mute = process.PortForeign, true }) // the Ping goes to the other process too
		first := m.set.list()[0]
		first.ConnectionLost(t.Context(), 1, nil)
		settle(defaults.Health.Readiness.Timeout)
		if w := m.worker("worker-0"); w.Ready || w.Status != records.StatusUnhealthy ||
			!strings.Contains(w.Reason, "held by another process") {
			t.Errorf("worker = %+v, want it out and the process on its port named", w)
		}
		p.set(func() { p.owner, p.mute = process.PortOurs, false })
		settle(2 * defaults.Health.Readiness.Interval)
		if w := m.worker("worker-0"); !w.Ready || w.Status != records.StatusRunning {
			t.Errorf("worker is %s and ready %v, want it back once the port is its own", w.Status, w.Ready)
		}
		m.stop(nil)
	})
}

// tcpEnds is a connection of which only the addresses are used.
type tcpEnds struct{ net.Conn }

func (tcpEnds) LocalAddr() net.Addr  { return &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: 1} }
func (tcpEnds) RemoteAddr() net.Addr { return &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: 2} }

// A foreign process beside the worker causes its withdrawal when it gets a connection, and not before.
func TestStrangerOnAWorkersPort(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		world := newFakeOS(t)
		m := startMaster(t, world, t.TempDir(), 1)
		settle(time.Second)
		endpoint := m.Services().Service(unit.DefaultService).Endpoints()[0]
		p := world.of("worker-0")
		for _, owner := range []process.Ownership{process.PortOurs, process.PortUnknown} {
			p.set(func() { p.owner = owner })
			if err := endpoint.Verify(t.Context(), tcpEnds{}); err != nil {
				t.Errorf("%v: %v", owner, err)
			}
		}
		p.set(func() { p.owner = process.PortForeign })
		if err := endpoint.Verify(t.Context(), tcpEnds{}); !errors.Is(err, worker.ErrStranger) {
			t.Errorf("a connection to a stranger: %v", err)
		}
		settle(time.Second)
		if w := m.worker("worker-0"); w.Ready || w.Status != records.StatusUnhealthy ||
			!strings.Contains(w.Reason, "held by another process") {
			t.Errorf("worker = %+v, want it out, and why", w)
		}
		// It is restarted on another port.
		settle(time.Minute)
		if w := m.worker("worker-0"); !w.Ready || world.starts("worker-0") != 2 {
			t.Errorf("worker = %+v, started %d times, want it back", w, world.starts("worker-0"))
		}
		m.stop(nil)
		if err := endpoint.Verify(t.Context(), tcpEnds{}); err == nil {
			t.Error("a connection to a stranger counts after the master has stopped")
		}
	})
}

func TestWorkerThatNeverGetsReady(t *testing.T) {
	for name, test := range map[string]struct {
		behave func(*fakeProcess)
		reason string
	}{
		"port never opens": {func(p *fakeProcess) { p.readyAfter = -1 }, "did not open port"},
		"no Ping answered": {func(p *fakeProcess) { p.mute = true }, "answered no Ping"},
		"port of another":  {func(p *fakeProcess) { p.owner = process.PortForeign }, "held by another process"},
		"cannot be forked": {func(p *fakeProcess) { p.startErr = errors.New("no memory") }, "no memory"},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				world := newFakeOS(t)
				world.behave = test.behave
				m := startMaster(t, world, t.TempDir(), 1, givesUp)
				settle(time.Hour)
				w := m.worker("worker-0")
				if w.Status != records.StatusFailed || !strings.Contains(w.Reason, test.reason) {
					t.Errorf("worker is %s because %q, want failed because it %s", w.Status, w.Reason, test.reason)
				}
				if n := world.starts("worker-0"); n != 11 {
					t.Errorf("started %d times, want 11", n)
				}
				m.stop(nil)
				if n := world.living(); n != 0 {
					t.Errorf("%d processes live after the stop", n)
				}
			})
		})
	}
}

// A program that asks the kernel for a free port listens on it for a moment.
func TestPortThatIsAnothersForAMomentCostsAStartingWorkerNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		world := newFakeOS(t)
		world.behave = func(p *fakeProcess) {
			p.owner = process.PortForeign
			time.AfterFunc(worker.ForeignPatience/2, func() { p.set(func() { p.owner = process.PortOurs }) })
		}
		m := startMaster(t, world, t.TempDir(), 1)
		settle(worker.ForeignPatience / 4)
		if w := m.worker("worker-0"); w.Ready || w.Status != records.StatusStarting {
			t.Errorf("worker is %s and ready %v while another has its port", w.Status, w.Ready)
		}
		settle(worker.ForeignPatience)
		if w := m.worker("worker-0"); !w.Ready || w.Restarts != 0 {
			t.Errorf("worker is %s after %d restarts, want it running and never restarted", w.Status, w.Restarts)
		}
		m.stop(nil)
	})
}

func TestStopKillsAfterTheGraceAndHurryAtOnce(t *testing.T) {
	for name, hurry := range map[string]bool{"grace": false, "hurry": true} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				world := newFakeOS(t)
				world.behave = func(p *fakeProcess) { p.ignoresTerm = true }
				m := startMaster(t, world, t.TempDir(), 5)
				settle(time.Second)
				asked := time.Now()
				if hurry {
					m.Hurry()
				}
				m.stop(nil)
				took := time.Since(asked)
				if n := world.living(); n != 0 {
					t.Errorf("%d processes live after the stop", n)
				}
				if hurry && took > time.Second ||
					!hurry && (took < defaults.Stop.Grace || took > defaults.Stop.Grace+time.Second) {
					t.Errorf("stop of 5 took %v, want one grace for all, or none in a hurry", took)
				}
			})
		})
	}
}

func TestStopGivesDescendantsTheSameGrace(t *testing.T) {
	for name, test := range map[string]struct {
		need   time.Duration
		killed bool
	}{"enough": {3 * time.Second, false}, "too much": {time.Hour, true}} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				world := newFakeOS(t)
				m := startMaster(t, world, t.TempDir(), 1)
				settle(time.Second)
				p := world.of("worker-0")
				p.childrenUntil = time.Now().Add(test.need)
				asked := time.Now()
				m.stop(nil)
				if p.childrenKilled != test.killed {
					t.Errorf("descendants that need %v were killed: %v, want %v",
						test.need, p.childrenKilled, test.killed)
				}
				if took := time.Since(asked); took > defaults.Stop.Grace+time.Second {
					t.Errorf("stop took %v", took)
				}
			})
		})
	}
}

func TestStopWaitsForRequestsInFlight(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		world := newFakeOS(t)
		m := startMaster(t, world, t.TempDir(), 1)
		settle(time.Second)
		lease, err := m.Acquire(t.Context(), unit.DefaultService, "")
		if err != nil {
			t.Fatal(err)
		}
		p := world.of("worker-0")
		time.AfterFunc(3*time.Second, func() {
			if p.isDead() {
				t.Error("the worker was stopped with a request in flight")
			}
			lease.End(nil)
		})
		m.stop(nil)
	})
}

func TestStopChangesNothingThatIsDesired(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		world, dir := newFakeOS(t), t.TempDir()
		m := startMaster(t, world, dir, 1)
		settle(time.Second)
		m.stop(nil)
		snap, err := store.ReadSnapshot(dir)
		if err != nil {
			t.Fatal(err)
		}
		if w := snap.Workers[0]; w.Desired != records.DesiredRunning || w.Status != records.StatusStopped ||
			w.Instance != nil || w.LastExit == nil {
			t.Errorf("recorded %+v, want stopped and still wanted", w)
		}
		m = startMaster(t, world, dir, 1)
		settle(time.Second)
		if w := m.worker("worker-0"); !w.Ready || w.Restarts != 0 {
			t.Errorf("worker = %+v, want it running again at no cost", w)
		}
		m.stop(nil)
	})
}

func TestFewerReplicasStopTheSurplus(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		world, dir := newFakeOS(t), t.TempDir()
		m := startMaster(t, world, dir, 4)
		settle(time.Second)
		m.crash()
		m = startMaster(t, world, dir, 2)
		settle(time.Second)
		if n := world.living(); n != 2 {
			t.Errorf("%d processes live, want 2", n)
		}
		if n := len(m.Workers()); n != 2 {
			t.Errorf("%d workers are listed, want 2", n)
		}
		m.stop(nil)
		snap, err := store.ReadSnapshot(dir)
		if err != nil || len(snap.Workers) != 2 {
			t.Errorf("%d workers are recorded (%v), want 2", len(snap.Workers), err)
		}
	})
}

// No operator asked for a stop: there was only no room for the worker for a while.
func TestSurplusThatIsWantedAgainBeforeItIsGoneIsStartedAgain(t *testing.T) {
	for name, stubborn := range map[string]bool{"it was being stopped": true, "it was stopped": false} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				world, dir := newFakeOS(t), t.TempDir()
				world.behave = func(p *fakeProcess) {
					p.ignoresTerm = stubborn && p.worker == "worker-1" && world.started["worker-1"] == 1
				}
				m := startMaster(t, world, dir, 2)
				settle(time.Second)
				m.crash()
				m = startMaster(t, world, dir, 1)
				settle(time.Second)
				if stubborn {
					if w := m.worker("worker-1"); w.Status != records.StatusStopping ||
						w.Desired != records.DesiredRunning {
						t.Errorf("the surplus = %+v, want it to be stopped, and no word of what is desired", w)
					}
				}
				m.crash()
				m = startMaster(t, world, dir, 2)
				settle(time.Minute)
				if w := m.worker("worker-1"); w.Status != records.StatusRunning || world.starts("worker-1") != 2 {
					t.Errorf("the worker that is wanted again = %+v, started %d times, want it to run",
						w, world.starts("worker-1"))
				}
				m.stop(nil)
			})
		})
	}
}

func TestAcquire(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		world := newFakeOS(t)
		world.behave = func(p *fakeProcess) { p.readyAfter = 5 * time.Second }
		m := startMaster(t, world, t.TempDir(), 1)
		impatient, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if _, err := m.Acquire(impatient, unit.DefaultService, ""); !errors.Is(err, ErrNoWorker) ||
			!errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("Acquire before any is ready = %v, want ErrNoWorker with the deadline", err)
		}
		lease, err := m.Acquire(t.Context(), unit.DefaultService, "") // waits
		if err != nil {
			t.Fatal(err)
		}
		if _, err := m.TryAcquire(unit.DefaultService, "", lease.Worker()); !errors.Is(err, ErrNoWorker) {
			t.Errorf("TryAcquire except the only one = %v, want ErrNoWorker", err)
		}
		lease.End(nil)
		m.stop(nil)
	})
}

func TestAcquireBoundsWhoWaits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		world := newFakeOS(t)
		world.behave = func(p *fakeProcess) { p.readyAfter = -1 }
		m := startMaster(t, world, t.TempDir(), 1)
		settle(time.Second)
		ctx, cancel := context.WithCancel(t.Context())
		for range 1024 {
			go func() { _, _ = m.Acquire(ctx, unit.DefaultService, "") }()
		}
		synctest.Wait()
		if _, err := m.Acquire(ctx, unit.DefaultService, ""); !errors.Is(err, ErrBusy) {
			t.Errorf("one too many: %v, want ErrBusy", err)
		}
		cancel()
		synctest.Wait()
		if n := m.Services().Service(unit.DefaultService).Info().Waiting; n != 0 {
			t.Errorf("%d still count as waiting", n)
		}
		m.stop(nil)
	})
}

func TestLivenessAnswersWhileServingAndStopping(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		world := newFakeOS(t)
		world.behave = func(p *fakeProcess) { p.ignoresTerm = true }
		m := startMaster(t, world, t.TempDir(), 1)
		settle(time.Second)
		asked := func() error {
			ctx, cancel := context.WithTimeout(t.Context(), time.Second)
			defer cancel()
			return m.Alive(ctx)
		}
		if err := asked(); err != nil {
			t.Errorf("while serving: %v", err)
		}
		m.end(nil)
		settle(time.Second)
		if err := asked(); err != nil {
			t.Errorf("while stopping: %v", err)
		}
		if err := <-m.ended; err != nil {
			t.Error(err)
		}
		if err := asked(); err == nil {
			t.Error("answers after it has ended")
		}
		if err := m.store.Close(); err != nil {
			t.Error(err)
		}
	})
}
