package supervisor

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/core-tools/hsu-master/identity"
	"github.com/core-tools/hsu-master/store/records"
	"github.com/core-tools/hsu-master/supervisor/launcher"
	"github.com/core-tools/hsu-master/supervisor/process/oneshot"
	"github.com/core-tools/hsu-master/supervisor/unit"
)

// fakeHook is one run of a command of a hook.
type fakeHook struct {
	id, token string
	command   launcher.Command
	takes     time.Duration // <0: until it is killed
	code      int
	immortal  time.Duration // how long it survives its kill
}

// runHook runs a command beside which neither another run of it nor, except for stop.command, the worker may live.
func (o *fakeOS) runHook(ctx context.Context, h *fakeHook) (oneshot.Ran, error) {
	worker, kind, _ := unit.HookOf(h.id)
	o.mu.Lock()
	for _, p := range o.processes {
		lives := !p.isDead() && !p.elsewhere
		if lives && (strings.HasPrefix(p.worker, worker+"/") || p.worker == worker && kind != unit.AtStop) {
			o.t.Errorf("%s runs beside process %d of %s", h.id, p.pid, p.worker)
		}
	}
	if o.hooks == nil {
		o.hooks = map[string]bool{}
	}
	if o.hooks[h.id] && o.hookErr == nil {
		o.t.Errorf("%s runs twice", h.id)
	}
	o.hooks[h.id] = true
	o.acts = append(o.acts, "begin "+h.id)
	if o.onHook != nil {
		o.onHook(h)
	}
	err := o.hookErr
	o.mu.Unlock()
	if err != nil {
		h.takes = 0
	}
	var over <-chan time.Time
	if h.takes >= 0 {
		over = time.After(h.takes)
	}
	how := "end "
	select {
	case <-over:
	case <-ctx.Done():
		how = "cut "
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	o.acts = append(o.acts, how+h.id)
	delete(o.hooks, h.id)
	ran := oneshot.Ran{Cut: how == "cut ", At: time.Now(), Exit: identity.Exit{Code: h.code, Source: identity.ExitWait}}
	if h.immortal > 0 {
		p := &fakeProcess{
			os: o, pid: 1000 + len(o.processes), worker: h.id, rec: records.Instance{Token: h.token},
			immortalUntil: time.Now().Add(h.immortal), done: make(chan struct{}),
		}
		o.processes[p.pid] = p
		return ran, fmt.Errorf("%w: process %d", oneshot.ErrSurvived, p.pid)
	}
	return ran, err
}

// allHooks gives the unit each of the hooks.
func allHooks(u *unit.Spec) {
	for _, command := range []*[]string{&u.Start.Before, &u.Stop.Command, &u.Stop.After} {
		*command = []string{"/bin/sh", "{worker}"}
	}
}

// wantActs checks the acts since the last call.
func (o *fakeOS) wantActs(want ...string) {
	o.t.Helper()
	o.mu.Lock()
	defer o.mu.Unlock()
	if diff := cmp.Diff(want, o.acts); diff != "" {
		o.t.Errorf("acts (-want +got):\n%s", diff)
	}
	o.acts = nil
}

// hang makes one hook take longer than any test, and the others none.
func hang(id string) func(*fakeHook) {
	return func(h *fakeHook) {
		if h.id == id {
			h.takes = -1
		}
	}
}

const (
	beforeID = "worker-0/before"
	stopID   = "worker-0/stop"
	afterID  = "worker-0/after"
)

func TestHooksRunAroundEachInstance(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		world := newFakeOS(t)
		var seen []launcher.Command
		world.onHook = func(h *fakeHook) {
			h.takes = time.Second
			seen = append(seen, h.command)
		}
		m := startMaster(t, world, t.TempDir(), 1, allHooks)
		settle(500 * time.Millisecond)
		if w := m.worker("worker-0"); w.Status != records.StatusStarting || w.WaitingFor != "start.before /bin/sh" ||
			w.Port == 0 || w.Instance != nil {
			t.Errorf("worker = %+v, want it waiting for start.before with its port", w)
		}
		settle(time.Second)
		world.wantActs("begin "+beforeID, "end "+beforeID, "start worker-0")
		first := world.of("worker-0")
		first.die(identity.Exit{Signal: syscall.SIGSEGV, Source: identity.ExitWait})
		died := time.Now()
		settle(500 * time.Millisecond)
		if w := m.worker("worker-0"); w.Ready || w.WaitingFor != "stop.after /bin/sh" || w.Instance == nil {
			t.Errorf("worker = %+v, want it waiting for stop.after, with its instance recorded", w)
		}
		settle(4 * time.Second)
		world.wantActs("begin "+afterID, "end "+afterID, "begin "+beforeID, "end "+beforeID, "start worker-0")
		if w := m.worker("worker-0"); !w.Ready || w.WaitingFor != "" || !w.LastExit.At.Equal(died) {
			t.Errorf("worker = %+v, want it ready, and its end at %s", w, died)
		}
		pid := world.of("worker-0").pid
		m.stop(nil)
		world.wantActs("begin "+stopID, "end "+stopID, "terminate worker-0", "begin "+afterID, "end "+afterID)

		if len(seen) != 5 {
			t.Fatalf("%d commands were run, want 5", len(seen))
		}
		port := fmt.Sprintf("HSU_WORKER_PORT=%d", first.rec.Port)
		for i, more := range [][]string{
			nil, {"HSU_EXIT_SIGNAL=SIGSEGV"}, nil, {fmt.Sprintf("HSU_WORKER_PID=%d", pid)}, {"HSU_EXIT_CODE=0"},
		} {
			c := seen[i]
			if !slices.Equal(c.Env, append([]string{port}, more...)) || !slices.Equal(c.Args, []string{"worker-0"}) ||
				c.Log != "worker-0" {
				t.Errorf("command %d = %+v, want %q in its environment", i, c, more)
			}
		}
	})
}

