//go:build e2e && linux && (crash || torture)

package crash

import (
	"fmt"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/core-tools/hsu-master/api/adminpb"
	"github.com/core-tools/hsu-master/e2e/harness"
	"github.com/core-tools/hsu-master/e2e/testdata/echo"
	"github.com/core-tools/hsu-master/store/records"
)

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
	r.registrations.checkReported(state, fail)
	for service, states := range r.registrations.possible {
		switch {
		case len(states) > 1: // either
		case states[absent]:
			r.checkCalled(service, codes.Unimplemented, fail)
		case r.registrations.endpoint.server != nil:
			r.checkCalled(service, codes.OK, fail)
		}
	}
}

func (r *rig) checkCalled(service string, want codes.Code, fail func(string, ...any)) {
	ctx, cancel := brief()
	defer cancel()
	if err := r.calls.relay(ctx, service, false); status.Code(err) != want {
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
			!r.workers.beings[b.token].doomed {
			for _, offer := range rec.Services {
				want[offer.Name+" "+b.worker] = harness.Loopback(b.port)
			}
		}
	}
	for service, states := range r.registrations.possible {
		if !states[absent] && r.registrations.endpoint.server != nil {
			want[service+" "] = r.registrations.endpoint.address
		}
	}
	return want
}

// checkServing checks the routes of a master that has just begun to serve.
func (r *rig) checkServing(want map[string]string) error {
	state, err := r.admin.ask()
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
