package fair

import (
	"math"
	"testing"
)

// fill takes places for a client until it is denied.
func fill(h Held, free, most int) (taken int) {
	for h.May(free-taken, most) == Granted {
		taken++
		h.Peer++
		h.Conn++
	}
	return taken
}

func TestShares(t *testing.T) {
	for _, c := range []struct{ places, conn, peer int }{
		{0, 0, 0},
		{1, 1, 1}, // a single client may have all of a few places
		{16, 16, 16},
		{17, 16, 17}, // the last one is for another connection
		{32, 31, 32},
		{33, 31, 32}, // and one for another peer
		{100, 92, 97},
		{1600, 1461, 1552},
	} {
		conn := fill(Held{}, c.places, math.MaxInt)
		peer := conn
		for { // with other connections
			n := fill(Held{Peer: peer}, c.places-peer, math.MaxInt)
			if peer += n; n == 0 {
				break
			}
		}
		if conn != c.conn || peer != c.peer {
			t.Errorf("of %d places a connection has %d and its peer %d, want %d and %d",
				c.places, conn, peer, c.conn, c.peer)
		}
	}
}

func TestMostOfAPeer(t *testing.T) {
	const free, most = 1 << 20, 1000
	peer := 0
	for range 100 {
		n := fill(Held{Peer: peer}, free, most)
		if peer == 0 && (n < most*9/10 || n >= most) {
			t.Errorf("a connection holds %d of the %d places of its peer", n, most)
		}
		peer += n
	}
	if peer != most {
		t.Errorf("a peer with many connections holds %d places, want %d", peer, most)
	}
}

func TestVerdicts(t *testing.T) {
	for _, c := range []struct {
		held       Held
		free, most int
		want       Verdict
	}{
		{Held{}, 1, 1, Granted},
		{Held{}, 0, 1, PeerDenied},
		{Held{Peer: 31, Conn: 1}, 1, 100, Granted},
		{Held{Peer: 31, Conn: 16}, 1, 100, ConnDenied},
		{Held{Peer: 32, Conn: 1}, 1, 100, PeerDenied},
		{Held{Peer: 32, Conn: 1}, 100, 32, PeerDenied},
	} {
		if got := c.held.May(c.free, c.most); got != c.want {
			t.Errorf("%+v.May(%d, %d) = %v, want %v", c.held, c.free, c.most, got, c.want)
		}
	}
}

func TestHeldIsOfThePeer(t *testing.T) {
	var s Shares
	a, b, other := s.Of(Client{1, "a"}), s.Of(Client{1, "b"}), s.Of(Client{2, "c"})
	a.Take()
	b.Take()
	b.Take()
	other.Take()
	if got := s.Of(Client{1, "b"}).Held(); got != (Held{Peer: 3, Conn: 2}) {
		t.Errorf("held: %+v", got)
	}
	b.Release()
	if got := a.Held(); got != (Held{Peer: 2, Conn: 1}) {
		t.Errorf("after a release: %+v", got)
	}
	// A connection that changes to another peer starts at zero there.
	if got := s.Of(Client{2, "a"}).Held(); got != (Held{Peer: 1}) {
		t.Errorf("as another peer: %+v", got)
	}
}

// Clients that are gone take no memory, and those that hold places are kept.
func TestSharesAreSwept(t *testing.T) {
	var s Shares
	stays := s.Of(Client{-1, -1})
	stays.Take()
	for i := range 100 * leastSweep {
		share := s.Of(Client{i, i})
		share.Take()
		share.Release()
	}
	if n := len(s.conns) + len(s.peers); n > 4*leastSweep {
		t.Errorf("%d shares are kept for one client", n)
	}
	if s.Of(Client{-1, -1}) != stays {
		t.Error("the share of a client with a place was forgotten")
	}
}

func TestSharesTakeNoAllocation(t *testing.T) {
	var s Shares
	peer, conn := new(int), new(int)
	if n := testing.AllocsPerRun(1000, func() {
		share := s.Of(Client{peer, conn})
		if share.Held().May(100, 100) != Granted {
			t.Fatal("denied")
		}
		share.Take()
		share.Release()
	}); n != 0 {
		t.Errorf("%v allocations a place", n)
	}
}
