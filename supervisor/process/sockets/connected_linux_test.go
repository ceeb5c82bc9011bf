package sockets

import (
	"errors"
	"net"
	"net/netip"
	"os"
	"testing"
)

// connection returns both ends of a TCP connection over loopback.
func connection(t *testing.T, network, address string) (client, server net.Conn) {
	t.Helper()
	l, err := net.Listen(network, address) //nolint:noctx // a test
	if err != nil {
		t.Skip(err)
	}
	defer l.Close()
	if client, err = net.Dial("tcp", l.Addr().String()); err != nil { //nolint:noctx // a test
		t.Fatal(err)
	}
	if server, err = l.Accept(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = client.Close()
		_ = server.Close()
	})
	return client, server
}

func addrPort(a net.Addr) netip.AddrPort { return a.(*net.TCPAddr).AddrPort() }

func TestSocketUser(t *testing.T) {
	for _, on := range [][2]string{{"tcp4", "127.0.0.1:0"}, {"tcp6", "[::1]:0"}, {"tcp", "127.0.0.2:0"}} {
		_, server := connection(t, on[0], on[1])
		uid, err := UserOf(addrPort(server.RemoteAddr()), addrPort(server.LocalAddr()))
		if err != nil || int(uid) != os.Getuid() {
			t.Errorf("%s: uid %d, %v, want %d", on[1], uid, err, os.Getuid())
		}
	}
}

// The kernel shows a socket that no process has open as root's.
func TestSocketUserOfAClosedSocket(t *testing.T) {
	client, server := connection(t, "tcp4", "127.0.0.1:0")
	_ = client.Close()
	if uid, err := UserOf(addrPort(server.RemoteAddr()), addrPort(server.LocalAddr())); !errors.Is(err, ErrGone) {
		t.Errorf("uid %d, %v, want %v", uid, err, ErrGone)
	}
	_ = server.Close()
	if uid, err := UserOf(netip.MustParseAddrPort("127.0.0.1:1"),
		addrPort(server.LocalAddr())); !errors.Is(err, ErrGone) {
		t.Errorf("of a socket that never was: uid %d, %v, want %v", uid, err, ErrGone)
	}
}

// A socket can lose its port between the kernel's lookup and its answer: it is being closed.
func TestSocketThatLostItsPort(t *testing.T) {
	for port, want := range map[int]error{0: ErrGone, 40002: errDiagnosis} {
		if _, err := parseConnected(diagnosis(port, 7), 40001); !errors.Is(err, want) {
			t.Errorf("answer with port %d: %v, want %v", port, err, want)
		}
	}
}

func FuzzParseConnected(f *testing.F) {
	f.Add(diagnosis(40001, 7, 8))
	f.Add(append(diagnosis(40001, 7, 8), 12, 0, diagCgroupID, 0, 1, 2, 3, 4, 5, 6, 7, 8))
	f.Fuzz(func(t *testing.T, datagram []byte) {
		if s, err := parseConnected(datagram, 40001); err != nil && s != (Connection{}) {
			t.Errorf("%+v beside %v", s, err)
		}
	})
}