// A worker's goroutine answers while a hook runs, and the others start.
func TestHookBlocksNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		world := newFakeOS(t)
		world.onHook = hang(beforeID)
		m := startMaster(t, world, t.TempDir(), 2, allHooks)
		settle(time.Second)
		if w := m.worker("worker-1"); !w.Ready {
			t.Errorf("worker-1 = %+v, want it ready", w)
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if err := m.Alive(ctx); err != nil {
			t.Error(err)
		}
		began := time.Now()
		m.stop(nil)
		if took := time.Since(began); took > time.Second {
			t.Errorf("the stop took %s", took)
		}
		if n := world.starts("worker-0"); n != 0 {
			t.Errorf("worker-0 was started %d times, want that its start was called off", n)
		}
	})
}

func TestFailedStartBeforeCostsBudget(t *testing.T) {
	for name, c := range map[string]struct {
		hook   fakeHook
		reason string
	}{
		"exit code": {fakeHook{code: 3}, "start.before: exit code 3"},
		"timeout":   {fakeHook{takes: -1}, "start.before: it did not end within 30s"},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				world := newFakeOS(t)
				world.onHook = func(h *fakeHook) { h.takes, h.code = c.hook.takes, c.hook.code }
				m := startMaster(t, world, t.TempDir(), 1, allHooks)
				w := m.await("worker-0", records.StatusFailed, time.Hour)
				if w.Reason != "restart budget 10/5m used up: "+c.reason || w.Incarnation != 0 || w.Restarts != 10 {
					t.Errorf("worker = %+v, want its budget used up by %s", w, c.reason)
				}
				snap, err := m.store.Snapshot()
				if err != nil {
					t.Fatal(err)
				}
				told := 0
				for _, e := range snap.Events {
					if e.Type == "hook-failed" && e.Detail == c.reason {
						told++
					}
				}
				if told != 11 {
					t.Errorf("%d failures are in the history, want 11", told)
				}
				// It may have been mended: whether it was can only be found by another try.
				world.set(func() { world.onHook = nil })
				if err := m.Apply(t.Context(), unitWith(t, allHooks)); err != nil {
					t.Error(err)
				}
				settle(time.Second)
				if w := m.worker("worker-0"); !w.Ready || len(w.History.Spent) != 0 {
					t.Errorf("worker = %+v, want it ready after a reload", w)
				}
				m.stop(nil)
			})
		})
	}
}

