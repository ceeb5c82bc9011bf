package supervisor

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/core-tools/hsu-master/internal/eventtype"
	"github.com/core-tools/hsu-master/internal/fair"
	"github.com/core-tools/hsu-master/supervisor/registrations"
	"github.com/core-tools/hsu-master/supervisor/services"
	"github.com/core-tools/hsu-master/supervisor/unit"
)

func (m *master) register(service, address string, ttl time.Duration) registrations.Endpoint {
	m.t.Helper()
	r, err := m.Registrations().Register(m.t.Context(), service, address, ttl)
	if err != nil {
		m.t.Fatal(err)
	}
	return r
}

func (m *master) registered() string {
	m.t.Helper()
	var all []string
	for _, r := range m.Registrations().List() {
		all = append(all, r.Service+" at "+r.Address)
	}
	snap, err := m.store.Snapshot()
	if err != nil {
		m.t.Fatal(err)
	}
	var recorded []string
	for _, r := range snap.Registered {
		recorded = append(recorded, r.Service+" at "+r.Address)
	}
	if fmt.Sprint(all) != fmt.Sprint(recorded) {
		m.t.Errorf("known are %v, recorded %v", all, recorded)
	}
	return strings.Join(all, ", ")
}

// events returns the number of events of a type.
func (m *master) events(kind string) int {
	m.t.Helper()
	snap, err := m.store.Snapshot()
	if err != nil {
		m.t.Fatal(err)
	}
	n := 0
	for _, e := range snap.Events {
		if e.Type == kind {
			n++
		}
	}
	return n
}

func TestRegisteredEndpointIsServedOnceItAnswers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		world := newFakeOS(t)
		m := startMaster(t, world, t.TempDir(), 0)
		settle(time.Second)
		if !m.Standalone(unit.DefaultService) {
			t.Error("not standalone without anybody")
		}
		x := world.endpoint("10.0.0.1:80")
		x.say(errors.New("refused\x1b[2J"))
		r := m.register("pkg.A", "10.0.0.1:80", 0)
		if r.Ready || r.Reason != `refused\x1b[2J` {
			t.Errorf("registered as %+v, want it not ready, and why, escaped", r)
		}
		m.wantReady("pkg.A")
		x.say(nil)
		settle(defaults.Health.Readiness.Interval)
		m.wantReady("pkg.A", "10.0.0.1:80")
		for i := range defaults.Health.Readiness.Missed {
			x.say(errors.New("refused"))
			settle(defaults.Health.Readiness.Interval)
			if i < defaults.Health.Readiness.Missed-1 {
				m.wantReady("pkg.A", "10.0.0.1:80")
			}
		}
		m.wantReady("pkg.A")
		x.say(nil)
		settle(defaults.Health.Readiness.Interval)
		m.wantReady("pkg.A", "10.0.0.1:80")

		// A second service at the same address needs no second connection.
		if r := m.register(unit.DefaultService, "10.0.0.1:80", 0); !r.Ready {
			t.Errorf("%+v, want it ready", r)
		}
		m.wantReady(unit.DefaultService, "10.0.0.1:80")
		if m.Standalone(unit.DefaultService) {
			t.Error("standalone with an endpoint that requests can be sent to")
		}
		l, err := m.Acquire(t.Context(), unit.DefaultService, "")
		if err != nil || l.Worker() != "10.0.0.1:80" {
			t.Errorf("Acquire: %v, %v", l, err)
		}
		if _, err := m.TryAcquire(unit.DefaultService, "", l.Worker()); !errors.Is(err, ErrNoWorker) {
			t.Errorf("TryAcquire but the only one: %v", err)
		}
		l.End(nil)
		if _, err := m.Registrations().Deregister(t.Context(), unit.DefaultService, ""); err != nil {
			t.Fatal(err)
		}
		if got := m.registered(); got != "pkg.A at 10.0.0.1:80" {
			t.Errorf("registered are %s", got)
		}
		m.wantReady("pkg.A", "10.0.0.1:80")
		gone, err := m.Registrations().Deregister(t.Context(), "pkg.A", "10.0.0.1:80")
		if err != nil || len(gone) != 1 || m.Services().Service("pkg.A") != nil {
			t.Errorf("deregistered %v, %v", gone, err)
		}
		_, err = m.Registrations().Deregister(t.Context(), "pkg.A", "10.0.0.1:80")
		if !errors.Is(err, registrations.ErrNotRegistered) {
			t.Errorf("a second time: %v, want registrations.ErrNotRegistered", err)
		}
		synctest.Wait()
		if x.closed != 1 {
			t.Errorf("closed %d times, want once", x.closed)
		}
		if m.events(eventtype.Registered) != 2 || m.events(eventtype.Deregistered) != 2 {
			t.Errorf("history has %d registered and %d deregistered, want 2 each",
				m.events(eventtype.Registered), m.events(eventtype.Deregistered))
		}
		m.stop(nil)
	})
}

