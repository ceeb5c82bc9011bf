package relay

import (
	"sync/atomic"
	"time"

	"golang.org/x/net/http2"
)

const (
	// mostStrikes is how often a client may send a PING too soon, as in grpc-go.
	mostStrikes = 2
	// Frames that do nothing, and streams that are reset, are paid for from purses that fill with time and with what
	// a client does in earnest.
	nuisancePurse = 2000
	nuisanceRate  = 200 // a second
	resetPurse    = 2 * maxStreams
	resetRate     = 500 // a second
)

// guard is what a client can misuse, and how often it has. Its reader owns it, but for the atomic fields.
type guard struct {
	preface  bool
	old      bool         // TLS has not agreed on HTTP/2 with it
	queued   atomic.Int64 // bytes that wait for the client's calls
	headers  atomic.Int64 // bytes of the headers that are kept for them
	grown    atomic.Int64 // bytes by which the windows of their answers have grown
	withheld atomic.Bool  // the connection's window was not given back

	strikes  int
	lastPing time.Duration
	nuisance purse
	resets   purse
}

// purse is a number of things that one may do. It fills up again with time.
type purse struct {
	spent float64
	last  time.Duration
}

// spend takes one out, and tells whether there was one.
func (p *purse) spend(now time.Duration, size, rate float64) bool {
	p.spent = max(0, p.spent-rate*(now-p.last).Seconds())
	p.last = now
	p.spent++
	return p.spent <= size
}

// earn puts n back.
func (p *purse) earn(n float64) {
	if p.spent > 0 {
		p.spent = max(0, p.spent-n)
	}
}

// frame counts a frame. It returns an error where there were too many that do nothing.
func (g *guard) frame(f *frame, r *Relay) error {
	switch f.kind {
	case http2.FrameHeaders:
		g.nuisance.earn(1)
		return nil
	case http2.FrameWindowUpdate, http2.FrameRSTStream, http2.FrameContinuation, http2.FramePushPromise, http2.FrameGoAway:
		return nil
	case http2.FrameData:
		if len(f.payload) > 0 || f.flags&http2.FlagDataEndStream != 0 {
			g.nuisance.earn(1)
			return nil
		}
	case http2.FrameSettings:
		if f.flags&http2.FlagSettingsAck != 0 && len(f.payload) == 0 {
			return nil
		}
	case http2.FramePing:
		// Those who measure a connection send one with each answer, and have those for nothing.
		g.nuisance.earn(0.5)
	default:
	}
	if !g.nuisance.spend(r.now(), nuisancePurse, nuisanceRate) {
		return connError{http2.ErrCodeEnhanceYourCalm, "too many frames that do nothing"}
	}
	return nil
}

// ping tells whether a client may send a PING now. useful: something that answers a call went to it since the last.
func (g *guard) ping(now time.Duration, useful bool, least time.Duration) bool {
	early := g.lastPing != 0 && now-g.lastPing < least
	g.lastPing = now
	switch {
	case useful:
		g.strikes = 0
	case early:
		g.strikes++
	}
	return g.strikes <= mostStrikes
}

// reset counts a stream that the client reset.
func (g *guard) reset(now time.Duration) error {
	if !g.resets.spend(now, resetPurse, resetRate) {
		return connError{http2.ErrCodeEnhanceYourCalm, "too many streams reset"}
	}
	return nil
}

// ring remembers the ids of streams that ended last.
type ring struct {
	ids [32]uint32
	at  int
}

func (r *ring) add(id uint32) {
	r.ids[r.at] = id
	r.at = (r.at + 1) % len(r.ids)
}

func (r *ring) has(id uint32) bool {
	for _, i := range r.ids {
		if i == id {
			return true
		}
	}
	return false
}
