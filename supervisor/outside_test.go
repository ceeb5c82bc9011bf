package supervisor

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/core-tools/hsu-core/go/control"
	"github.com/core-tools/hsu-core/go/domain"
	"google.golang.org/grpc"
	"google.golang.org/grpc/health"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"

	"github.com/core-tools/hsu-master/store"
	"github.com/core-tools/hsu-master/supervisor/services"
)

func (m *master) register(service, address string, ttl time.Duration) Registered {
	m.t.Helper()
	r, err := m.Register(m.t.Context(), service, address, ttl)
	if err != nil {
		m.t.Fatal(err)
	}
	return r
}

func (m *master) registered() string {
	m.t.Helper()
	var all []string
	for _, r := range m.Registered() {
		all = append(all, describe(r.Registration))
	}
	snap, err := m.store.Snapshot()
	if err != nil {
		m.t.Fatal(err)
	}
	var recorded []string
	for _, r := range snap.Registered {
		recorded = append(recorded, describe(r))
	}
	if fmt.Sprint(all) != fmt.Sprint(recorded) {
		m.t.Errorf("known are %v, recorded %v", all, recorded)
	}
	return strings.Join(all, ", ")
}

// events counts those of a type.
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
		if !m.Standalone(DefaultService) {
			t.Error("not standalone without anybody")
		}
		x := world.outsider("10.0.0.1:80")
		x.say(errors.New("refused\x1b[2J"))
		r := m.register("pkg.A", "10.0.0.1:80", 0)
		if r.Ready || strings.Contains(r.Silence, "\x1b") || !strings.Contains(r.Silence, "refused") {
			t.Errorf("registered as %+v, want it not ready, and why, quoted", r)
		}
		m.wantReady("pkg.A")
		x.say(nil)
		settle(pingInterval)
		m.wantReady("pkg.A", "10.0.0.1:80")
		for i := range missedPings {
			x.say(errors.New("refused"))
			settle(pingInterval)
			if i < missedPings-1 {
				m.wantReady("pkg.A", "10.0.0.1:80")
			}
		}
		m.wantReady("pkg.A")
		x.say(nil)
		settle(pingInterval)
		m.wantReady("pkg.A", "10.0.0.1:80")

		// A second service of it needs no second connection.
		if r := m.register(DefaultService, "10.0.0.1:80", 0); !r.Ready {
			t.Errorf("%+v, want it ready", r)
		}
		m.wantReady(DefaultService, "10.0.0.1:80")
		if m.Standalone(DefaultService) {
			t.Error("standalone with an endpoint that requests can be sent to")
		}
		l, err := m.Acquire(t.Context(), DefaultService, "")
		if err != nil || l.Worker() != "10.0.0.1:80" {
			t.Errorf("Acquire: %v, %v", l, err)
		}
		if _, err := m.TryAcquire(DefaultService, "", l.Worker()); !errors.Is(err, ErrNoWorker) {
			t.Errorf("TryAcquire but the only one: %v", err)
		}
		l.Release()
		if _, err := m.Deregister(t.Context(), DefaultService, ""); err != nil {
			t.Fatal(err)
		}
		if got := m.registered(); got != "pkg.A at 10.0.0.1:80" {
			t.Errorf("registered are %s", got)
		}
		m.wantReady("pkg.A", "10.0.0.1:80")
		gone, err := m.Deregister(t.Context(), "pkg.A", "10.0.0.1:80")
		if err != nil || len(gone) != 1 || m.Services().Service("pkg.A") != nil {
			t.Errorf("deregistered %v, %v", gone, err)
		}
		if _, err := m.Deregister(t.Context(), "pkg.A", "10.0.0.1:80"); !errors.Is(err, ErrNotRegistered) {
			t.Errorf("a second time: %v, want ErrNotRegistered", err)
		}
		synctest.Wait()
		if x.closed != 1 {
			t.Errorf("closed %d times, want once", x.closed)
		}
		if m.events(eventRegistered) != 2 || m.events(eventDeregistered) != 2 {
			t.Errorf("history has %d registered and %d deregistered, want 2 each", m.events(eventRegistered), m.events(eventDeregistered))
		}
		m.stop(nil)
	})
}