// Reflection takes precedence, even if an endpoint was registered for more services.
func TestRegisteredEndpointGetsNoCallsOfWhatItsReflectionDoesNotList(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		world := newFakeOS(t)
		m := startMaster(t, world, t.TempDir(), 0)
		settle(time.Second)
		x := world.endpoint("10.0.0.1:80")
		x.offer("pkg.A")
		if r := m.register("pkg.A", "10.0.0.1:80", 0); !r.Ready {
			t.Errorf("%+v, want it ready", r)
		}
		r := m.register("pkg.B", "10.0.0.1:80", 0)
		if r.Ready || !strings.Contains(r.Reason, "does not offer the service") {
			t.Errorf("%+v, want to hear that it does not offer that", r)
		}
		m.wantReady("pkg.A", "10.0.0.1:80")
		if m.Services().Service("pkg.B") != nil {
			t.Error("calls of what nobody has would be sent, or wait")
		}
		// Another program takes its place between two Pings.
		x.offer("pkg.B")
		settle(registrations.ListEvery * defaults.Health.Readiness.Interval)
		m.wantReady("pkg.B", "10.0.0.1:80")
		if m.Services().Service("pkg.A") != nil {
			t.Error("calls go to what the endpoint does not have any more")
		}
		// An endpoint without reflection has the services that it is registered for.
		x.offer()
		settle(registrations.ListEvery * defaults.Health.Readiness.Interval)
		m.wantReady("pkg.A", "10.0.0.1:80")
		m.wantReady("pkg.B", "10.0.0.1:80")
		m.stop(nil)
	})
}

func TestRegistrationsSurviveACrashWithoutAGap(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		world, dir := newFakeOS(t), t.TempDir()
		m := startMaster(t, world, dir, 0)
		settle(time.Second)
		m.register("pkg.A", "10.0.0.1:80", 10*time.Second)
		m.register("pkg.B", "10.0.0.1:80", 0)
		settle(7 * time.Second)
		m.crash()
		time.Sleep(time.Hour)
		m = startMaster(t, world, dir, 0)
		if m.Services().Service("pkg.A") == nil {
			t.Error("the service is not there while the master recovers")
		}
		<-m.Recovered()
		m.wantReady("pkg.A", "10.0.0.1:80")
		m.wantReady("pkg.B", "10.0.0.1:80")
		// The registration has one fresh ttl.
		settle(9 * time.Second)
		m.wantReady("pkg.A", "10.0.0.1:80")
		settle(2 * time.Second)
		if got := m.registered(); got != "pkg.B at 10.0.0.1:80" || m.Services().Service("pkg.A") != nil {
			t.Errorf("registered are %s, want what has no ttl", got)
		}
		if m.events(eventtype.Expired) != 1 {
			t.Errorf("%d expired in history, want 1", m.events(eventtype.Expired))
		}
		m.stop(nil)
	})
}

