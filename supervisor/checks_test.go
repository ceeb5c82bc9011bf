package supervisor

import (
	"errors"
	"strconv"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/core-tools/hsu-master/store/records"
	"github.com/core-tools/hsu-master/supervisor/probe"
	"github.com/core-tools/hsu-master/supervisor/process"
	"github.com/core-tools/hsu-master/supervisor/unit"
	"github.com/core-tools/hsu-master/supervisor/worker"
)

const healthURL = "http://127.0.0.1:{port}/health"

var errDown = errors.New("503 Service Unavailable")

// apart gives a unit a check of readiness by HTTP and one of liveness by TCP.
func apart(u *unit.Spec) {
	u.Health.Readiness = probe.Spec{Type: probe.TypeHTTP, URL: healthURL}
	u.Health.Liveness = probe.Spec{Type: probe.TypeTCP}
}

func byHTTP(u *unit.Spec) { u.Health.Readiness = probe.Spec{Type: probe.TypeHTTP, URL: healthURL} }

func byCommand(u *unit.Spec) {
	u.Health.Readiness = probe.Spec{Type: probe.TypeExec, Command: []string{"/check", "{worker}"}}
}

func withoutServices(u *unit.Spec) { u.NoServices = true }

// answer changes the answer to all checks of a type.
func (o *fakeOS) answer(of probe.Type, err error) { o.set(func() { o.answers[of] = err }) }

// busy makes a worker use a processor, so that it is kept although it misses checks.
func (o *fakeOS) busy(worker string) {
	p := o.of(worker)
	p.set(func() { p.load = 1 })
}

// checked returns the number of checks so far that are answered by the world.
func (o *fakeOS) checked() (n int) {
	o.set(func() { n = o.checks })
	return n
}

func (m *master) wantStatus(when string, status records.Status, starts int, world *fakeOS) {
	m.t.Helper()
	w, n := m.worker("worker-0"), world.starts("worker-0")
	if w.Status != status || w.Ready != (status == records.StatusRunning) || n != starts {
		m.t.Errorf("%s: worker-0 is %s (%s), ready %t, after %d starts, want it %s after %d",
			when, w.Status, w.Reason, w.Ready, n, status, starts)
	}
}

func TestMissedReadinessCostsTrafficAndNoRestart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		world := newFakeOS(t)
		m := startMaster(t, world, t.TempDir(), 1, apart)
		settle(time.Minute)
		m.wantStatus("at first", records.StatusRunning, 1, world)
		world.answer(probe.TypeHTTP, errDown)
		settle(time.Duration(defaults.Health.Readiness.Missed) * defaults.Health.Readiness.Interval)
		m.wantStatus("after three misses", records.StatusUnhealthy, 1, world)
		w := m.worker("worker-0")
		if want := strings.Replace("GET "+healthURL+": "+errDown.Error(), "{port}", portOf(w), 1); w.Reason != want {
			t.Errorf("the reason is %q, want %q", w.Reason, want)
		}
		settle(time.Hour)
		m.wantStatus("after an hour", records.StatusUnhealthy, 1, world)
		world.answer(probe.TypeHTTP, nil)
		settle(defaults.Health.Readiness.Interval)
		m.wantStatus("after a pass", records.StatusRunning, 1, world)
		m.stop(nil)
	})
}

func TestMissedLivenessIsARestartDespiteReadiness(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		world := newFakeOS(t)
		m := startMaster(t, world, t.TempDir(), 1, apart)
		settle(time.Minute)
		world.answer(probe.TypeTCP, errors.New("connection refused"))
		liveness := defaults.Health.Liveness
		m.await("worker-0", records.StatusUnhealthy, time.Duration(liveness.Missed)*liveness.Interval)
		m.wantStatus("after three misses", records.StatusUnhealthy, 1, world)
		settle(defaults.Health.Liveness.Interval)
		if n := world.starts("worker-0"); n != 2 {
			t.Errorf("%d starts after one more miss, want 2", n)
		}
		m.stop(nil)
	})
}

