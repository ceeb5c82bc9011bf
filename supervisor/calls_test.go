package supervisor

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/core-tools/hsu-master/identity"
	"github.com/core-tools/hsu-master/internal/fair"
	"github.com/core-tools/hsu-master/store/records"
	"github.com/core-tools/hsu-master/supervisor/services"
	"github.com/core-tools/hsu-master/supervisor/unit"
	"github.com/core-tools/hsu-master/supervisor/worker"
)

func offering(names ...string) func(*unit.Spec) {
	return func(u *unit.Spec) { u.Services = names }
}

// ready returns the keys of the endpoints that are ready for a service.
func (m *master) ready(service string) []string {
	var keys []string
	if s := m.Services().Service(service); s != nil {
		for _, ep := range s.Endpoints() {
			keys = append(keys, ep.Key())
		}
	}
	slices.Sort(keys)
	return keys
}

func (m *master) wantReady(service string, want ...string) {
	m.t.Helper()
	if got := m.ready(service); !slices.Equal(got, want) {
		m.t.Errorf("%s is served by %v, want %v", service, got, want)
	}
}

func (m *master) recorded(id string) records.Worker {
	m.t.Helper()
	snap, err := m.store.Snapshot()
	if err != nil {
		m.t.Fatal(err)
	}
	for _, w := range snap.Workers {
		if w.ID == id {
			return w
		}
	}
	m.t.Fatalf("%s is not recorded", id)
	return records.Worker{}
}

func TestWorkersServeWhatTheirUnitOffers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		world := newFakeOS(t)
		world.behave = func(p *fakeProcess) { p.readyAfter = time.Second }
		m := startMaster(t, world, t.TempDir(), 2, offering("pkg.A", "pkg.B"))
		if m.Services().Service("pkg.B") == nil {
			t.Error("the service is not there before a worker is: calls would be refused that can wait")
		}
		settle(500 * time.Millisecond)
		m.wantReady("pkg.A")
		settle(time.Second)
		m.wantReady("pkg.A", "worker-0", "worker-1")
		m.wantReady("pkg.B", "worker-0", "worker-1")
		if m.Services().Service(unit.DefaultService) != nil {
			t.Error("the unit offers what it does not say")
		}
		world.of("worker-0").die(identity.Exit{Signal: 9})
		synctest.Wait()
		m.wantReady("pkg.A", "worker-1")
		settle(5 * time.Second)
		m.wantReady("pkg.A", "worker-0", "worker-1")
		m.stop(nil)
	})
}

func TestAcquireIsAboutTheServiceThatItNames(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := startMaster(t, newFakeOS(t), t.TempDir(), 1, offering("pkg.B", "pkg.A"))
		settle(time.Second)
		if !m.Standalone(unit.DefaultService) || m.Standalone("pkg.A") || m.Standalone("pkg.B") {
			t.Error("want the master by itself for what its workers do not offer, and only for that")
		}
		if l, err := m.Acquire(t.Context(), unit.DefaultService, ""); !errors.Is(err, ErrNoWorker) {
			t.Errorf("what nobody offers: %v, %v, want ErrNoWorker", l, err)
		}
		l, err := m.Acquire(t.Context(), "pkg.B", "")
		if err != nil {
			t.Fatal(err)
		}
		b := m.Services().Service("pkg.B")
		if n := b.Info().InFlight; n != 1 {
			t.Errorf("%d calls of it are under way, want 1", n)
		}
		l.End(status.Error(codes.NotFound, "x"))
		l.End(nil) // no effect: the lease has ended
		if f := b.Figures("worker-0"); f.InFlight != 0 || f.Failures[codes.NotFound] != 1 {
			t.Errorf("figures are %+v", f)
		}
		m.stop(nil)
	})
}

