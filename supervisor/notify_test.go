package supervisor

import (
	"errors"
	"log/slog"
	"os"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/core-tools/hsu-master/store/records"
	"github.com/core-tools/hsu-master/supervisor/notify"
	"github.com/core-tools/hsu-master/supervisor/probe"
	"github.com/core-tools/hsu-master/supervisor/unit"
	"github.com/core-tools/hsu-master/supervisor/worker"
)

// fakeNotify is a notify socket without a network, whose sender is always the worker.
type fakeNotify struct {
	mu      sync.Mutex
	state   notify.State
	changed chan struct{}
	changes func()
	gone    bool // its path was removed
}

func (n *fakeNotify) Attach(told notify.State, _ func(pid int) bool, changes func()) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.state, n.changes = told, changes
}

func (n *fakeNotify) State() (notify.State, <-chan struct{}) {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.state, n.changed
}

func (*fakeNotify) File() (*os.File, error) { return nil, errors.ErrUnsupported }
func (*fakeNotify) Close() error            { return nil }
func (*fakeNotify) Remove() error           { return nil }

// Mend finds the path removed as long as gone is set.
func (n *fakeNotify) Mend() (bool, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.gone, nil
}

func (n *fakeNotify) say(text string) {
	n.mu.Lock()
	n.state = n.state.Apply([]byte(text), time.Now())
	close(n.changed)
	n.changed = make(chan struct{})
	changes := n.changes
	n.mu.Unlock()
	changes()
}

// listen makes the present notify socket of the worker with that path.
func (o *fakeOS) listen(path string, _ uint32, _ *slog.Logger) (worker.NotifySocket, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.sockets == nil {
		o.sockets = map[string]*fakeNotify{}
	}
	o.sockets[path] = &fakeNotify{changed: make(chan struct{})}
	return o.sockets[path], nil
}

// say sends a notification of the present process of the worker.
func (o *fakeOS) say(worker, text string) {
	o.notifySocket(worker).say(text)
}

// notifySocket returns the present notify socket of the worker.
func (o *fakeOS) notifySocket(worker string) (socket *fakeNotify) {
	o.mu.Lock()
	defer o.mu.Unlock()
	for path, s := range o.sockets {
		if strings.HasSuffix(path, "/"+worker+".notify") {
			socket = s
		}
	}
	return socket
}

func byNotify(u *unit.Spec) { u.Health.Readiness = probe.Spec{Type: probe.TypeNotify} }

func notifyReadiness(u *unit.Spec) {
	u.Health.Readiness, u.Health.Liveness = probe.Spec{Type: probe.TypeNotify}, probe.Spec{Type: probe.TypeProcess}
}

var (
	notifyInterval = defaults.Health.Readiness.Interval
	notifyMissed   = time.Duration(defaults.Health.Readiness.Missed)
)

// startNotified starts a master with a worker that has sent READY=1 and WATCHDOG=1.
func startNotified(t *testing.T, world *fakeOS, dir string, change ...func(*unit.Spec)) *master {
	t.Helper()
	m := startMaster(t, world, dir, 1, change...)
	settle(time.Second)
	world.say("worker-0", "READY=1\nWATCHDOG=1")
	settle(time.Second)
	m.wantStatus("at first", records.StatusRunning, 1, world)
	return m
}

// beat sends WATCHDOG=1 as often as a worker should, until d is over.
func (o *fakeOS) beat(worker string, d time.Duration) {
	for end := time.Now().Add(d); time.Now().Before(end); {
		o.say(worker, "WATCHDOG=1")
		settle(notifyInterval / 2)
	}
}

func TestStartWaitsForReady(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		world := newFakeOS(t)
		m := startMaster(t, world, t.TempDir(), 1, byNotify)
		settle(20 * time.Second)
		world.say("worker-0", "STATUS=loading")
		world.say("worker-0", "WATCHDOG=1") // this master has seen the start: READY=1 cannot be lost
		settle(time.Second)
		w := m.worker("worker-0")
		if w.Status != records.StatusStarting || w.WaitingFor != "READY=1: loading" || w.StatusText != "loading" {
			t.Errorf("%s, waits for %q, status text %q", w.Status, w.WaitingFor, w.StatusText)
		}
		world.say("worker-0", "READY=1")
		synctest.Wait()
		m.wantStatus("after READY=1", records.StatusRunning, 1, world)
		m.stop(nil)
	})
}

