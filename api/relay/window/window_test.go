package window

import (
	"net"
	"testing"
	"time"

	"github.com/core-tools/hsu-master/api/relay/frames"
	"github.com/core-tools/hsu-master/api/relay/peers"
)

func TestRecvWindow(t *testing.T) {
	w := NewRecv(100)
	if ok, due := w.Take(49); !ok || due {
		t.Errorf("after 49 of 100 bytes: ok %v, credit due %v", ok, due)
	}
	if ok, due := w.Take(51); !ok || !due {
		t.Errorf("after 100 of 100 bytes: ok %v, credit due %v", ok, due)
	}
	if ok, _ := w.Take(1); ok {
		t.Error("a byte beyond the window is allowed")
	}
	if credit := w.Restore(); credit != 101 || w.left != 100 || w.Restore() != 0 {
		t.Errorf("credit for %d bytes, then %d are left", credit, w.left)
	}
}

func TestSendWindow(t *testing.T) {
	w := NewSend[string](10)
	a, b := &Sender[string]{Flow: "a"}, &Sender[string]{Flow: "b"}
	w.KeepBack(a, 0)
	w.KeepBack(b, 0)
	w.KeepBack(a, 0)
	w.Sent(a, 10)
	if _, ok := w.Next(); ok || w.blocked.first == nil {
		t.Error("a flow continues although the window is used up")
	}
	w.Widen(10)
	first, _ := w.Next()
	second, _ := w.Next()
	if first != "a" || second != "b" || w.blocked.first != nil {
		t.Error("flows must continue in the order in which they were kept back, each once")
	}
	if !w.Widen(frames.MaxWindow-10) || w.Widen(1) {
		t.Error("the window may become as large as maxWindow, and no larger")
	}
}

// A flow whose client has used up its share of a scarce window is parked. It continues when the window has grown, or
// when the backend has read data of its peer.
func TestUplinkParksGreedyFlows(t *testing.T) {
	const size = 64 << 10
	now := time.Duration(time.Second)
	for name, relieve := range map[string]func(u *Uplink[string], s *Sender[string]){
		"the window grows":  func(u *Uplink[string], _ *Sender[string]) { u.window.Widen(size / 2); u.Widened() },
		"the backend reads": func(u *Uplink[string], s *Sender[string]) { u.HasRead(s, s.unread) },
	} {
		t.Run(name, func(t *testing.T) {
			var peerTable peers.Table
			w := NewSend[string](size)
			u := NewUplink(&w, func() time.Duration { return now })
			greedy, other := join(&peerTable, "192.0.2.1"), join(&peerTable, "192.0.2.2")
			s, s2 := &Sender[string]{Flow: "greedy"}, &Sender[string]{Flow: "other"}
			u.Join(s, greedy)
			u.Join(s2, other)
			if n := u.Free(s); n != size {
				t.Fatalf("%d bytes are free for the only client, want all", n)
			}
			u.Sent(s, size*3/4)
			if n := u.Free(s); n != 0 {
				t.Errorf("%d bytes are free for a client that has three times the bytes that are left", n)
			}
			if n := u.Free(s2); n != size/4*3/4 {
				t.Errorf("%d bytes are free for another client, want three quarters of the rest", n)
			}
			u.KeepBack(s, u.Free(s))
			if w.blocked.first != nil || u.parked.first != s {
				t.Fatal("the flow is not parked")
			}
			if now += usedUpAfter + 1; !u.UsedUp(greedy) || u.UsedUp(other) {
				t.Error("the window is used up for the greedy client, and not for the other")
			}
			relieve(u, s)
			if f, ok := w.Next(); !ok || f != "greedy" || u.parked.first != nil {
				t.Error("the flow is still parked")
			}
			if u.Leave(s); u.senders != s2 || s2.nextOfAll != nil {
				t.Error("a flow that has left takes part in the division")
			}
		})
	}
}

func TestShare(t *testing.T) {
	for _, c := range []struct{ n, free, held, want int }{
		{3, 64, 0, 48},  // three times the bytes that are left
		{3, 16, 48, 0},  // already held
		{3, 16, 24, 6},  // two clients that want everything each end with three times the bytes that are left
		{3, 16, 60, -3}, // more clients share the window now
	} {
		if got := share(c.n, c.free, c.held); got != c.want {
			t.Errorf("share(%d, %d, %d) = %d, want %d", c.n, c.free, c.held, got, c.want)
		}
	}
}

// join returns a connection of the peer with that address.
func join(table *peers.Table, address string) *peers.Account {
	return table.Join(0, peers.ByAddress(addressed{address: address}))
}

type addressed struct {
	net.Conn
	address string
}

func (a addressed) RemoteAddr() net.Addr { return &net.TCPAddr{IP: net.ParseIP(a.address)} }
