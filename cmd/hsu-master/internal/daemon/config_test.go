package daemon

import (
	"net"
	"testing"

	"github.com/core-tools/hsu-master/api"
	"github.com/core-tools/hsu-master/cmd/hsu-master/internal/exit"
)

// addressed is a listener that only has an address.
type addressed struct {
	net.Listener
	addr net.Addr
}

func (l addressed) Addr() net.Addr { return l.addr }

func TestPassedListenerIsHeldToTheRuleOfListen(t *testing.T) {
	secured := api.TLSFiles{Cert: "cert.pem", Key: "key.pem"}
	for _, test := range []struct {
		addr   net.Addr
		cfg    Config
		refuse bool
	}{
		{addr: &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: 1}},
		{addr: &net.TCPAddr{IP: net.IPv6loopback, Port: 1}},
		{addr: &net.UnixAddr{Name: "/run/x.sock", Net: "unix"}},
		{addr: &net.TCPAddr{IP: net.IPv4zero, Port: 1}, refuse: true},
		{addr: &net.TCPAddr{IP: net.IPv6zero, Port: 1}, refuse: true},
		{addr: &net.TCPAddr{Port: 1}, refuse: true},
		{addr: &net.TCPAddr{IP: net.IPv4(192, 0, 2, 1), Port: 1}, refuse: true},
		{addr: &net.TCPAddr{IP: net.IPv4zero, Port: 1}, cfg: Config{TLS: secured}},
		{addr: &net.TCPAddr{IP: net.IPv4zero, Port: 1}, cfg: Config{Insecure: true}},
	} {
		err := test.cfg.checkPassed(addressed{addr: test.addr})
		if refused := err != nil && exit.Code(err) == exit.WrongUsage; refused != test.refuse {
			t.Errorf("%s with %+v: %v, want refused: %v", test.addr, test.cfg.TLS, err, test.refuse)
		}
	}
}