func TestStartWithoutReadyFails(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		world := newFakeOS(t)
		m := startMaster(t, world, t.TempDir(), 1, notifyReadiness)
		settle(time.Second)
		world.say("worker-0", "STATUS=loading")
		w := m.await("worker-0", records.StatusBackoff, defaults.Start.Timeout)
		if w.Restarts != 1 || !strings.HasSuffix(w.Reason, "sent no READY=1 within 30s: loading") {
			t.Errorf("%d restarts, reason %q", w.Restarts, w.Reason)
		}
		m.stop(nil)
	})
}

func TestWatchdogInTimeKeepsTheWorker(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		world := newFakeOS(t)
		m := startNotified(t, world, t.TempDir(), byNotify)
		for range 100 {
			world.beat("worker-0", 5*notifyInterval)
			if c := m.worker("worker-0").Checks; len(c) != 1 || !c[0].Passed || c[0].Due.IsZero() {
				t.Fatalf("checks %+v, want one that is passed", c)
			}
		}
		m.wantStatus("after many", records.StatusRunning, 1, world)
		m.stop(nil)
	})
}

func TestMissedWatchdogIsARestart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		world := newFakeOS(t)
		m := startNotified(t, world, t.TempDir(), byNotify)
		world.beat("worker-0", time.Minute)
		settle(notifyInterval / 2) // one interval after the last: nothing is missed yet
		settle((notifyMissed - 1) * notifyInterval)
		m.wantStatus("before it is missed", records.StatusRunning, 1, world)
		settle(notifyInterval)
		m.wantStatus("after three misses", records.StatusUnhealthy, 1, world)
		if w := m.worker("worker-0"); !strings.HasPrefix(w.Reason, "its notifications: no WATCHDOG=1 for ") {
			t.Errorf("the reason is %q", w.Reason)
		}
		settle(notifyInterval)
		if n := world.starts("worker-0"); n != 2 {
			t.Errorf("%d starts after one more miss, want 2", n)
		}
		m.stop(nil)
	})
}

// A worker whose socket was removed cannot send WATCHDOG=1, and is not ended for that.
func TestRemovedSocketIsNoMissedWatchdog(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		world := newFakeOS(t)
		m := startNotified(t, world, t.TempDir(), byNotify)
		socket := world.notifySocket("worker-0")
		socket.mu.Lock()
		socket.gone = true
		socket.mu.Unlock()
		settle(10 * notifyMissed * notifyInterval)
		m.wantStatus("without a socket", records.StatusRunning, 1, world)
		m.stop(nil)
	})
}

func TestWatchdogComesBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		world := newFakeOS(t)
		m := startNotified(t, world, t.TempDir(), byNotify)
		world.busy("worker-0")
		m.await("worker-0", records.StatusUnhealthy, 5*notifyInterval)
		settle(time.Minute) // it is busy
		m.wantStatus("after a minute", records.StatusUnhealthy, 1, world)
		world.beat("worker-0", notifyInterval)
		m.wantStatus("after WATCHDOG=1", records.StatusRunning, 1, world)
		world.say("worker-0", "WATCHDOG=trigger")
		m.await("worker-0", records.StatusUnhealthy, 4*notifyInterval)
		m.stop(nil)
	})
}

// Many programs know READY=1 alone.
func TestWorkerWithoutWatchdogIsNotHeldToIt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		world, dir := newFakeOS(t), t.TempDir()
		m := startMaster(t, world, dir, 1, byNotify)
		settle(time.Second)
		world.say("worker-0", "READY=1")
		settle(time.Hour)
		m.wantStatus("after an hour", records.StatusRunning, 1, world)
		m.crash()
		m = startMaster(t, world, dir, 1, byNotify)
		settle(time.Hour)
		m.wantStatus("after an hour of the next master", records.StatusRunning, 1, world)
		m.stop(nil)
	})
}

func TestStoppingWorkerGetsNoCallsAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		world := newFakeOS(t)
		m := startNotified(t, world, t.TempDir(), notifyReadiness)
		world.say("worker-0", "STOPPING=1")
		synctest.Wait()
		if w := m.worker("worker-0"); w.Ready || w.Status != records.StatusRunning {
			t.Errorf("worker-0 is %s, ready %t, want it running and not ready", w.Status, w.Ready)
		}
		settle(time.Hour)
		m.wantStatus("after an hour", records.StatusUnhealthy, 1, world)
		world.say("worker-0", "READY=1")
		settle(notifyInterval)
		m.wantStatus("after READY=1", records.StatusRunning, 1, world)
		m.stop(nil)
	})
}

