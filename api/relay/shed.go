package relay

import (
	"cmp"
	"errors"
	"slices"

	"golang.org/x/net/http2"

	"github.com/core-tools/hsu-master/api/relay/deferred"
	"github.com/core-tools/hsu-master/api/relay/peers"
	"github.com/core-tools/hsu-master/api/relay/protocol"
	"github.com/core-tools/hsu-master/api/relay/streams"
)

// The memory kept for clients is bounded for all of them together. Above three quarters of Options.MaxBuffered, the
// relay terminates calls until five eighths are in use: calls of the peer that holds the most, on that peer's
// connection that holds the most, the largest calls first. So a peer that holds little loses nothing to a peer that
// holds much. The use can exceed MaxBuffered itself, at which every client with queued data is stopped, only by the
// data that one read of each connection can bring.
const (
	shedAbove = 3 // quarters
	shedTo    = 5 // eighths
	// mostShedding bounds the connections that one shed handles; the next read continues.
	mostShedding = 64
)

// callCost and localCost are the bytes that a call itself costs: a call to an endpoint, and a call to the master's
// own server, which has a goroutine and buffers for it (measured: 12.6 KB).
const (
	callCost  = 1 << 10
	localCost = 16 << 10
)

var errMemory = errors.New("more is kept for the client than for others, and memory is short")

// shed terminates calls if too much is kept. It is called by readers, which hold no lock.
func (r *Relay) shed(w *deferred.Work) {
	most := int64(r.opts.MaxBuffered)
	if r.peers.Held() <= most/4*shedAbove || !r.shedding.TryLock() {
		return
	}
	defer r.shedding.Unlock()
	for range mostShedding {
		over := r.peers.Held() - most/8*shedTo
		p := r.peers.Largest()
		if over <= 0 || p == nil {
			return
		}
		r.log.Limited("memory: what holds the most is broken off", p)
		c := r.largestOf(p)
		if c == nil {
			return // its connections are ending
		}
		shedFrom(c, w, over)
	}
}

// largestOf returns the connection of the peer that holds the most.
func (r *Relay) largestOf(p *peers.Peer) (largest *clientConn) {
	most := int64(0)
	for _, c := range r.allClients() {
		if c.member.Peer() != p {
			continue
		}
		if n := c.member.Held(); n > most && c.over() == nil {
			largest, most = c, n
		}
	}
	return largest
}

// shedFrom terminates calls of a connection, the largest first, until the wanted bytes or half of the connection's
// bytes are free. If that is not enough, the connection itself holds the rest, and is closed.
func shedFrom(c *clientConn, w *deferred.Work, wanted int64) {
	before := c.member.Held()
	enough := before - min(wanted, max(before/2, 1))
	for _, s := range bySize(c.streams()) {
		if c.member.Held() <= enough {
			return
		}
		shedCall(c, w, s)
	}
	if c.member.Held() > enough {
		c.kill(errMemory)
	}
}

// bySize sorts calls: those that hold the most first, and of equal ones the newest first.
func bySize(calls []streams.Stream[*call]) []streams.Stream[*call] {
	sizes := make(map[uint32]int, len(calls))
	for _, s := range calls {
		s.Call.mu.Lock()
		sizes[s.ID] = s.Call.held()
		s.Call.mu.Unlock()
	}
	slices.SortFunc(calls, func(x, y streams.Stream[*call]) int {
		return cmp.Or(cmp.Compare(sizes[y.ID], sizes[x.ID]), cmp.Compare(y.ID, x.ID))
	})
	return calls
}

// shedCall terminates the call of a stream, if it still has that stream.
func shedCall(c *clientConn, w *deferred.Work, s streams.Stream[*call]) {
	k := s.Call
	k.mu.Lock()
	defer k.unlock(w)
	switch {
	case k.client != c || k.clientID != s.ID:
	case k.response == awaited:
		k.fail(w, protocol.CodeResourceExhausted, errMemory.Error())
	default:
		// Queued data precedes any status, so the stream has to end without one.
		k.code = protocol.CodeResourceExhausted
		k.client.reset(w, k.clientID, http2.ErrCodeEnhanceYourCalm)
		k.leaveClient(w)
		k.closeFinished(w)
	}
}
