package api

import (
	"context"
	"errors"
	"net"

	"google.golang.org/grpc/credentials"

	"github.com/core-tools/hsu-master/internal/fair"
)

// peerIdentity is the user and the process at the other end of a unix socket as reported by the kernel: SO_PEERCRED,
// unix(7).
type peerIdentity struct {
	credentials.CommonAuthInfo
	uid uint32
	pid int32
}

// AuthType returns the name of the authentication mechanism.
func (peerIdentity) AuthType() string { return "peercred" }

// peerCredentials gets the peer's user from the kernel. It passes the bytes of the connection unchanged.
type peerCredentials struct{}

func (peerCredentials) ServerHandshake(conn net.Conn) (net.Conn, credentials.AuthInfo, error) {
	inner := conn
	if placed, ok := conn.(*fair.Conn); ok {
		inner = placed.NetConn()
	}
	unixConn, ok := inner.(*net.UnixConn)
	if !ok {
		return nil, nil, errors.New("the admin service is served on a unix socket only")
	}
	peer, err := peerOf(unixConn)
	if err != nil {
		return nil, nil, err
	}
	peer.SecurityLevel = credentials.PrivacyAndIntegrity
	return conn, peer, nil
}

// The descriptors that connections of administrators may use: one part of those that the process may open. Otherwise a
// program that leaks them would keep the master from starting workers.
const (
	adminPart       = 8
	leastAdminConns = 33
	mostAdminConns  = 512
)

// BoundAdmin returns a listener for the admin server that accepts a bounded number of connections. A process cannot
// take all of them. refused is called with the reason why a connection is closed.
func BoundAdmin(l net.Listener, refused func(error)) net.Listener {
	return &fair.Listener{
		Listener: l, Refused: refused,
		Most: func() int {
			return min(max(fair.DescriptorLimit()/adminPart, leastAdminConns), mostAdminConns)
		},
		Identify: func(c net.Conn) (net.Conn, any, error) {
			local, ok := c.(*net.UnixConn)
			if !ok {
				return c, nil, nil // the server refuses it
			}
			peer, err := peerOf(local)
			return c, peer.pid, err
		},
	}
}

func (peerCredentials) ClientHandshake(context.Context, string, net.Conn) (net.Conn, credentials.AuthInfo, error) {
	return nil, nil, errors.New("peer credentials are checked by the server")
}

func (peerCredentials) Info() credentials.ProtocolInfo {
	return credentials.ProtocolInfo{SecurityProtocol: "peercred"}
}

func (c peerCredentials) Clone() credentials.TransportCredentials { return c }

func (peerCredentials) OverrideServerName(string) error { return nil }
