package relay

import (
	"sync/atomic"
	"time"

	"golang.org/x/net/http2"

	"github.com/core-tools/hsu-master/api/relay/frames"
	"github.com/core-tools/hsu-master/api/relay/peers"
)

const (
	// mostStrikes is the number of PINGs that a client may send too early, as in grpc-go.
	mostStrikes = 2
	// leastHeld is the smallest output that is worth counting.
	leastHeld = 4 << 10
	// updateCost is the cost of a WINDOW_UPDATE in units of work. Each time that data is sent to the client, this
	// pays for two updates, and one more unit for each paidEach bytes, since some clients acknowledge little at a
	// time.
	updateCost = peers.Frame / 2
	paidEach   = 512
	// streamsPerUnit is the number of windows that one unit of work may change: changing a window takes a fifth of
	// the time of a frame.
	streamsPerUnit = 4
)

var (
	errIdleFrames = frames.Fault(http2.ErrCodeEnhanceYourCalm, "too many frames that do nothing")
	errResets     = frames.Fault(http2.ErrCodeEnhanceYourCalm, "too many streams reset")
)

// guard counts how a client uses the features that it could misuse. The connection's reader owns it, except for the
// atomic field and those that conn.mu guards.
type guard struct {
	account *peers.Account
	head    atomic.Int64 // when the head that is arriving began, on the relay's clock; 0: none is

	strikes  int
	lastPing time.Duration
	resetOut bool // too many streams were reset
	input    int  // bytes that are kept for frames and blocks that have arrived in part

	// These are guarded by conn.mu.
	output int  // bytes that are kept because the socket has not accepted them
	paid   int  // units of work that output has paid for
	useful bool // something that answers a call has been sent since the last PING
}

// ping reports whether a client may send a PING now. useful means that something that answers a call has been sent
// to it since the last PING.
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

// sent records that n bytes of data have been sent to the client. conn.mu is held.
func (g *guard) sent(n int) {
	g.useful = true
	g.paid += 2*updateCost + n/paidEach
}

// takeUseful reports whether something that answers a call has been sent since it was last called. conn.mu is held.
func (g *guard) takeUseful() (useful bool) {
	useful, g.useful = g.useful, false
	return useful
}

// takePaid returns the units of work that output has paid for since it was last called. conn.mu is held.
func (g *guard) takePaid() (paid int) {
	paid, g.paid = g.paid, 0
	return paid
}

// noteHead records at now whether a head is arriving: a header block, or a frame other than DATA.
func (g *guard) noteHead(arriving bool, now time.Duration) {
	switch {
	case !arriving:
		g.head.Store(0)
	case g.head.Load() == 0:
		g.head.Store(int64(now))
	}
}

// headLate reports whether a head has been arriving for longer than most. It may be called by any goroutine.
func (g *guard) headLate(now, most time.Duration) bool {
	since := time.Duration(g.head.Load())
	return since != 0 && now-since > most
}

// keepInput counts the n bytes that are kept for an incomplete frame and for an incomplete header block. If these are
// more than before, and more than most bytes would be kept for all clients then, it changes nothing and returns false.
func (g *guard) keepInput(n int, most int64) bool {
	switch more := n - g.input; {
	case more > 0:
		if !g.account.Reserve(peers.Input, more, most) {
			return false
		}
	case more < 0:
		g.account.Keep(peers.Input, more)
	}
	g.input = n
	return true
}

// keepOutput counts the n bytes of output that the socket has not accepted. conn.mu is held.
func (g *guard) keepOutput(n int) {
	if n < leastHeld {
		n = 0
	}
	if n != g.output {
		g.account.Keep(peers.Output, n-g.output)
		g.output = n
	}
}

// blame charges the client for a stream of that age whose end it has caused: by RST_STREAM, by a fault for which the
// relay resets the stream, or by the end of its connection. It is called by the connection's reader.
func (g *guard) blame(now, age time.Duration) {
	if !g.account.Reset(now, age) {
		g.resetOut = true
	}
}

// frameCost returns the cost of a frame in units of work, without that of the streams whose windows it changes. A
// frame that pays work back has a negative cost. begins means that the frame's stream is new.
func frameCost(f *frames.Frame, begins bool) int {
	switch f.Kind {
	case http2.FrameHeaders:
		if begins {
			return -peers.Frame
		}
	case http2.FrameData:
		if f.Flags&http2.FlagDataEndStream != 0 || !emptyData(f) {
			return -peers.Frame
		}
	case http2.FrameContinuation:
		return 1
	case http2.FrameWindowUpdate:
		return updateCost
	case http2.FramePing:
		return peers.Frame / 2 // clients that measure a connection send one with each response
	default:
	}
	return peers.Frame
}

// emptyData reports whether a DATA frame holds nothing but padding.
func emptyData(f *frames.Frame) bool {
	if f.Flags&http2.FlagDataPadded == 0 || len(f.Payload) == 0 {
		return len(f.Payload) == 0
	}
	return len(f.Payload) == 1+int(f.Payload[0])
}