// unitWith returns the unit of the tests with changes.
func unitWith(t *testing.T, change ...func(*unit.Spec)) unit.Spec {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	u := unit.Spec{Name: "worker", Path: self, Replicas: 1}
	for _, c := range change {
		c(&u)
	}
	return *u.WithDefaults()
}

// Each hook is cut off by a crash, and is run again by the next master when its remains were killed.
func TestHookThatACrashHasCutOffRunsAgain(t *testing.T) {
	for id, c := range map[string]struct {
		begin func(*fakeOS, *master)
		acts  []string
	}{
		beforeID: {func(*fakeOS, *master) {}, []string{"start worker-0"}},
		stopID: {
			func(_ *fakeOS, m *master) { _, _ = m.set.list()[0].Replace(m.t.Context(), "for a test", nil) },
			[]string{
				"terminate worker-0", "begin " + afterID, "end " + afterID, "begin " + beforeID, "end " + beforeID,
				"start worker-0",
			},
		},
		afterID: {
			func(o *fakeOS, _ *master) { o.of("worker-0").die(identity.Exit{Signal: 9, Source: identity.ExitWait}) },
			[]string{"begin " + beforeID, "end " + beforeID, "start worker-0"},
		},
	} {
		t.Run(id, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				world, dir := newFakeOS(t), t.TempDir()
				world.onHook = hang(id)
				m := startMaster(t, world, dir, 1, allHooks)
				settle(time.Second)
				world.masterID, world.stateDir = m.store.MasterID(), m.store.StateDirID().String()
				c.begin(world, m)
				settle(time.Second)
				m.crash()
				// A killed master kills nothing: its command lives, and for a while it cannot be killed.
				held := time.Now().Add(10 * time.Second)
				world.plant(&fakeProcess{worker: id, rec: records.Instance{Token: "left"}, immortalUntil: held})
				world.set(func() { world.acts, world.onHook = nil, nil })

				m = startMaster(t, world, dir, 1, allHooks)
				settle(5 * time.Second)
				if w := m.worker("worker-0"); !strings.HasPrefix(w.Reason, "held: ") || w.Ready {
					t.Errorf("worker = %+v, want it held", w)
				}
				world.wantActs()
				settle(10 * time.Second)
				if w := m.worker("worker-0"); !w.Ready || w.Restarts > 1 {
					t.Errorf("worker = %+v, want it ready", w)
				}
				acts := world.did()
				if len(acts) == 0 || !strings.HasPrefix(acts[0], "kill ") {
					t.Fatalf("acts = %q, want the command killed first", acts)
				}
				world.set(func() { world.acts = world.acts[1:] })
				world.wantActs(append([]string{"begin " + id, "end " + id}, c.acts...)...)
				m.stop(nil)
			})
		})
	}
}