func TestWorkerThatStopsMissingLivenessIsKept(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		world := newFakeOS(t)
		m := startMaster(t, world, t.TempDir(), 1, apart)
		settle(time.Minute)
		world.busy("worker-0")
		world.answer(probe.TypeTCP, errors.New("connection refused"))
		settle(time.Duration(defaults.Health.Liveness.Missed) * defaults.Health.Liveness.Interval)
		m.wantStatus("after three misses", records.StatusUnhealthy, 1, world)
		world.answer(probe.TypeTCP, nil)
		settle(2 * defaults.Health.Readiness.Interval)
		m.wantStatus("after a pass of both", records.StatusRunning, 1, world)
		m.stop(nil)
	})
}

func TestSuspendedWorkerStaysUnhealthyWhileReadinessPasses(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		world := newFakeOS(t)
		m := startMaster(t, world, t.TempDir(), 1, apart)
		settle(time.Minute)
		p := world.of("worker-0")
		p.set(func() { p.suspended = true })
		world.answer(probe.TypeTCP, errors.New("no answer in time"))
		settle(time.Hour)
		m.wantStatus("suspended", records.StatusUnhealthy, 1, world)
		p.set(func() { p.suspended = false })
		world.answer(probe.TypeTCP, nil)
		settle(time.Minute)
		m.wantStatus("continued", records.StatusRunning, 1, world)
		m.stop(nil)
	})
}

func TestUnhealthyWorkerHasToPassSeveralTimes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		world := newFakeOS(t)
		m := startMaster(t, world, t.TempDir(), 1, byHTTP, func(u *unit.Spec) { u.Health.Readiness.Passes = 3 })
		settle(defaults.Health.Readiness.Interval)
		m.wantStatus("at first", records.StatusRunning, 1, world)
		world.busy("worker-0")
		world.answer(probe.TypeHTTP, errDown)
		settle(3 * defaults.Health.Readiness.Interval)
		m.wantStatus("after three misses", records.StatusUnhealthy, 1, world)
		world.answer(probe.TypeHTTP, nil)
		settle(defaults.Health.Readiness.Interval) // the first pass comes within a second
		m.wantStatus("after two passes", records.StatusUnhealthy, 1, world)
		world.answer(probe.TypeHTTP, errDown)
		settle(defaults.Health.Readiness.Interval)
		world.answer(probe.TypeHTTP, nil)
		settle(defaults.Health.Readiness.Interval)
		m.wantStatus("after a miss and two passes", records.StatusUnhealthy, 1, world)
		settle(2 * defaults.Health.Readiness.Interval)
		m.wantStatus("after three passes", records.StatusRunning, 1, world)
		m.stop(nil)
	})
}

func TestStartingWorkerIsCheckedByItsCommandNotTooOften(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		world := newFakeOS(t)
		world.answer(probe.TypeExec, errors.New("no table"))
		m := startMaster(t, world, t.TempDir(), 1, withoutPort, byCommand)
		settle(4 * time.Second)
		m.wantStatus("before it passes", records.StatusStarting, 1, world)
		if n := world.checked(); n < 5 || n > 9 {
			t.Errorf("%d checks in 4 s, want about two a second", n)
		}
		w := m.worker("worker-0")
		if want := "/check worker-0: exit code 1: no table"; w.WaitingFor != want {
			t.Errorf("it is waited for %q, want %q", w.WaitingFor, want)
		}
		if len(w.Checks) != 1 || w.Checks[0].Use != "start" || w.Checks[0].Answer != "exit code 1: no table" ||
			!w.Checks[0].Due.After(time.Now()) || w.Checks[0].At.IsZero() {
			t.Errorf("checks = %+v, want the start's with its answer and its next time", w.Checks)
		}
		world.answer(probe.TypeExec, nil)
		settle(time.Second)
		m.wantStatus("after it passes", records.StatusRunning, 1, world)
		if w := m.worker("worker-0"); w.Probe != "exec /check worker-0" {
			t.Errorf("probe = %q, want the command", w.Probe)
		}
		m.stop(nil)
	})
}