// What reflection lists is the truth: also of an endpoint that was registered for more.
func TestRegisteredEndpointGetsNoCallsOfWhatItsReflectionDoesNotList(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		world := newFakeOS(t)
		m := startMaster(t, world, t.TempDir(), 0)
		settle(time.Second)
		x := world.outsider("10.0.0.1:80")
		x.offer("pkg.A")
		if r := m.register("pkg.A", "10.0.0.1:80", 0); !r.Ready {
			t.Errorf("%+v, want it ready", r)
		}
		r := m.register("pkg.B", "10.0.0.1:80", 0)
		if r.Ready || !strings.Contains(r.Silence, "does not offer the service") {
			t.Errorf("%+v, want to hear that it does not offer that", r)
		}
		m.wantReady("pkg.A", "10.0.0.1:80")
		if m.Services().Service("pkg.B") != nil {
			t.Error("calls of what nobody has would be sent, or wait")
		}
		// Another program takes its place, between two pings.
		x.offer("pkg.B")
		settle(discoverEvery * pingInterval)
		m.wantReady("pkg.B", "10.0.0.1:80")
		if m.Services().Service("pkg.A") != nil {
			t.Error("calls go to what the endpoint does not have any more")
		}
		// One without reflection has what it is registered for.
		x.offer()
		settle(discoverEvery * pingInterval)
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
		// It has one fresh ttl.
		settle(9 * time.Second)
		m.wantReady("pkg.A", "10.0.0.1:80")
		settle(2 * time.Second)
		if got := m.registered(); got != "pkg.B at 10.0.0.1:80" || m.Services().Service("pkg.A") != nil {
			t.Errorf("registered are %s, want what has no ttl", got)
		}
		if m.events(eventExpired) != 1 {
			t.Errorf("%d expired in history, want 1", m.events(eventExpired))
		}
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
			if ttl, err := m.Heartbeat("pkg.A", "10.0.0.1:80"); err != nil || ttl != 3*time.Second {
				t.Errorf("Heartbeat = %v, %v", ttl, err)
			}
			m.register("pkg.B", "10.0.0.2:80", 3*time.Second) // does as well
		}
		after, err := m.store.Snapshot()
		if err != nil || len(after.Events) != len(before.Events) || len(after.Registered) != 2 || after.Registered[1] != before.Registered[1] {
			t.Errorf("written: %v, after %v, %v", before, after, err)
		}
		m.wantReady("pkg.A", "10.0.0.1:80")
		m.wantReady("pkg.B", "10.0.0.2:80")
		settle(4 * time.Second)
		if got := m.registered(); got != "" {
			t.Errorf("registered are %s, want none without heartbeats", got)
		}
		if _, err := m.Heartbeat("pkg.A", "10.0.0.1:80"); !errors.Is(err, ErrNotRegistered) {
			t.Errorf("a heartbeat too late: %v, want ErrNotRegistered", err)
		}
		// Another ttl is a change.
		m.register("pkg.A", "10.0.0.1:80", 3*time.Second)
		m.register("pkg.A", "10.0.0.1:80", 0)
		settle(time.Hour)
		m.wantReady("pkg.A", "10.0.0.1:80")
		m.stop(nil)
	})
}

// onLog is called with each message of the log, before whoever logs goes on.
type onLog func(message string)

func (onLog) Enabled(context.Context, slog.Level) bool { return true }
func (f onLog) WithAttrs([]slog.Attr) slog.Handler     { return f }
func (f onLog) WithGroup(string) slog.Handler          { return f }
func (f onLog) Handle(_ context.Context, r slog.Record) error {
	f(r.Message)
	return nil
}

// One that comes back at the moment of its removal is recorded, as nothing would
// record it later: it is known, and its heartbeats are not written.
// impatient is the context of a caller who gives up once the commit is under way.
type impatient struct {
	context.Context
	asked int
}

func (c *impatient) Err() error {
	if c.asked++; c.asked <= 2 { // by the one who registers, and by the store
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
			_, _ = m.Register(&impatient{Context: t.Context()}, "pkg.A", "10.0.0.1:80", 0)
			settle(time.Second)
			m.registered()
			_, _ = m.Deregister(&impatient{Context: t.Context()}, "pkg.A", "10.0.0.1:80")
			settle(time.Second)
			m.registered()
		}
		m.stop(nil)
	})
}

