package relay

import (
	"github.com/core-tools/hsu-master/api/relay/deferred"
	"github.com/core-tools/hsu-master/api/relay/peers"
)

// The memory kept for clients is bounded for all of them together. Above three quarters of Options.MaxBuffered, the
// relay terminates calls until five eighths are in use: calls of the peer that holds the most, on that peer's
// connection that holds the most, the largest calls first. So a peer that holds little loses nothing to a peer that
// holds much. Input that has arrived in part is never kept beyond MaxBuffered: it is counted before the connection is
// read again, and if there is no memory for it, the connection ends. With the other kinds of memory, the use can exceed
// MaxBuffered, at which every client with queued data is stopped, only by the data that one read of each connection can
// bring. While a reader handles a read, it uses a buffer of 64 KiB that is not counted.
const (
	shedAbove = 3 // quarters
	shedTo    = 5 // eighths
	// mostShedding bounds the connections that one shed handles; the next read continues.
	mostShedding = 64
)

// mostWithInput returns the limit of the memory kept for all clients beyond which no input of the peer is kept. The
// last eighth is for peers that hold at most half of the kept bytes.
func (e *env) mostWithInput(p *peers.Peer) int64 {
	most := int64(e.opts.MaxBuffered)
	if p.Kept() > e.peers.Kept()/2 {
		return most / 8 * 7
	}
	return most
}

// shed terminates calls if too much is kept. If another reader does so, it returns at once, or with await when that is
// done. It is called by readers, which hold no lock.
func (s *crowd) shed(w *deferred.Work, await bool) {
	most := int64(s.env.opts.MaxBuffered)
	if s.env.peers.Kept() <= most/4*shedAbove {
		return
	}
	if await {
		s.shedding.Lock()
	} else if !s.shedding.TryLock() {
		return
	}
	defer s.shedding.Unlock()
	for range mostShedding {
		over := s.env.peers.Kept() - most/8*shedTo
		p := s.env.peers.Largest()
		if over <= 0 || p == nil {
			return
		}
		s.env.log.Limited("memory: largest calls ended", p)
		c := s.largestOf(p)
		if c == nil {
			return // its connections are ending
		}
		c.shed(w, over)
	}
}

// largestOf returns the connection of the peer that holds the most.
func (s *crowd) largestOf(p *peers.Peer) (largest *clientConn) {
	most := int64(0)
	for _, c := range s.all() {
		if c.account.Peer() != p {
			continue
		}
		if n := c.kept(); n > most {
			largest, most = c, n
		}
	}
	return largest
}