// An endpoint that an earlier master has recorded gets calls at once. One that then misses its first check gets none
// until it answers, as a worker does: nothing else shows that it is still there. Later misses are counted.
func TestRecordedEndpointServesUntilItsFirstCheck(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		world, dir := newFakeOS(t), t.TempDir()
		m := startMaster(t, world, dir, 0)
		settle(time.Second)
		m.register("pkg.A", "10.0.0.1:80", 0)
		m.register("pkg.A", "10.0.0.2:80", 0)
		m.crash()
		left := world.endpoint("10.0.0.2:80")
		left.say(errors.New("connection refused"))
		left.delay(time.Second)
		m = startMaster(t, world, dir, 0)
		settle(0)
		if got := m.Status(); got != Running {
			t.Errorf("the master is %s at once, want %s", got, Running)
		}
		m.wantReady("pkg.A", "10.0.0.1:80", "10.0.0.2:80")
		settle(1100 * time.Millisecond)
		m.wantReady("pkg.A", "10.0.0.1:80")
		for _, r := range m.Registrations().List() {
			if r.Address == "10.0.0.2:80" && (r.Ready || r.Reason != "connection refused") {
				t.Errorf("%+v, want it not ready, and why", r)
			}
		}
		left.delay(0)
		left.say(nil)
		settle(1500 * time.Millisecond) // it is asked again soon
		m.wantReady("pkg.A", "10.0.0.1:80", "10.0.0.2:80")

		interval := defaults.Health.Readiness.Interval
		left.say(errors.New("connection refused"))
		settle(time.Duration(defaults.Health.Readiness.Missed-1) * interval)
		m.wantReady("pkg.A", "10.0.0.1:80", "10.0.0.2:80")
		settle(interval)
		m.wantReady("pkg.A", "10.0.0.1:80")
		m.stop(nil)
	})
}

func TestHeartbeatKeepsARegistrationAndIsNotWritten(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		world := newFakeOS(t)
		m := startMaster(t, world, t.TempDir(), 0)
		settle(time.Second)
		m.register("pkg.A", "10.0.0.1:80", 3*time.Second)
		m.register("pkg.B", "10.0.0.2:80", 3*time.Second)
		before, err := m.store.Snapshot()
		if err != nil {
			t.Fatal(err)
		}
		for range 10 {
			settle(2 * time.Second)
			if ttl, err := m.Registrations().Heartbeat("pkg.A", "10.0.0.1:80"); err != nil || ttl != 3*time.Second {
				t.Errorf("Heartbeat = %v, %v", ttl, err)
			}
			m.register("pkg.B", "10.0.0.2:80", 3*time.Second) // renews the registration as well
		}
		after, err := m.store.Snapshot()
		if err != nil || len(after.Events) != len(before.Events) || len(after.Registered) != 2 ||
			after.Registered[1] != before.Registered[1] {
			t.Errorf("written: %v, after %v, %v", before, after, err)
		}
		m.wantReady("pkg.A", "10.0.0.1:80")
		m.wantReady("pkg.B", "10.0.0.2:80")
		settle(4 * time.Second)
		if got := m.registered(); got != "" {
			t.Errorf("registered are %s, want none without heartbeats", got)
		}
		_, err = m.Registrations().Heartbeat("pkg.A", "10.0.0.1:80")
		if !errors.Is(err, registrations.ErrNotRegistered) {
			t.Errorf("a heartbeat too late: %v, want registrations.ErrNotRegistered", err)
		}
		// A different ttl is a change.
		m.register("pkg.A", "10.0.0.1:80", 3*time.Second)
		m.register("pkg.A", "10.0.0.1:80", 0)
		settle(time.Hour)
		m.wantReady("pkg.A", "10.0.0.1:80")
		m.stop(nil)
	})
}

// onLog is called with each log message, before the logging goroutine continues.
type onLog func(message string)

