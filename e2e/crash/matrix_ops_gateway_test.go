//go:build e2e && crash && linux

package crash

import (
	"errors"
	"fmt"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
	"google.golang.org/grpc"

	"github.com/core-tools/hsu-master/e2e/testdata/echo"
)

// Operations on the gateway's endpoints: registered endpoints come and go, workers report services, and the master
// ends during calls.

// The services of the guest.
const guestA, guestB = "guest.A", "guest.B"

func operationsOfTheGateway() []*operation {
	both := []string{"--worker-service", "proto.MyBusinessService", "--worker-service", echo.Service}
	return []*operation{
		{
			name: "endpoint registered", prepare: invited, rest: immediately, after: takenBack,
			begin: func(r *rig) error {
				_ = r.registrations.register(guestA, 0)
				_ = r.registrations.register(guestB, time.Hour)
				return nil
			},
		},
		{
			name: "endpoint renewed", prepare: withGuests(time.Hour, time.Hour),
			rest: immediately, after: takenBack,
			begin: func(r *rig) error {
				_ = r.registrations.heartbeat(guestA)
				_ = r.registrations.register(guestA, time.Hour) // nothing to write
				_ = r.registrations.register(guestB, 2*time.Hour)
				return nil
			},
		},
		{
			name: "endpoint deregistered", prepare: withGuests(0, time.Hour), begin: deregistered,
			rest: immediately, after: takenBack,
		},
		{
			name: "endpoint deregistered, failing", prepare: withGuests(0, 0), rest: repaired, after: takenBack,
			begin: func(r *rig) error {
				// The commit is done, but reported as failed: then the recorded state is unknown.
				if err := r.masters.fault("after-commit", "EIO"); err != nil {
					return err
				}
				_ = r.registrations.deregister(guestA)
				_ = r.registrations.register(guestA, 0)
				return r.masters.fault("after-commit", "")
			},
		},
		{
			name: "endpoint expires",
			prepare: func(r *rig) error {
				return errors.Join(r.registrations.invite(), r.registrations.register(guestA, 0))
			},
			begin: func(r *rig) error { // not earlier: it must not expire before the operation
				_ = r.registrations.register(guestB, fleeting)
				return nil
			},
			rest: func(_ *rig, before, now map[string]int) error {
				if now["after-expire-record"] == before["after-expire-record"] {
					return errors.New("it has not expired")
				}
				return nil
			},
			after: func(r *rig) error { return errors.Join(r.expired(), r.registrations.takeBack()) },
		},
		{
			name: "services told", life: 10, habit: "told", begin: ends(unix.SIGKILL),
			rest: func(r *rig, before, now map[string]int) error {
				if now["after-told"] == before["after-told"] {
					return errors.New("the new instance has not told of its services")
				}
				return restarted(r, before, now)
			},
		},
		{
			name: "recovery of routes", habit: "told", launched: true, after: takenBack,
			prepare: func(r *rig) error { return errors.Join(withGuests(0, time.Hour)(r), r.masters.kill()) },
		},
		{
			name: "recovery of routes, one dead", life: 10, habit: "told", launched: true, after: takenBack,
			prepare: func(r *rig) error {
				err := errors.Join(withGuests(0, time.Hour)(r), r.masters.kill(), ends(unix.SIGKILL)(r))
				return errors.Join(err, r.workers.gone())
			},
		},
		{
			name: "shutdown under calls", flags: both, mayEnd: allEnd, rest: never, after: takenBack,
			prepare: withGuests(0, time.Hour), begin: underCalls(syscall.SIGTERM),
		},
		{
			name: "detach under calls", flags: both, rest: never, after: takenBack,
			prepare: withGuests(0, time.Hour), begin: underCalls(syscall.SIGUSR1),
		},
	}
}

func invited(r *rig) error { return r.registrations.invite() }

func takenBack(r *rig) error { return r.registrations.takeBack() }

// withGuests registers the guest for both services, with these ttls.
func withGuests(a, b time.Duration) func(*rig) error {
	return func(r *rig) error {
		g := &r.registrations
		return errors.Join(g.invite(), g.register(guestA, a), g.register(guestB, b))
	}
}

// deregistered removes both registrations, one of them during a call, which continues.
func deregistered(r *rig) error {
	ctx, cancel := brief()
	defer cancel()
	s, err := r.calls.openStream(ctx, guestA)
	if err == nil {
		err = s.exchange("message")
	}
	if err != nil {
		if r.masters.dies() { // at a commit of something else
			return nil
		}
		return err
	}
	_ = r.registrations.deregister(guestA)
	if err := errors.Join(s.exchange("message"), s.finish()); err != nil && !r.masters.dies() {
		return fmt.Errorf("a call that was under way when its endpoint was deregistered: %w", err)
	}
	_ = r.registrations.deregister(guestB)
	return nil
}

// expired waits until the running master has removed the expiring registration.
func (r *rig) expired() error {
	_, err := r.masters.await("the registration to expire", func() error {
		state, err := r.admin.ask()
		if err != nil {
			return err
		}
		for _, s := range state.GetServices() {
			for _, e := range s.GetEndpoints() {
				if e.GetTtl().AsDuration() == fleeting {
					return fmt.Errorf("%s: %v", s.GetName(), e)
				}
			}
		}
		return nil
	})
	if err == nil {
		r.registrations.possible[guestB] = only(absent)
	}
	return err
}

// underCalls ends the master with a signal while streams are open and calls are in flight, at workers and at the
// guest. Calls in flight may end if the master is not killed.
func underCalls(signal syscall.Signal) func(*rig) error {
	return func(r *rig) error {
		var opened sync.WaitGroup
		for _, service := range []string{echo.Service, guestA, echo.Service, guestB} {
			opened.Add(1)
			r.underWay.Go(func() {
				ctx, cancel := brief()
				defer cancel()
				s, err := r.calls.openStream(ctx, service, grpc.WaitForReady(true))
				if err == nil {
					err = s.exchange("message")
				}
				opened.Done()
				if err == nil && s.exchange("slow message") == nil {
					_ = s.finish()
				}
			})
		}
		opened.Wait()
		return r.masters.signal(signal)
	}
}
