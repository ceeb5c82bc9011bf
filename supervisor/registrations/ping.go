package registrations

import (
	"context"
	"strconv"
	"sync"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/core-tools/hsu-master/internal/crashpoint"
	"github.com/core-tools/hsu-master/supervisor/probe"
)

// onPinged returns the function that gets the results of the Pings of an address. It closes first after the first one.
func (s *Set) onPinged(x *target, p Prober, first chan struct{}) func(ctx context.Context, r probe.Result) {
	var once sync.Once
	return func(ctx context.Context, r probe.Result) {
		if r.Err == nil {
			s.discover(ctx, x, p)
		}
		// A failure says nothing about the endpoint if this machine is loaded or lacks descriptors.
		if r.Err == nil || !r.Late && !probe.Local(r.Err) {
			s.answered(x, p, r.Err)
		}
		once.Do(func() { close(first) })
	}
}

// ListEvery is the number of answered Pings after which an endpoint is queried again for its services: another
// program may have taken its place between two Pings.
const ListEvery = 12

// discover queries a responding endpoint for its services: before it is ready, while a registered service is
// missing, and at every ListEvery-th answered Ping. An endpoint without reflection has the services that it is
// registered for. If the query fails, the last known list remains valid.
func (s *Set) discover(ctx context.Context, x *target, p Prober) {
	s.mu.Lock()
	x.pings++
	due := !x.ready || x.pings%ListEvery == 1
	for name := range x.names {
		due = due || !x.has(name)
	}
	s.mu.Unlock()
	if !due {
		return
	}
	bounded, cancel := context.WithTimeout(ctx, listTimeout)
	defer cancel()
	names, err := p.List(bounded)
	if err != nil && status.Code(err) != codes.Unimplemented {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if x.prober == p { // otherwise closed meanwhile
		x.reflects, x.listed = err == nil, names
		s.publish(x)
	}
}

// soon is the interval of the Pings of an endpoint that has just missed its first ones, which may be a short
// disturbance.
const soon = time.Second

// pace returns the interval of the Pings of an address; 0 means that of the policy. The caller holds s.mu.
func (s *Set) pace(x *target) time.Duration {
	if x.pings == 0 && x.missed < s.health.Missed {
		return soon
	}
	return 0
}

// answered applies the result of a Ping.
func (s *Set) answered(x *target, p Prober, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if x.prober != p {
		return // closed meanwhile
	}
	was := x.ready
	if err == nil {
		x.ready, x.missed, x.reason = true, 0, ""
	} else {
		x.missed++
		quoted := strconv.Quote(probe.Brief(err)) // it may come from the endpoint
		x.reason = quoted[1 : len(quoted)-1]
		// Of an endpoint that has never answered this master, only a record says that it is there.
		x.ready = x.ready && x.pings > 0 && x.missed < s.health.Missed
	}
	x.check.Pace(s.pace(x))
	if x.ready == was {
		return
	}
	crashpoint.Pass(crashpoint.OutsideReady, func() { s.services.SetReady(x.endpoint, x.ready) })
	if x.ready {
		s.log.Info("endpoint ready", "address", x.address)
		return
	}
	s.log.Warn("endpoint not ready", "address", x.address, "reason", x.reason)
	s.services.Reconsider()
}