func (onLog) Enabled(context.Context, slog.Level) bool { return true }
func (f onLog) WithAttrs([]slog.Attr) slog.Handler     { return f }
func (f onLog) WithGroup(string) slog.Handler          { return f }
func (f onLog) Handle(_ context.Context, r slog.Record) error {
	f(r.Message)
	return nil
}

// impatient is the context of a caller that gives up as soon as the commit is under way.
type impatient struct {
	context.Context
	asked int
}

func (c *impatient) Err() error {
	if c.asked++; c.asked <= 2 { // by Register or Deregister, and by the store
		return nil
	}
	return context.Canceled
}

func (*impatient) Done() <-chan struct{} {
	over := make(chan struct{})
	close(over)
	return over
}

func TestWhatIsKnownOfRegistrationsIsWhatIsRecordedWhenACallerGivesUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := startMaster(t, newFakeOS(t), t.TempDir(), 0)
		settle(time.Second)
		for range 10 { // the caller and the commit are in a race
			_, _ = m.Registrations().Register(&impatient{Context: t.Context()}, "pkg.A", "10.0.0.1:80", 0)
			settle(time.Second)
			m.registered()
			_, _ = m.Registrations().Deregister(&impatient{Context: t.Context()}, "pkg.A", "10.0.0.1:80")
			settle(time.Second)
			m.registered()
		}
		m.stop(nil)
	})
}

// An endpoint that is registered again at the moment of its removal must be recorded, because nothing would record it
// later: in memory it is registered, and its heartbeats are not written.
func TestHeartbeatThatIsLateByAMomentRegistersAnew(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		world := newFakeOS(t)
		var m *master
		again := 0
		world.log = onLog(func(message string) {
			if message == "endpoint expired" {
				again++
				m.register("pkg.A", "10.0.0.1:80", 3*time.Second)
			}
		})
		m = startMaster(t, world, t.TempDir(), 0)
		settle(time.Second)
		m.register("pkg.A", "10.0.0.1:80", 3*time.Second)
		settle(4 * time.Second)
		if got := m.registered(); got != "pkg.A at 10.0.0.1:80" || again != 1 {
			t.Errorf("registered are %s after %d removals, want it to be there after one", got, again)
		}
		m.stop(nil)
	})
}

func TestEndpointFromOutsideIsLetGoOfWhenItsCallsHaveEnded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		world := newFakeOS(t)
		m := startMaster(t, world, t.TempDir(), 0)
		settle(time.Second)
		m.register("pkg.A", "10.0.0.1:80", 0)
		l, err := m.Services().Service("pkg.A").Pick(fair.Client{}, "")
		if err != nil {
			t.Fatal(err)
		}
		x := world.endpoint("10.0.0.1:80")
		time.AfterFunc(2*time.Second, func() {
			x.mu.Lock()
			defer x.mu.Unlock()
			if x.closed != 0 {
				t.Error("closed with a call under way")
			}
			go l.End(services.Outcome{})
		})
		began := time.Now()
		m.stop(nil)
		if took := time.Since(began); took != 2*time.Second || x.closed != 1 {
			t.Errorf("stopped after %v, closed %d times, want it once the call has ended", took, x.closed)
		}
	})
}

func TestRegistrationsAreBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := startMaster(t, newFakeOS(t), t.TempDir(), 0)
		settle(time.Second)
		for i := range registrations.Max {
			m.register(fmt.Sprintf("pkg.S%d", i), "10.0.0.1:80", 0)
		}
		_, err := m.Registrations().Register(t.Context(), "pkg.More", "10.0.0.1:80", 0)
		if !errors.Is(err, registrations.ErrTooMany) {
			t.Errorf("one too many: %v, want registrations.ErrTooMany", err)
		}
		m.register("pkg.S7", "10.0.0.1:80", time.Minute) // already registered
		if _, err := m.Registrations().Deregister(t.Context(), "pkg.S8", ""); err != nil {
			t.Error(err)
		}
		m.register("pkg.More", "10.0.0.1:80", 0)
		m.stop(nil)
	})
}