func TestStartThatNeverPassesNamesTheLastAnswer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		world := newFakeOS(t)
		world.answer(probe.TypeHTTP, errDown)
		m := startMaster(t, world, t.TempDir(), 1, byHTTP)
		settle(time.Hour)
		w := m.worker("worker-0")
		if w.Status != records.StatusFailed || !strings.Contains(w.Reason, "was not ready within 30s: GET ") ||
			!strings.Contains(w.Reason, errDown.Error()) {
			t.Errorf("worker-0 is %s: %s; want it failed with the last answer", w.Status, w.Reason)
		}
		m.stop(nil)
	})
}

// A check may carry a password, so it goes to no other process.
func TestPortIsProvenBeforeTheFirstCheck(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		world := newFakeOS(t)
		world.behave = func(p *fakeProcess) { p.owner = process.PortForeign }
		m := startMaster(t, world, t.TempDir(), 1, byHTTP)
		settle(time.Minute)
		if n := world.checked(); n != 0 {
			t.Errorf("%d checks of a port that another process holds", n)
		}
		m.stop(nil)
	})
}

func TestOnlyWorkersThatNeedAConnectionGetOne(t *testing.T) {
	for name, test := range map[string]struct {
		change []func(*unit.Spec)
		dials  int
		routed bool
	}{
		"with services":    {[]func(*unit.Spec){byHTTP}, 1, true},
		"without services": {[]func(*unit.Spec){byHTTP, withoutServices}, 0, false},
		"pinged":           {[]func(*unit.Spec){withoutServices}, 1, false},
		"by its process": {[]func(*unit.Spec){withoutServices, func(u *unit.Spec) {
			u.Health.Readiness.Type = probe.TypeProcess
		}}, 0, false},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				world := newFakeOS(t)
				m := startMaster(t, world, t.TempDir(), 1, test.change...)
				settle(time.Minute)
				m.wantStatus("after a minute", records.StatusRunning, 1, world)
				if world.dials != test.dials {
					t.Errorf("%d connections, want %d", world.dials, test.dials)
				}
				routed := false
				for _, s := range m.Services().Snapshot() {
					routed = routed || len(s.Endpoints) > 0
				}
				if routed != test.routed {
					t.Errorf("routed: %t, want %t", routed, test.routed)
				}
				m.stop(nil)
			})
		})
	}
}

// A program may need no port to be ready, although it has one.
func TestWorkerCheckedByItsProcessNeedNotListen(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		world, dir := newFakeOS(t), t.TempDir()
		world.behave = func(p *fakeProcess) { p.readyAfter, p.owner = -1, process.PortFree }
		byProcess := func(u *unit.Spec) { u.Health.Readiness.Type, u.NoServices = probe.TypeProcess, true }
		m := startMaster(t, world, dir, 1, byProcess)
		settle(defaults.Start.Settle)
		m.wantStatus("after its settling time", records.StatusRunning, 1, world)
		m.crash()
		m = startMaster(t, world, dir, 1, byProcess)
		settle(0)
		m.wantStatus("adopted", records.StatusRunning, 1, world)
		m.stop(nil)
	})
}

func TestAdoptedWorkerIsAskedAtOnceBySameCheck(t *testing.T) {
	for name, status := range map[string]records.Status{
		"passes": records.StatusRunning, "misses": records.StatusUnhealthy,
	} {
		for kind, change := range map[string]func(*unit.Spec){"http": byHTTP, "exec": byCommand, "apart": apart} {
			t.Run(name+"/"+kind, func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					world, dir := newFakeOS(t), t.TempDir()
					m := startMaster(t, world, dir, 1, change)
					settle(time.Minute)
					m.crash()
					before := world.checked()
					if status == records.StatusUnhealthy {
						world.answer(probe.TypeHTTP, errDown)
						world.answer(probe.TypeExec, errDown)
					}
					m = startMaster(t, world, dir, 1, change)
					settle(0)
					m.wantStatus("adopted", status, 1, world)
					if world.checked() == before {
						t.Error("it was not asked")
					}
					w := m.worker("worker-0")
					if len(w.Checks) == 0 || w.Checks[0].Passed != (status == records.StatusRunning) ||
						w.Checks[0].At.IsZero() {
						t.Errorf("checks = %+v, want the answer", w.Checks)
					}
					m.stop(nil)
				})
			})
		}
	}
}