// A start that the master's crash has cut off may have made a process that is gone by now.
func TestStopAfterFollowsAStartThatWasCutOff(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		world, dir := newFakeOS(t), t.TempDir()
		world.behave = func(p *fakeProcess) { p.readyAfter = -1 }
		m := startMaster(t, world, dir, 1, allHooks)
		settle(time.Second)
		m.crash()
		world.of("worker-0").die(identity.Exit{})
		rewrite(t, dir, func(w *records.Worker) { w.Instance.Process = identity.Process{BootID: w.Instance.BootID} })
		world.set(func() { world.acts = nil })
		m = startMaster(t, world, dir, 1, allHooks)
		settle(time.Second)
		world.wantActs("begin "+afterID, "end "+afterID, "begin "+beforeID, "end "+beforeID, "start worker-0")
		if w := m.worker("worker-0"); w.Restarts != 0 || w.LastExit != nil {
			t.Errorf("worker = %+v, want that the crash costs nothing", w)
		}
		m.stop(nil)
	})
}

func TestStopAfterDoesNotFollowAReboot(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		world, dir := newFakeOS(t), t.TempDir()
		m := startMaster(t, world, dir, 1, allHooks)
		settle(time.Second)
		m.crash()
		world.of("worker-0").die(identity.Exit{})
		world.set(func() { world.bootID, world.acts = "another", nil })
		m = startMaster(t, world, dir, 1, allHooks)
		settle(time.Second)
		world.wantActs("begin "+beforeID, "end "+beforeID, "start worker-0")
		m.stop(nil)
	})
}

// A command that cannot be killed keeps the worker from being started, whichever it is.
func TestHookThatSurvivesHoldsTheWorker(t *testing.T) {
	for _, id := range []string{beforeID, stopID, afterID} {
		t.Run(id, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				world := newFakeOS(t)
				once := false
				world.onHook = func(h *fakeHook) {
					if h.id == id && !once {
						once, h.takes, h.immortal = true, -1, time.Minute
					}
				}
				m := startMaster(t, world, t.TempDir(), 1, allHooks)
				settle(time.Second)
				if id != beforeID {
					_, _ = m.set.list()[0].Replace(t.Context(), "for a test", nil)
				}
				settle(55 * time.Second)
				starts := world.starts("worker-0")
				w := m.worker("worker-0")
				if id == beforeID && !strings.HasPrefix(w.Reason, "held: ") || starts > 1 || w.Ready {
					t.Errorf("worker = %+v after %d starts, want it held", w, starts)
				}
				settle(2 * time.Minute)
				if w := m.worker("worker-0"); !w.Ready || world.starts("worker-0") != starts+1 {
					t.Errorf("worker = %+v after %d starts, want it started", w, world.starts("worker-0"))
				}
				m.stop(nil)
			})
		})
	}
}

// The end of the grace, and that of the patience of an operator, end each hook.
func TestHangingHooksOfAStop(t *testing.T) {
	for name, c := range map[string]struct {
		id    string
		hurry bool
		took  time.Duration
		acts  []string
	}{
		"stop.command": {
			stopID, false, 9 * time.Second,
			[]string{"begin " + stopID, "cut " + stopID, "terminate worker-0", "begin " + afterID, "end " + afterID},
		},
		"stop.after": {
			afterID, false, 10 * time.Second,
			[]string{"begin " + stopID, "end " + stopID, "terminate worker-0", "begin " + afterID, "cut " + afterID},
		},
		"stop.command in a hurry": {
			stopID, true, time.Second,
			[]string{"begin " + stopID, "cut " + stopID, "terminate worker-0"},
		},
		"stop.after in a hurry": {
			afterID, true, time.Second,
			[]string{"begin " + stopID, "end " + stopID, "terminate worker-0", "begin " + afterID, "cut " + afterID},
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				world := newFakeOS(t)
				world.onHook = hang(c.id)
				m := startMaster(t, world, t.TempDir(), 1, allHooks)
				settle(time.Second)
				world.set(func() { world.acts = nil })
				began := time.Now()
				if c.hurry {
					time.AfterFunc(time.Second, m.Hurry)
				}
				m.stop(nil)
				if took := time.Since(began); took != c.took {
					t.Errorf("the stop took %s, want %s", took, c.took)
				}
				world.wantActs(c.acts...)
			})
		})
	}
}