func TestHeartbeatThatIsLateByAMomentRegistersAnew(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		world := newFakeOS(t)
		var m *master
		again := 0
		world.log = onLog(func(message string) {
			if strings.Contains(message, "no heartbeat") {
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
		l, err := m.Services().Service("pkg.A").Lease("")
		if err != nil {
			t.Fatal(err)
		}
		x := world.outsider("10.0.0.1:80")
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
		for i := range maxRegistered {
			m.register(fmt.Sprintf("pkg.S%d", i), "10.0.0.1:80", 0)
		}
		if _, err := m.Register(t.Context(), "pkg.More", "10.0.0.1:80", 0); !errors.Is(err, ErrTooMany) {
			t.Errorf("one too many: %v, want ErrTooMany", err)
		}
		m.register("pkg.S7", "10.0.0.1:80", time.Minute) // is there
		if _, err := m.Deregister(t.Context(), "pkg.S8", ""); err != nil {
			t.Error(err)
		}
		m.register("pkg.More", "10.0.0.1:80", 0)
		m.stop(nil)
	})
}

func TestWhatCannotBeRegistered(t *testing.T) {
	good := store.Registration{Service: "pkg.A", Address: "10.0.0.1:80"}
	for name, change := range map[string]func(*store.Registration){
		"no service":     func(r *store.Registration) { r.Service = "" },
		"a bad name":     func(r *store.Registration) { r.Service = "pkg/A" },
		"health":         func(r *store.Registration) { r.Service = "grpc.health.v1.Health" },
		"the core":       func(r *store.Registration) { r.Service = "proto.CoreService" },
		"the admin":      func(r *store.Registration) { r.Service = "hsu.master.admin.v1.Admin" },
		"no address":     func(r *store.Registration) { r.Address = "" },
		"no port":        func(r *store.Registration) { r.Address = "10.0.0.1" },
		"port 0":         func(r *store.Registration) { r.Address = "10.0.0.1:0" },
		"port 65536":     func(r *store.Registration) { r.Address = "10.0.0.1:65536" },
		"port 080":       func(r *store.Registration) { r.Address = "10.0.0.1:080" },
		"a named port":   func(r *store.Registration) { r.Address = "10.0.0.1:http" },
		"no host":        func(r *store.Registration) { r.Address = ":80" },
		"a blank":        func(r *store.Registration) { r.Address = "a b:80" },
		"nowhere":        func(r *store.Registration) { r.Address = "0.0.0.0:80" },
		"a long name":    func(r *store.Registration) { r.Address = strings.Repeat("a.", 200) + "a:80" },
		"a long label":   func(r *store.Registration) { r.Address = strings.Repeat("a", 64) + ":80" },
		"a short ttl":    func(r *store.Registration) { r.TTL = time.Millisecond },
		"a negative ttl": func(r *store.Registration) { r.TTL = -time.Second },
		"a long ttl":     func(r *store.Registration) { r.TTL = 25 * time.Hour },
	} {
		r := good
		change(&r)
		if err := checkRegistration(r); !errors.Is(err, ErrRegistration) {
			t.Errorf("%s: %v, want ErrRegistration", name, err)
		}
	}
	for _, address := range []string{"10.0.0.1:80", "[::1]:65535", "localhost:1", "host-1.example.org:443", "a_b:1", "host.:80"} {
		r := good
		r.Address = address
		if err := checkRegistration(r); err != nil {
			t.Error(err)
		}
	}
}

func FuzzCheckAddress(f *testing.F) {
	for _, s := range []string{"10.0.0.1:80", "[::1]:80", "host:1", ":1", "[fe80::1%eth0]:1", "a:b:c", "\x00:1"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, address string) {
		if CheckAddress(address) != nil {
			return
		}
		host, port, err := net.SplitHostPort(address)
		if err != nil || host == "" || port == "" || strings.ContainsAny(address, " \t\n\x00\x1b") || len(address) > 512 {
			t.Errorf("%q is taken for an address", address)
		}
	})
}

// What real servers are asked.
func TestProber(t *testing.T) {
	core := CoreLogger(slog.New(slog.DiscardHandler))
	state := health.NewServer()
	for name, test := range map[string]struct {
		serve func(*grpc.Server)
		way   int32
	}{
		"an HSU":              {func(s *grpc.Server) { control.RegisterGRPCServerHandler(s, domain.NewDefaultHandler(core), core) }, byPing},
		"with health":         {func(s *grpc.Server) { healthpb.RegisterHealthServer(s, state) }, byHealth},
		"with neither of two": {func(*grpc.Server) {}, byTCP},
	} {
		t.Run(name, func(t *testing.T) {
			l, err := net.Listen("tcp", "127.0.0.1:0")
			if err != nil {
				t.Fatal(err)
			}
			srv := grpc.NewServer()
			test.serve(srv)
			ended := make(chan error, 1)
			go func() { ended <- srv.Serve(l) }()
			p, err := dialOutside(l.Addr().String())
			if err != nil {
				t.Fatal(err)
			}
			ping := func() error {
				ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
				defer cancel()
				return p.Ping(ctx)
			}
			for range 2 {
				if err := ping(); err != nil {
					t.Errorf("it does not answer: %v", err)
				}
				if way := p.(*outsideProber).way.Load(); way != test.way {
					t.Errorf("asked in way %d, want %d", way, test.way)
				}
			}
			if test.way == byHealth {
				state.SetServingStatus("", healthpb.HealthCheckResponse_NOT_SERVING)
				if err := ping(); err == nil || !strings.Contains(err.Error(), "NOT_SERVING") {
					t.Errorf("it is not serving: %v", err)
				}
			}
			srv.Stop()
			if err := <-ended; err != nil {
				t.Error(err)
			}
			if err := ping(); err == nil {
				t.Error("it answers after its end")
			}
			if err := p.Close(); err != nil {
				t.Error(err)
			}
		})
	}
}