func TestChecksShowTheirLastAnswersAndTheirNextTimes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		world := newFakeOS(t)
		m := startMaster(t, world, t.TempDir(), 1, apart)
		settle(time.Millisecond)
		ready := m.worker("worker-0")
		if c := ready.Checks; len(c) != 2 || !c[0].Passed || c[0].At.IsZero() || !c[1].At.IsZero() {
			t.Errorf("checks = %+v, want that of readiness passed and none of liveness yet", c)
		}
		world.busy("worker-0")
		world.answer(probe.TypeTCP, errors.New("connection refused"))
		settle(defaults.Health.Readiness.Interval)
		w := m.worker("worker-0")
		now := time.Now()
		for i := range w.Checks {
			if due := w.Checks[i].Due; !due.After(now) || due.Sub(now) > defaults.Health.Readiness.Interval {
				t.Errorf("check %d is due in %s", i, due.Sub(now))
			}
			if at := w.Checks[i].At; at.After(now) || now.Sub(at) > defaults.Health.Readiness.Interval {
				t.Errorf("check %d was answered %s ago", i, now.Sub(at))
			}
			w.Checks[i].At, w.Checks[i].Due = time.Time{}, time.Time{}
		}
		want := []worker.CheckInfo{
			{
				Use: "readiness", Probe: "http " + strings.Replace(healthURL, "{port}", portOf(w), 1),
				Passed: true,
			},
			{Use: "liveness", Probe: "tcp", Answer: "connection refused"},
		}
		if diff := cmp.Diff(want, w.Checks); diff != "" {
			t.Errorf("checks (-want +got):\n%s", diff)
		}
		m.stop(nil)
	})
}

func TestApplyChangesTheKindOfCheckOfALivingWorker(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		world := newFakeOS(t)
		m := startMaster(t, world, t.TempDir(), 1, byHTTP, withoutServices)
		settle(time.Minute)
		apply := func(change ...func(*unit.Spec)) {
			t.Helper()
			u := unitOf(t, "worker", 1)
			for _, c := range change {
				c(&u)
			}
			if err := m.Apply(t.Context(), u); err != nil {
				t.Fatal(err)
			}
			settle(time.Minute)
			m.wantStatus("after the change", records.StatusRunning, 1, world)
		}
		apply(apart, withoutServices)
		if n := len(m.worker("worker-0").Checks); n != 2 || world.dials != 0 {
			t.Errorf("%d checks and %d connections, want two checks", n, world.dials)
		}
		apply(byHTTP) // it gets calls from now on
		if n := len(m.worker("worker-0").Checks); n != 1 || world.dials != 1 {
			t.Errorf("%d checks and %d connections, want one of each", n, world.dials)
		}
		for _, s := range m.Services().Snapshot() {
			if len(s.Endpoints) != 1 || !s.Endpoints[0].Ready {
				t.Errorf("service %s has endpoints %+v, want the worker", s.Name, s.Endpoints)
			}
		}
		m.stop(nil)
	})
}

// A check by a command may run when the master is killed.
func TestCommandOfACheckIsStoppedByTheNextMaster(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		world, dir := newFakeOS(t), t.TempDir()
		m := startMaster(t, world, dir, 1, byCommand)
		settle(time.Minute)
		world.set(func() { world.masterID, world.stateDir = m.store.MasterID(), m.store.StateDirID().String() })
		m.crash()
		left := world.plant(&fakeProcess{worker: "worker-0/probe", rec: records.Instance{Token: "probe"}})
		m = startMaster(t, world, dir, 1, byCommand)
		settle(time.Second)
		if !left.isDead() {
			t.Error("the command lives")
		}
		m.wantStatus("adopted", records.StatusRunning, 1, world)
		m.stop(nil)
	})
}

func portOf(w worker.Info) string { return strconv.Itoa(w.Port) }
