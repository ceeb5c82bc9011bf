package worker

import (
	"context"
	"slices"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/emptypb"

	"github.com/core-tools/hsu-master/internal/rpc"
	"github.com/core-tools/hsu-master/supervisor/lifecycle"
	"github.com/core-tools/hsu-master/supervisor/ports"
	"github.com/core-tools/hsu-master/supervisor/services"
	"github.com/core-tools/hsu-master/supervisor/unit"
)

// DiscoveryTimeout limits the query for a worker's services.
const DiscoveryTimeout = 2 * time.Second

// admit makes the worker an endpoint for requests, if it is connected for them.
func (w *owner) admit(ctx context.Context) {
	if w.routes.endpoint != nil || w.link == nil || w.link.GRPC() == nil {
		return
	}
	incarnation, port := w.rec.Incarnation, w.rec.Instance.Port
	w.routes.admit(&services.Endpoint{
		Address: ports.Address(port), Worker: w.id, Conn: w.link.GRPC(),
		Verify: verifier(w.inst, port, func(ctx context.Context, stranger error) {
			w.ConnectionLost(ctx, incarnation, stranger)
		}),
		// A worker that only failed to answer for a while, or was adopted, is already warmed up.
		Warm: w.adopted || w.routes.admitted == incarnation,
	}, incarnation)
	select {
	case <-w.env.Recovered:
		w.discover(ctx)
	default:
		// The worker is queried after the recovery: see afterwards.
	}
}

// discover queries the worker, unless that has been done, for the services that it offers besides those of its
// unit.
func (w *owner) discover(ctx context.Context) {
	if w.link == nil || w.link.GRPC() == nil || !w.routes.ask(w.rec.Incarnation) {
		return
	}
	incarnation, conn, assumed := w.rec.Incarnation, w.link.GRPC(), w.unit.Assumed
	w.helpers.Go(func() {
		d := askServices(ctx, conn, assumed)
		w.post(ctx, message{
			incarnation: incarnation,
			apply:       func(ctx context.Context) { w.onDiscovered(ctx, d) },
		})
	})
}

// askServices queries the reflection of the worker at conn and, if assumed is set, whether it answers as the
// [unit.DefaultService].
func askServices(ctx context.Context, conn grpc.ClientConnInterface, assumed bool) discovery {
	var d discovery
	var silence error
	if assumed {
		d.answers, silence = answersAsDefault(ctx, conn)
	}
	bounded, cancel := context.WithTimeout(ctx, DiscoveryTimeout)
	defer cancel()
	d.names, d.err = services.NewReflection(bounded, conn).List()
	if silence != nil && status.Code(d.err) == codes.Unimplemented {
		d.err = silence // there is no list either: retry
	}
	return d
}

// answersAsDefault reports whether GetStatus of the [unit.DefaultService] is answered. An error other than
// UNIMPLEMENTED leaves that open. The messages are not decoded: the generated code belongs to the guide, and the rules
// on imports keep it out of this package.
func answersAsDefault(ctx context.Context, conn grpc.ClientConnInterface) (bool, error) {
	bounded, cancel := context.WithTimeout(ctx, DiscoveryTimeout)
	defer cancel()
	const method = "/" + unit.DefaultService + "/GetStatus"
	err := rpc.Conn{ClientConnInterface: conn}.Invoke(bounded, method, &emptypb.Empty{}, &emptypb.Empty{})
	if status.Code(err) == codes.Unimplemented {
		return false, nil
	}
	return err == nil, err
}

// onDiscovered applies the worker's report.
func (w *owner) onDiscovered(ctx context.Context, d discovery) {
	w.routes.asked.pending = false
	if w.state.Slot != lifecycle.Occupied {
		return
	}
	before := w.routes.served()
	if w.routes.learn(d) {
		// Record before routing: a crash must not remove a route that existed. If the state cannot be written now,
		// the next change records the offers.
		if w.env.Store.Writable() == nil {
			w.record(ctx)
		}
		w.routes.offer(w.state.Retired)
	}
	w.routes.update(before)
}

// routable removes invalid names and services that each endpoint has for itself.
func routable(names []string) []string {
	return slices.DeleteFunc(names, func(name string) bool {
		return services.CheckName(name) != nil || services.Infrastructure(name)
	})
}
