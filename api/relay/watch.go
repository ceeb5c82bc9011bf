package relay

import (
	"errors"
	"time"

	"github.com/core-tools/hsu-master/api/relay/deferred"
)

var (
	errSilent    = errors.New("no answer to a PING")
	errHead      = errors.New("the head of a call, or another frame, was not whole within the time for it")
	errHandshake = errors.New("no HTTP/2 within the time for it")
)

// lateness is the delay of a tick from which the silence of peers proves nothing.
const lateness = time.Second

// watch checks all connections at each tick. Silent connections get a PING; connections whose peers do not answer,
// and connections that are not needed, are closed. So connections need neither timers nor goroutines for this.
func (r *Relay) watch() {
	o := &r.opts
	every := min(time.Second, o.HandshakeTimeout/4, o.HeadTimeout/4, o.ClientPing/4,
		o.BackendPing/4, o.BackendSilence/4, o.PingTimeout/4, o.BackendIdle/4)
	tick := time.NewTicker(max(every, time.Millisecond))
	defer tick.Stop()
	var w deferred.Work
	for last := r.now(); ; {
		select {
		case <-r.ctx.Done():
			return
		case <-tick.C:
		}
		now := r.now()
		late := now-last > every+lateness
		if last = now; late {
			continue // this process was stopped or starved: read first, the answer may have arrived meanwhile
		}
		for _, c := range r.allClients() {
			c.look(&w, r.now())
			c.goOn(&w) // other clients may have released memory
		}
		for _, c := range r.allBackends() {
			c.look(&w, r.now())
		}
		w.Hand()
		r.countOthers()
		r.pools.sweep()
		r.peers.Sweep(r.now())
	}
}