func TestTimeWithoutMasterIsNoMissedWatchdog(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		world, dir := newFakeOS(t), t.TempDir()
		m := startNotified(t, world, dir, byNotify)
		m.crash()
		settle(time.Hour)
		m = startMaster(t, world, dir, 1, byNotify)
		synctest.Wait()
		m.wantStatus("at once", records.StatusRunning, 1, world)
		settle(notifyMissed*notifyInterval - time.Second)
		m.wantStatus("before it is missed", records.StatusRunning, 1, world)
		m.await("worker-0", records.StatusUnhealthy, 2*notifyInterval) // the first master got a WATCHDOG=1
		m.crash()
		settle(time.Hour)
		m = startMaster(t, world, dir, 1, byNotify)
		settle(notifyInterval - time.Second) // nothing is known yet
		m.wantStatus("unhealthy as before", records.StatusUnhealthy, 1, world)
		world.say("worker-0", "WATCHDOG=1")
		settle(2 * time.Second)
		m.wantStatus("after WATCHDOG=1", records.StatusRunning, 1, world)
		m.stop(nil)
	})
}

func TestReadyThatWasLost(t *testing.T) {
	for name, test := range map[string]struct {
		change func(*unit.Spec)
		text   string // of the notification to the next master
		want   records.Status
	}{
		"watchdog":                 {byNotify, "WATCHDOG=1", records.StatusRunning},
		"watchdog, no longer":      {byNotify, "WATCHDOG=1\nSTOPPING=1", records.StatusStarting},
		"ready":                    {notifyReadiness, "READY=1", records.StatusRunning},
		"something else, no sign":  {byNotify, "STATUS=well", records.StatusStarting},
		"readiness, also watchdog": {notifyReadiness, "WATCHDOG=1", records.StatusRunning},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				world, dir := newFakeOS(t), t.TempDir()
				m := startMaster(t, world, dir, 1, test.change)
				settle(time.Second)
				m.crash()
				m = startMaster(t, world, dir, 1, test.change)
				settle(time.Second)
				world.say("worker-0", test.text)
				settle(time.Second)
				starts := world.starts("worker-0")
				if w := m.worker("worker-0"); w.Status != test.want || starts != 1 {
					t.Errorf("worker-0 is %s after %d starts, want it %s after 1", w.Status, starts, test.want)
				}
				m.stop(nil)
			})
		})
	}
}

func TestLostReadyCostsNoBudget(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		world, dir := newFakeOS(t), t.TempDir()
		m := startMaster(t, world, dir, 1, byNotify)
		settle(time.Second)
		m.crash()
		m = startMaster(t, world, dir, 1, byNotify)
		settle(defaults.Start.Timeout + 2*time.Second)
		if w := m.worker("worker-0"); world.starts("worker-0") != 2 || w.Restarts != 0 {
			t.Errorf("%d starts, %d restarts, want 2 and none", world.starts("worker-0"), w.Restarts)
		}
		settle(time.Second)
		snap, err := m.store.Snapshot()
		if err != nil {
			t.Fatal(err)
		}
		lost := 0
		for _, e := range snap.Events {
			if e.Type == "ready-lost" {
				lost++
			}
		}
		if lost != 1 {
			t.Errorf("%d events that READY may have been lost, want 1: %+v", lost, snap.Events)
		}
		m.await("worker-0", records.StatusBackoff, defaults.Start.Timeout) // now it is its own fault
		if w := m.worker("worker-0"); w.Restarts != 1 {
			t.Errorf("%d restarts, want 1", w.Restarts)
		}
		m.stop(nil)
	})
}

// A worker that was started without a notify socket is not expected to use one.
func TestWorkerWithoutSocketIsCheckedByItsProcess(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		world, dir := newFakeOS(t), t.TempDir()
		m := startMaster(t, world, dir, 1)
		settle(time.Minute)
		m.crash()
		m = startMaster(t, world, dir, 1, byNotify)
		settle(time.Hour)
		w := m.worker("worker-0")
		if w.Status != records.StatusRunning || !w.Outdated || w.Probe != "process" || world.starts("worker-0") != 1 {
			t.Errorf("worker-0 is %s, outdated %t, probe %s, after %d starts",
				w.Status, w.Outdated, w.Probe, world.starts("worker-0"))
		}
		m.stop(nil)
	})
}