// stop.after takes time that the worker was not ready in.
func TestTimeOfStopAfterDoesNotCountAsReady(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		world := newFakeOS(t)
		world.onHook = func(h *fakeHook) {
			if h.id == afterID {
				h.takes = 9 * time.Second
			}
		}
		m := startMaster(t, world, t.TempDir(), 1, allHooks)
		settle(2 * time.Second)
		world.of("worker-0").die(identity.Exit{Signal: 9, Source: identity.ExitWait})
		settle(15 * time.Second)
		w := m.worker("worker-0")
		if ready := w.History.ReadyClock; ready < time.Second || ready > 3*time.Second {
			t.Errorf("it was ready for %s, want 2s", ready)
		}
		m.stop(nil)
	})
}

// A hook fails if the master cannot run it, which costs the worker nothing if the master is the cause.
func TestHookThatTheMasterCannotRun(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		world := newFakeOS(t)
		world.hookErr = fmt.Errorf("%w: no disk", launcher.ErrOwnFault)
		m := startMaster(t, world, t.TempDir(), 1, allHooks)
		settle(time.Minute)
		if w := m.worker("worker-0"); w.Status != records.StatusBackoff || w.Restarts != 0 ||
			!strings.HasPrefix(w.Reason, "start.before: ") {
			t.Errorf("worker = %+v, want it waiting for the disk", w)
		}
		world.set(func() { world.hookErr = nil })
		settle(10 * time.Second)
		if w := m.worker("worker-0"); !w.Ready {
			t.Errorf("worker = %+v, want it ready", w)
		}
		world.set(func() { world.hookErr = errors.New("a fault") })
		m.stop(nil)
	})
}

// stop.after may remove files that a descendant of the worker still uses.
func TestStopAfterWaitsForTheWholeFamily(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		world := newFakeOS(t)
		m := startMaster(t, world, t.TempDir(), 1, allHooks)
		settle(time.Second)
		world.set(func() { world.acts = nil })
		first := world.of("worker-0")
		first.set(func() { first.immortalUntil = time.Now().Add(30 * time.Second) })
		first.die(identity.Exit{Signal: syscall.SIGSEGV, Source: identity.ExitWait})
		settle(29 * time.Second)
		world.wantActs()
		settle(5 * time.Second)
		world.wantActs("begin "+afterID, "end "+afterID, "begin "+beforeID, "end "+beforeID, "start worker-0")
		m.stop(nil)
	})
}

// While processes cannot be scanned, a living worker is adopted, but none of its commands runs: one of an earlier
// master may live.
func TestNoHookRunsBeforeAScan(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		world, dir := newFakeOS(t), t.TempDir()
		m := startMaster(t, world, dir, 1, allHooks)
		settle(time.Second)
		world.masterID, world.stateDir = m.store.MasterID(), m.store.StateDirID().String()
		m.crash()
		world.plant(&fakeProcess{worker: afterID, rec: records.Instance{Token: "left"}})
		world.set(func() { world.scanErr, world.acts = errors.New("no /proc"), nil })
		m = startMaster(t, world, dir, 1, allHooks)
		settle(time.Second)
		if w := m.worker("worker-0"); !w.Ready || !w.Adopted {
			t.Errorf("worker = %+v, want it adopted", w)
		}
		world.of("worker-0").die(identity.Exit{Signal: 9, Source: identity.ExitWait})
		settle(10 * time.Second)
		world.wantActs()
		world.set(func() { world.scanErr = nil })
		settle(10 * time.Second)
		acts := world.did()
		if len(acts) == 0 || !strings.HasPrefix(acts[0], "kill ") {
			t.Fatalf("acts = %q, want the command killed first", acts)
		}
		world.set(func() { world.acts = world.acts[1:] })
		world.wantActs("begin "+afterID, "end "+afterID, "begin "+beforeID, "end "+beforeID, "start worker-0")
		m.stop(nil)
	})
}
