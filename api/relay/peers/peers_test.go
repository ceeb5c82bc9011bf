package peers

import (
	"crypto/tls"
	"crypto/x509"
	"net"
	"os"
	"strconv"
	"testing"
)

// accepted is a connection as Accept returns it, but without a socket.
type accepted struct {
	net.Conn
	remote string
}

func (a accepted) RemoteAddr() net.Addr { return address(a.remote) }
func (a accepted) LocalAddr() net.Addr  { return address("127.0.0.1:9") }

func address(s string) net.Addr {
	a, err := net.ResolveTCPAddr("tcp", s)
	if err != nil {
		panic(err)
	}
	return a
}

func TestIDs(t *testing.T) {
	for _, c := range []struct {
		a, b string
		same bool
		text string // of a
	}{
		{"192.0.2.1:1000", "192.0.2.1:2000", true, "192.0.2.1"},
		{"192.0.2.1:1000", "192.0.2.2:1000", false, "192.0.2.1"},
		{"192.0.2.1:1000", "[::ffff:192.0.2.1]:1000", true, "192.0.2.1"},
		{"[2001:db8::1]:1000", "[2001:db8::2]:1000", true, "2001:db8::"},
		{"[2001:db8::1]:1000", "[2001:db8:0:1::1]:1000", false, "2001:db8::"},
		{"127.0.0.1:1", "127.0.0.2:1", false, "127.0.0.1"}, // these sockets do not exist
	} {
		a, b := ByAddress(accepted{remote: c.a}), ByAddress(accepted{remote: c.b})
		if (a == b) != c.same || a.String() != c.text {
			t.Errorf("%s is %q, %s is %q; same = %v, want %v", c.a, a, c.b, b, a == b, c.same)
		}
	}
}

func TestIDByUser(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0") //nolint:noctx // a test
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	client, err := net.Dial("tcp", l.Addr().String()) //nolint:noctx // a test
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	server, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer server.Close()
	if got, want := ByAddress(server).String(), "127.0.0.1 uid "+strconv.Itoa(os.Getuid()); got != want {
		t.Errorf("ID = %q, want %q", got, want)
	}
}

func TestIDByCertificate(t *testing.T) {
	shown := tls.ConnectionState{PeerCertificates: []*x509.Certificate{{Raw: []byte("a")}}}
	if _, ok := ByCertificate(shown); ok {
		t.Error("a certificate that nobody has verified is an identity")
	}
	shown.VerifiedChains = [][]*x509.Certificate{shown.PeerCertificates}
	a, ok := ByCertificate(shown)
	if want := "certificate sha256:ca978112ca1bbdca"; !ok || a.String() != want {
		t.Errorf("ID = %q, %v, want %q", a, ok, want)
	}
}

func TestAccounts(t *testing.T) {
	var table Table
	id, other := ID{user: 1}, ID{user: 2}
	a, b := table.Join(0, id), table.Join(0, id)
	if a.Peer() != b.Peer() || a.Peer().ID() != id {
		t.Errorf("two connections of %v are of %v and %v", id, a.Peer().ID(), b.Peer().ID())
	}
	if peer, more := table.MostConnected(table.Join(0, other).Peer()); peer != a.Peer() || more != 1 {
		t.Errorf("most connected is %v, by %d connections", peer.ID(), more)
	}
	b.Become(0, other)
	if a.Peer() == b.Peer() || b.Peer().ID() != other {
		t.Errorf("a connection that became %v is of %v", other, b.Peer().ID())
	}
	a.Leave()
	b.Leave()
	table.Sweep(0)
	if len(table.peers) != 1 {
		t.Errorf("%d peers are left", len(table.peers))
	}
}
