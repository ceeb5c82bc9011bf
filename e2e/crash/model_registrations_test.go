//go:build e2e && linux && (crash || torture)

package crash

import (
	"context"
	"errors"
	"maps"
	"net"
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

// registrations are the registrations of the guest: it makes them, and knows what they may be.
type registrations struct {
	admin admin
	calls *calls // which note what the guest has handled
	port  int    // outside of the ephemeral range: it stays free while the guest is gone for a moment

	endpoint *guest         // nil if there is none
	possible map[string]may // by service
}

// invite starts the guest if it does not serve.
func (g *registrations) invite() error {
	if g.endpoint != nil && g.endpoint.server != nil {
		return nil
	}
	if g.endpoint == nil {
		g.endpoint = &guest{address: harness.Loopback(g.port)}
	}
	l, err := net.Listen("tcp", g.endpoint.address)
	if err != nil {
		return err
	}
	server := grpc.NewServer(echo.Streams(func(ctx context.Context, message string) (string, error) {
		if message != "" { // otherwise it is the master's Ping
			g.calls.mu.Lock()
			g.calls.note(message)
			g.calls.mu.Unlock()
		}
		return message, echo.Slowly(ctx, message)
	}))
	g.endpoint.server, g.endpoint.done = server, make(chan struct{})
	go func(done chan struct{}) {
		defer close(done)
		_ = server.Serve(l)
	}(g.endpoint.done)
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
func (g *registrations) asked(service string, state time.Duration,
	ask func(context.Context, adminpb.RegistryClient) error,
) error {
	if g.possible[service] == nil {
		g.possible[service] = only(absent)
	}
	maps.Copy(g.possible[service], only(state))
	err := g.admin.registry(ask)
	if err == nil {
		g.possible[service] = only(state)
	}
	return err
}

// register registers the guest for a service, with 0 for no ttl.
func (g *registrations) register(service string, ttl time.Duration) error {
	return g.asked(service, ttl, func(ctx context.Context, to adminpb.RegistryClient) error {
		request := &adminpb.RegisterRequest{Service: service, Address: g.endpoint.address}
		if ttl > 0 {
			request.Ttl = durationpb.New(ttl)
		}
		_, err := to.Register(ctx, request)
		return err
	})
}

func (g *registrations) deregister(service string) error {
	return g.asked(service, absent, func(ctx context.Context, to adminpb.RegistryClient) error {
		_, err := to.Deregister(ctx, &adminpb.DeregisterRequest{Service: service, Address: g.endpoint.address})
		return err
	})
}

func (g *registrations) heartbeat(service string) error {
	return g.admin.registry(func(ctx context.Context, to adminpb.RegistryClient) error {
		_, err := to.Heartbeat(ctx, &adminpb.HeartbeatRequest{Service: service, Address: g.endpoint.address})
		return err
	})
}

// takeBack removes all registrations.
func (g *registrations) takeBack() error {
	var errs []error
	for service, states := range g.possible {
		if len(states) == 1 && states[absent] {
			continue
		}
		err := g.deregister(service)
		if status.Code(err) == codes.NotFound && states[absent] {
			g.possible[service], err = only(absent), nil
		}
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}

// check compares the registrations, with the ttl of each service, with the possible ones. While no
// master runs, the recorded state is the actual one.
func (g *registrations) check(now map[string]time.Duration, recorded bool, fail func(string, ...any)) {
	for service := range now {
		if g.possible[service] == nil {
			fail("%s is registered, and was not to be", service)
		}
	}
	for service, states := range g.possible {
		state, there := now[service]
		if !there {
			state = absent
		}
		if !states[state] {
			fail("the registration of %s has a ttl of %v, where -1ns is none, and may have one of %v",
				service, state, slices.Collect(maps.Keys(states)))
		}
		if recorded {
			g.possible[service] = only(state)
		}
	}
}

// recorded returns the recorded registrations.
func (g *registrations) recorded(all []records.Registration, fail func(string, ...any)) map[string]time.Duration {
	now := map[string]time.Duration{}
	for _, one := range all {
		if g.endpoint == nil || one.Address != g.endpoint.address {
			fail("a registration of nobody: %+v", one)
		}
		now[one.Service] = one.TTL
	}
	return now
}

// checkReported compares the registrations that the master reports with the possible ones.
func (g *registrations) checkReported(state *adminpb.State, fail func(string, ...any)) {
	registered := map[string]time.Duration{}
	for _, s := range state.GetServices() {
		for _, e := range s.GetEndpoints() {
			if e.GetSource() == "registered" {
				registered[s.GetName()] = e.GetTtl().AsDuration()
			}
		}
	}
	g.check(registered, false, fail)
}