func TestReflectionTellsWhatAWorkerOffers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		world, dir := newFakeOS(t), t.TempDir()
		world.behave = func(p *fakeProcess) {
			p.offers = []string{
				"grpc.health.v1.Health", "pkg.Z", "proto.CoreService", "pkg.A", "no name!", "\x1b[2J",
				"grpc.reflection.v1.ServerReflection",
			}
			p.offerAfter = time.Second // it must not delay readiness
		}
		m := startMaster(t, world, dir, 1, offering("pkg.A"))
		settle(500 * time.Millisecond)
		m.wantReady("pkg.A", "worker-0")
		m.wantReady("pkg.Z")
		settle(2 * time.Second)
		m.wantReady("pkg.Z", "worker-0")
		want := []records.Offer{{Name: "pkg.A"}, {Name: "pkg.Z", Reflected: true}}
		if got := m.recorded("worker-0").Services; !slices.Equal(got, want) {
			t.Errorf("recorded are %v, want %v", got, want)
		}
		if names := m.Services().Names(); !slices.Equal(names, []string{"pkg.A", "pkg.Z"}) {
			t.Errorf("services are %q", names)
		}
		m.crash()

		// The routes exist before the master reports SERVING.
		m = startMaster(t, world, dir, 1, offering("pkg.A"))
		if m.Services().Service("pkg.Z") == nil {
			t.Error("the service is not there while the master recovers: calls would be refused that can wait")
		}
		<-m.Recovered()
		m.wantReady("pkg.Z", "worker-0")
		m.stop(nil)
	})
}

func TestNamedServicesAreAnUpperBound(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		world, dir := newFakeOS(t), t.TempDir()
		world.behave = func(p *fakeProcess) { p.offers = []string{"pkg.A", "pkg.Z"} }
		m := startMaster(t, world, dir, 1, offering("pkg.A"))
		settle(time.Second)
		m.wantReady("pkg.Z", "worker-0")
		m.crash()

		bound := func(u *unit.Spec) { u.Services, u.NoOthers = []string{"pkg.A", "pkg.B"}, true }
		m = startMaster(t, world, dir, 1, bound)
		if m.Services().Service("pkg.Z") != nil {
			t.Error("a service is there that an earlier master was told of, and that is not among the named ones")
		}
		settle(time.Second)
		m.wantReady("pkg.A", "worker-0")
		m.wantReady("pkg.B")
		want := []records.Offer{{Name: "pkg.A"}, {Name: "pkg.B", Unlisted: true}}
		if got := m.recorded("worker-0").Services; !slices.Equal(got, want) {
			t.Errorf("recorded are %v, want %v", got, want)
		}
		m.stop(nil)
	})
}

func TestAdoptedWorkerIsAskedAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		world, dir := newFakeOS(t), t.TempDir()
		world.behave = func(p *fakeProcess) { p.offers = []string{"pkg.Old"} }
		m := startMaster(t, world, dir, 1)
		settle(time.Second)
		m.wantReady("pkg.Old", "worker-0")
		m.crash()
		p := world.of("worker-0")
		p.set(func() { p.offers = []string{"pkg.New"} })
		m = startMaster(t, world, dir, 1)
		settle(time.Second)
		m.wantReady("pkg.New", "worker-0")
		if m.Services().Service("pkg.Old") != nil {
			t.Error("a service is there that the worker does not offer any more")
		}
		m.stop(nil)
	})
}

