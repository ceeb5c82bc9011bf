package relay

import (
	"net"
	"testing"
	"time"

	"github.com/core-tools/hsu-master/api/relay/peers"
)

func TestRecvWindow(t *testing.T) {
	w := newRecvWindow(100)
	if ok, due := w.take(49); !ok || due {
		t.Errorf("after 49 of 100 bytes: ok %v, credit due %v", ok, due)
	}
	if ok, due := w.take(51); !ok || !due {
		t.Errorf("after 100 of 100 bytes: ok %v, credit due %v", ok, due)
	}
	if ok, _ := w.take(1); ok {
		t.Error("a byte beyond the window is allowed")
	}
	if credit := w.restore(); credit != 101 || w.left != 100 || w.restore() != 0 {
		t.Errorf("credit for %d bytes, then %d are left", credit, w.left)
	}
}

func TestSendWindow(t *testing.T) {
	w := newSendWindow[string](10)
	a, b := &sender[string]{flow: "a"}, &sender[string]{flow: "b"}
	w.keepBack(a, 0)
	w.keepBack(b, 0)
	w.keepBack(a, 0)
	w.sent(a, 10)
	if _, ok := w.next(); ok || !w.waiting() {
		t.Error("a flow continues although the window is used up")
	}
	w.widen(10)
	first, _ := w.next()
	second, _ := w.next()
	if first != "a" || second != "b" || w.waiting() {
		t.Error("flows must continue in the order in which they were kept back, each once")
	}
	if !w.widen(maxWindow-10) || w.widen(1) {
		t.Error("the window may become as large as maxWindow, and no larger")
	}
}

// A flow whose client has used up its share of a scarce window is parked. It continues when the window has grown, or
// when the backend has read data of its peer.
func TestUplinkParksGreedyFlows(t *testing.T) {
	const size = 64 << 10
	now := time.Duration(time.Second)
	for name, relieve := range map[string]func(u *uplink[string], s *sender[string]){
		"the window grows":  func(u *uplink[string], _ *sender[string]) { u.window.widen(size / 2); u.widened() },
		"the backend reads": func(u *uplink[string], s *sender[string]) { u.hasRead(s, s.unread) },
	} {
		t.Run(name, func(t *testing.T) {
			var peerTable peers.Table
			w := newSendWindow[string](size)
			u := newUplink(&w, func() time.Duration { return now })
			greedy, other := testClient(&peerTable, "192.0.2.1").member, testClient(&peerTable, "192.0.2.2").member
			s, s2 := &sender[string]{flow: "greedy"}, &sender[string]{flow: "other"}
			u.join(s, greedy)
			u.join(s2, other)
			if n := u.free(s); n != size {
				t.Fatalf("%d bytes are free for the only client, want all", n)
			}
			u.sent(s, size*3/4)
			if n := u.free(s); n != 0 {
				t.Errorf("%d bytes are free for a client that has three times the bytes that are left", n)
			}
			if n := u.free(s2); n != size/4*3/4 {
				t.Errorf("%d bytes are free for another client, want three quarters of the rest", n)
			}
			u.keepBack(s, u.free(s))
			if w.waiting() || u.parked.first != s {
				t.Fatal("the flow is not parked")
			}
			if now += usedUpAfter + 1; !u.usedUp(greedy) || u.usedUp(other) {
				t.Error("the window is used up for the greedy client, and not for the other")
			}
			relieve(u, s)
			if f, ok := w.next(); !ok || f != "greedy" || u.parked.first != nil {
				t.Error("the flow is still parked")
			}
			if u.leave(s); u.senders != s2 || s2.nextOfAll != nil {
				t.Error("a flow that has left takes part in the division")
			}
		})
	}
}

// testClient returns a client's connection that only has a peer, with that address.
func testClient(table *peers.Table, address string) *clientConn {
	return &clientConn{member: table.Join(0, peers.ByAddress(addressed{address: address}))}
}

type addressed struct {
	net.Conn
	address string
}

func (a addressed) RemoteAddr() net.Addr { return &net.TCPAddr{IP: net.ParseIP(a.address)} }
