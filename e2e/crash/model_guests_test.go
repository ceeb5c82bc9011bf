//go:build e2e && linux && (crash || torture)

package crash

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net"
	"path/filepath"
	"slices"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/core-tools/hsu-master/api/adminpb"
	"github.com/core-tools/hsu-master/e2e/harness"
	"github.com/core-tools/hsu-master/e2e/testdata/echo"
	"github.com/core-tools/hsu-master/store/records"
)

// Registered endpoints, and their registrations as far as the test knows.

// guest is a registered endpoint that offers every service.
type guest struct {
	address string
	server  *grpc.Server
	done    chan struct{}
}

// invite starts the rig's guest if it does not serve.
func (r *rig) invite() error {
	if r.guest != nil && r.guest.server != nil {
		return nil
	}
	if r.guest == nil {
		r.guest = &guest{address: harness.Loopback(r.guestPort)}
	}
	l, err := net.Listen("tcp", r.guest.address)
	if err != nil {
		return err
	}
	server := grpc.NewServer(echo.Streams(func(ctx context.Context, message string) (string, error) {
		if message != "" { // otherwise it is the master's Ping
			r.calls.mu.Lock()
			r.calls.note(message)
			r.calls.mu.Unlock()
		}
		return message, echo.Slowly(ctx, message)
	}))
	r.guest.server, r.guest.done = server, make(chan struct{})
	go func(done chan struct{}) {
		defer close(done)
		_ = server.Serve(l)
	}(r.guest.done)
	return nil
}

// leave stops the guest at once.
func (g *guest) leave() {
	if g.server != nil {
		g.server.Stop()
		<-g.done
		g.server = nil
	}
}

// may is the set of possible states of a registration: its ttl, or its absence. After a change that was requested
// and not acknowledged, both the previous and the requested state are possible; the next inspection of the records
// decides.
type may map[time.Duration]bool

const (
	absent = time.Duration(-1)
	// fleeting is the shortest ttl: such a registration may be gone at the next inspection.
	fleeting = time.Second
)

func only(states ...time.Duration) may {
	m := may{}
	for _, s := range states {
		m[s] = true
		if s == fleeting {
			m[absent] = true
		}
	}
	return m
}

// asked makes a change of a registration. The new state is possible from now on, and certain if ask returns no
// error.
func (r *rig) asked(service string, state time.Duration,
	ask func(context.Context, adminpb.RegistryClient) error,
) error {
	if r.outside[service] == nil {
		r.outside[service] = only(absent)
	}
	maps.Copy(r.outside[service], only(state))
	err := r.registry(ask)
	if err == nil {
		r.outside[service] = only(state)
	}
	return err
}

func (r *rig) registry(ask func(context.Context, adminpb.RegistryClient) error) error {
	conn, err := quickDial("unix://" + filepath.Join(r.state, "run", "admin.sock"))
	if err != nil {
		return err
	}
	defer conn.Close()
	ctx, cancel := brief()
	defer cancel()
	return ask(ctx, adminpb.NewRegistryClient(conn))
}

// register registers the guest for a service, with 0 for no ttl.
func (r *rig) register(service string, ttl time.Duration) error {
	return r.asked(service, ttl, func(ctx context.Context, to adminpb.RegistryClient) error {
		request := &adminpb.RegisterRequest{Service: service, Address: r.guest.address}
		if ttl > 0 {
			request.Ttl = durationpb.New(ttl)
		}
		_, err := to.Register(ctx, request)
		return err
	})
}

func (r *rig) deregister(service string) error {
	return r.asked(service, absent, func(ctx context.Context, to adminpb.RegistryClient) error {
		_, err := to.Deregister(ctx, &adminpb.DeregisterRequest{Service: service, Address: r.guest.address})
		return err
	})
}

func (r *rig) heartbeat(service string) error {
	return r.registry(func(ctx context.Context, to adminpb.RegistryClient) error {
		_, err := to.Heartbeat(ctx, &adminpb.HeartbeatRequest{Service: service, Address: r.guest.address})
		return err
	})
}