// The next instance may be of another release: it gets no call of a service that only the previous one has
// reported, and such calls wait until it has reported its own services.
func TestNextInstanceIsNotTakenForTheOneBefore(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		world := newFakeOS(t)
		world.behave = func(p *fakeProcess) {
			p.offers = []string{"pkg.Old", "pkg.Said"}
			if world.started["worker-0"] > 1 {
				p.offers, p.offerAfter = []string{"pkg.New", "pkg.Said"}, time.Second
			}
		}
		m := startMaster(t, world, t.TempDir(), 1, offering("pkg.Said"))
		settle(time.Minute)
		m.wantReady("pkg.Old", "worker-0")
		world.of("worker-0").die(identity.Exit{Signal: 9})
		settle(500 * time.Millisecond)
		m.wantReady("pkg.Said", "worker-0")
		m.wantReady("pkg.Old")
		old := m.Services().Service("pkg.Old")
		if old == nil {
			t.Fatal("the service is gone before the instance has told")
		}
		if _, err := old.Pick(fair.Client{}, ""); !errors.Is(err, services.ErrNotReady) {
			t.Errorf("a call meanwhile: %v, want it to wait", err)
		}
		settle(2 * time.Second)
		m.wantReady("pkg.New", "worker-0")
		if m.Services().Service("pkg.Old") != nil {
			t.Error("the service is there that nobody offers any more")
		}
		m.stop(nil)
	})
}

// A worker gets no call of a service that its reflection does not list, even if its unit names the service.
func TestReflectionIsTheTruthAboutAWorker(t *testing.T) {
	for name, test := range map[string]struct {
		unit []func(*unit.Spec)
		said string
	}{
		"said":    {[]func(*unit.Spec){offering("pkg.Said")}, "pkg.Said"},
		"assumed": {nil, unit.DefaultService},
	} {
		synctest.Test(t, func(t *testing.T) {
			world, dir := newFakeOS(t), t.TempDir()
			world.behave = func(p *fakeProcess) {
				p.offers = []string{"pkg.Other"}
				if world.started["worker-0"] > 1 {
					p.offers = append(p.offers, test.said)
				}
			}
			m := startMaster(t, world, dir, 1, test.unit...)
			settle(time.Second)
			for range 2 {
				m.wantReady("pkg.Other", "worker-0")
				if m.Services().Service(test.said) != nil {
					t.Errorf("%s: the service is there that nobody offers", name)
				}
				m.crash()
				m = startMaster(t, world, dir, 1, test.unit...)
				<-m.Recovered()
			}
			world.of("worker-0").die(identity.Exit{Signal: 9})
			settle(time.Minute)
			m.wantReady(test.said, "worker-0")
			m.stop(nil)
		})
	}
}

func TestReflectionThatFailsIsAskedAgainAFewTimes(t *testing.T) {
	for name, test := range map[string]struct {
		err  error
		want int // queries, two for each try if it has neither version of reflection
	}{
		"it has none":  {nil, 2},
		"it is broken": {status.Error(codes.Internal, "\x1b[2J"), worker.DiscoveryTries},
	} {
		synctest.Test(t, func(t *testing.T) {
			world := newFakeOS(t)
			world.behave = func(p *fakeProcess) { p.offerErr = test.err }
			m := startMaster(t, world, t.TempDir(), 1)
			settle(time.Hour)
			p := world.of("worker-0")
			p.mu.Lock()
			if p.asked != test.want {
				t.Errorf("%s: asked %d times, want %d", name, p.asked, test.want)
			}
			p.mu.Unlock()
			m.wantReady(unit.DefaultService, "worker-0")
			m.stop(nil)
		})
	}
}

func TestReflectionThatHangsIsBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		world := newFakeOS(t)
		world.behave = func(p *fakeProcess) { p.offers, p.offerAfter = []string{"pkg.A"}, time.Hour }
		m := startMaster(t, world, t.TempDir(), 1)
		settle(time.Minute)
		m.wantReady(unit.DefaultService, "worker-0")
		began := time.Now()
		m.stop(nil)
		if took := time.Since(began); took > worker.DiscoveryTimeout {
			t.Errorf("the stop took %v", took)
		}
	})
}

func TestWhatAWorkerTellsIsBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		world := newFakeOS(t)
		world.behave = func(p *fakeProcess) {
			for i := range 10 * unit.MaxServices {
				p.offers = append(p.offers, fmt.Sprintf("pkg.S%d", i))
			}
		}
		m := startMaster(t, world, t.TempDir(), 1)
		settle(time.Second)
		if n := len(m.Services().Names()); n > unit.MaxServices {
			t.Errorf("%d services, want %d at most", n, unit.MaxServices)
		}
		m.wantReady("pkg.S0", "worker-0")
		m.stop(nil)
	})
}

