package api

import (
	"context"
	"errors"
	"net"

	"google.golang.org/grpc/credentials"
)

// peerIdentity is the user at the other end of a unix socket as reported by the kernel: SO_PEERCRED, unix(7).
type peerIdentity struct {
	credentials.CommonAuthInfo
	uid uint32
}

// AuthType returns the name of the authentication mechanism.
func (peerIdentity) AuthType() string { return "peercred" }

// peerCredentials gets the peer's user from the kernel. It passes the bytes of the connection unchanged.
type peerCredentials struct{}

func (peerCredentials) ServerHandshake(conn net.Conn) (net.Conn, credentials.AuthInfo, error) {
	unixConn, ok := conn.(*net.UnixConn)
	if !ok {
		return nil, nil, errors.New("the admin service is served on a unix socket only")
	}
	uid, err := peerUID(unixConn)
	if err != nil {
		return nil, nil, err
	}
	return conn, peerIdentity{
		CommonAuthInfo: credentials.CommonAuthInfo{SecurityLevel: credentials.PrivacyAndIntegrity},
		uid:            uid,
	}, nil
}

func (peerCredentials) ClientHandshake(context.Context, string, net.Conn) (net.Conn, credentials.AuthInfo, error) {
	return nil, nil, errors.New("peer credentials are checked by the server")
}

func (peerCredentials) Info() credentials.ProtocolInfo {
	return credentials.ProtocolInfo{SecurityProtocol: "peercred"}
}

func (c peerCredentials) Clone() credentials.TransportCredentials { return c }

func (peerCredentials) OverrideServerName(string) error { return nil }
