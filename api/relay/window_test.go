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
	w := sendWindow{size: 10}
	a, b := &flow{}, &flow{}
	w.keepBack(a, 0)
	w.keepBack(b, 0)
	w.keepBack(a, 0)
	if w.blocked.pop() != a || w.blocked.pop() != b || w.blocked.first != nil {
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
	for name, relieve := range map[string]func(u *uplink, f *flow){
		"the window grows":  func(u *uplink, _ *flow) { u.window.size += size / 2; u.widened() },
		"the backend reads": func(u *uplink, f *flow) { u.hasRead(f, f.unread) },
	} {
		t.Run(name, func(t *testing.T) {
			var peerTable peers.Table
			var streams table
			u := newUplink(&sendWindow{size: size}, &streams, func() time.Duration { return now })
			greedy, other := testClient(&peerTable, "192.0.2.1"), testClient(&peerTable, "192.0.2.2")
			k := &call{}
			k.up.call, k.down.call = k, k
			k.up.by = greedy
			streams.put(1, k)
			if n := u.free(&k.up); n != size {
				t.Fatalf("%d bytes are free for the only client, want all", n)
			}
			u.window.size -= size * 3 / 4
			k.up.unread = size * 3 / 4
			if n := u.free(&k.up); n != 0 {
				t.Errorf("%d bytes are free for a client that has three times the bytes that are left", n)
			}
			if n := u.free(&flow{call: k, by: other}); n != size/4*3/4 {
				t.Errorf("%d bytes are free for another client, want three quarters of the rest", n)
			}
			u.keepBack(&k.up, u.free(&k.up))
			if u.window.blocked.first != nil || u.parked.first != &k.up {
				t.Fatal("the flow is not parked")
			}
			if now += usedUpAfter + 1; !u.usedUp(greedy) || u.usedUp(other) {
				t.Error("the window is used up for the greedy client, and not for the other")
			}
			relieve(u, &k.up)
			if u.window.blocked.pop() != &k.up || u.parked.first != nil {
				t.Error("the flow is still parked")
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
