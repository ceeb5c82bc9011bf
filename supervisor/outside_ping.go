package supervisor

import (
	"context"
	"fmt"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/core-tools/hsu-master/internal/crashpoint"
)

// ping asks an endpoint again and again, first now.
func (o *outside) ping(ctx context.Context, x *outsider, p prober, first chan struct{}) {
	tick := time.NewTicker(pingInterval)
	defer tick.Stop()
	for {
		asked := time.Now()
		wait, cancel := context.WithTimeout(ctx, pingTimeout)
		err := p.Ping(wait)
		cancel()
		if ctx.Err() != nil {
			return
		}
		if err == nil {
			o.discover(ctx, x, p)
		}
		// A machine that is loaded, or lacks descriptors, says nothing of the endpoint.
		if err == nil || time.Since(asked) <= pingTimeout+lateness && !outOfReach(err) {
			o.answered(x, p, err)
		}
		if first != nil {
			close(first)
			first = nil
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
	}
}

// discoverEvery is after how many pings an endpoint is asked again what it offers: another
// program may have taken its place between two of them.
const discoverEvery = 12

// discover asks an endpoint that answers which services it offers: before it is ready, while
// something is missing, and now and then. One without reflection has what it is registered
// for; where the answer fails, what was known holds.
func (o *outside) discover(ctx context.Context, x *outsider, p prober) {
	o.mu.Lock()
	x.pings++
	due := !x.ready || x.pings%discoverEvery == 1
	for name := range x.names {
		due = due || !x.has(name)
	}
	o.mu.Unlock()
	if !due {
		return
	}
	bounded, cancel := context.WithTimeout(ctx, discoveryTimeout)
	defer cancel()
	names, err := p.List(bounded)
	if err != nil && status.Code(err) != codes.Unimplemented {
		return
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	if x.prober == p { // else closed meanwhile
		x.reflects, x.listed = err == nil, names
		o.publish(x)
	}
}

// answered takes up what came of a ping.
func (o *outside) answered(x *outsider, p prober, err error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if x.prober != p {
		return // closed meanwhile
	}
	was := x.ready
	if err == nil {
		x.ready, x.missed, x.silence = true, 0, ""
	} else {
		x.missed++
		x.silence = fmt.Sprintf("%.200q", err.Error())
		x.ready = x.ready && x.missed < missedPings
	}
	if x.ready == was {
		return
	}
	crashpoint.Pass(crashpoint.OutsideReady, func() { o.sup.services.SetReady(x.endpoint, x.ready) })
	if x.ready {
		o.sup.log.Info("endpoint from outside is ready", "address", x.address)
		return
	}
	o.sup.log.Warn("endpoint from outside is not ready", "address", x.address, "reason", x.silence)
	o.sup.services.Reconsider()
}