// takeBack removes all registrations.
func (r *rig) takeBack() error {
	var errs []error
	for service, states := range r.outside {
		if len(states) == 1 && states[absent] {
			continue
		}
		err := r.deregister(service)
		if status.Code(err) == codes.NotFound && states[absent] {
			r.outside[service], err = only(absent), nil
		}
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}

// checkRegistrations compares the registrations, with the ttl of each service, with the possible ones. While no
// master runs, the recorded state is the actual one.
func (r *rig) checkRegistrations(now map[string]time.Duration, recorded bool, fail func(string, ...any)) {
	for service := range now {
		if r.outside[service] == nil {
			fail("%s is registered, and was not to be", service)
		}
	}
	for service, states := range r.outside {
		state, there := now[service]
		if !there {
			state = absent
		}
		if !states[state] {
			fail("the registration of %s has a ttl of %v, where -1ns is none, and may have one of %v",
				service, state, slices.Collect(maps.Keys(states)))
		}
		if recorded {
			r.outside[service] = only(state)
		}
	}
}

// recordedOutside returns the recorded registrations.
func (r *rig) recordedOutside(all []records.Registration, fail func(string, ...any)) map[string]time.Duration {
	now := map[string]time.Duration{}
	for _, g := range all {
		if r.guest == nil || g.Address != r.guest.address {
			fail("a registration of nobody: %+v", g)
		}
		now[g.Service] = g.TTL
	}
	return now
}

// checkRoutes compares the services that the master offers with the actual state: no dead process gets calls,
// registrations are unchanged, and calls are answered.
func (r *rig) checkRoutes(state *adminpb.State, living []being, fail func(string, ...any)) {
	at := map[string]string{}
	for _, b := range living {
		at[harness.Loopback(b.port)] = b.worker
	}
	for _, s := range state.GetServices() {
		for _, e := range s.GetEndpoints() {
			if e.GetSource() != "registered" && e.GetHealthy() && at[e.GetAddress()] != e.GetWorker() {
				fail("%s gets calls of %s at %s, where %q lives",
					e.GetWorker(), s.GetName(), e.GetAddress(), at[e.GetAddress()])
			}
		}
		if s.GetName() == echo.Service {
			r.checkCalled(echo.Service, codes.OK, fail)
		}
	}
	r.checkOutside(state, fail)
	for service, states := range r.outside {
		switch {
		case len(states) > 1: // either
		case states[absent]:
			r.checkCalled(service, codes.Unimplemented, fail)
		case r.guest.server != nil:
			r.checkCalled(service, codes.OK, fail)
		}
	}
}

// checkOutside compares the registrations that the master reports with the possible ones.
func (r *rig) checkOutside(state *adminpb.State, fail func(string, ...any)) {
	registered := map[string]time.Duration{}
	for _, s := range state.GetServices() {
		for _, e := range s.GetEndpoints() {
			if e.GetSource() == "registered" {
				registered[s.GetName()] = e.GetTtl().AsDuration()
			}
		}
	}
	r.checkRegistrations(registered, false, fail)
}

func (r *rig) checkCalled(service string, want codes.Code, fail func(string, ...any)) {
	ctx, cancel := brief()
	defer cancel()
	if err := r.relay(ctx, service, false); status.Code(err) != want {
		fail("a call of %s: %w, want %s", service, err, want)
	}
}

// atServing returns the services that must have an endpoint from the moment of SERVING on: those of each worker
// that was running and lives, and those of the guest.
func (r *rig) atServing(before offline) map[string]string {
	want := map[string]string{}
	for _, b := range before.living {
		rec := before.records[b.worker]
		if b.leader && rec.Status == records.StatusRunning && rec.Instance.Token == b.token &&
			!r.known.beings[b.token].doomed {
			for _, offer := range rec.Services {
				want[offer.Name+" "+b.worker] = harness.Loopback(b.port)
			}
		}
	}
	for service, states := range r.outside {
		if !states[absent] && r.guest.server != nil {
			want[service+" "] = r.guest.address
		}
	}
	return want
}

// checkServing checks the routes of a master that has just begun to serve.
func (r *rig) checkServing(want map[string]string) error {
	state, err := r.ask()
	if err != nil {
		return err
	}
	for _, s := range state.GetServices() {
		for _, e := range s.GetEndpoints() {
			if key := s.GetName() + " " + e.GetWorker(); e.GetHealthy() && want[key] == e.GetAddress() {
				delete(want, key)
			}
		}
	}
	if len(want) > 0 {
		return fmt.Errorf("SERVING, and there is no route yet to %v, of %v", want, state.GetServices())
	}
	return nil
}