func TestWorkersThatHaveFailedMakeTheirServicesHopeless(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		world, dir := newFakeOS(t), t.TempDir()
		world.behave = func(p *fakeProcess) { p.exitsAfter, p.exitCode, p.readyAfter = time.Millisecond, 3, -1 }
		m := startMaster(t, world, dir, 1, offering("pkg.A"))
		called := make(chan error, 1)
		go func() {
			_, err := m.Acquire(context.Background(), "pkg.A", "")
			called <- err
		}()
		settle(time.Hour)
		select {
		case err := <-called:
			if !errors.Is(err, ErrNoWorker) || !strings.Contains(err.Error(), "have failed") {
				t.Errorf("who waited got %v, want to hear that there is no hope", err)
			}
		default:
			t.Error("who waited still waits for a worker that has failed")
		}
		// This does not apply if a registered endpoint offers the service too, because it may come back.
		world.endpoint("10.0.0.1:80").say(errors.New("refused"))
		if _, err := m.Registrations().Register(t.Context(), "pkg.A", "10.0.0.1:80", 0); err != nil {
			t.Fatal(err)
		}
		if _, err := m.Services().Service("pkg.A").Pick(fair.Client{}, ""); !errors.Is(err, services.ErrNotReady) {
			t.Errorf("with an endpoint from outside: %v, want ErrNotReady", err)
		}
		m.stop(nil)
	})
}

// Calls wait in the name of their context's client: a client that has filled the queue gives way to another.
func TestAcquireWaitsForItsClient(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := startMaster(t, newFakeOS(t), t.TempDir(), 0)
		m.Services().Offer("somebody", "pkg.A")
		settle(time.Second)
		ctx, cancel := context.WithCancel(t.Context())
		var greedy, other atomic.Int64 // refused calls
		acquire := func(client string, refused *atomic.Int64) {
			go func() {
				if _, err := m.Acquire(fair.NewContext(ctx, fair.Client{Peer: client}),
					"pkg.A", ""); errors.Is(err, ErrBusy) {
					refused.Add(1)
				}
			}()
			synctest.Wait()
		}
		for greedy.Load() == 0 {
			acquire("greedy", &greedy)
		}
		for range 10 {
			acquire("other", &other)
		}
		if g, o := greedy.Load(), other.Load(); g != 11 || o != 0 {
			t.Errorf("%d calls of the one that has filled the queue were refused and %d of another, want 11 and 0",
				g, o)
		}
		cancel()
		synctest.Wait()
		m.stop(nil)
	})
}

func TestStopDrainsCallsOfEachService(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		world := newFakeOS(t)
		m := startMaster(t, world, t.TempDir(), 1, offering("pkg.A", "pkg.B"))
		settle(time.Second)
		l, err := m.Services().Service("pkg.B").Pick(fair.Client{}, "")
		if err != nil {
			t.Fatal(err)
		}
		p := world.of("worker-0")
		time.AfterFunc(3*time.Second, func() {
			if p.isDead() {
				t.Error("the worker was stopped with a call of its second service under way")
			}
			l.End(services.Outcome{})
		})
		m.stop(nil)
	})
}

func TestBadServicesOfAUnitAreRefused(t *testing.T) {
	for _, names := range [][]string{
		{"a b"}, {""}, {"proto.CoreService"}, {"grpc.health.v1.Health"}, make([]string, unit.MaxServices+1),
	} {
		u := unit.Spec{Name: "worker", Path: "/bin/true", Services: names}
		if err := u.CheckFields(); err == nil || !strings.Contains(err.Error(), "service") {
			t.Errorf("%.100q: %v", names, err)
		}
	}
}
