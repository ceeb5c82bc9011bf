package peers

import (
	"crypto/sha256"
	"crypto/tls"
	"encoding/hex"
	"net"
	"net/netip"
	"strconv"

	"github.com/core-tools/hsu-master/supervisor/process/sockets"
)

// ID names a peer. Two connections with equal IDs belong to one peer.
type ID struct {
	cert [sha256.Size]byte // hash of the verified certificate; zero if there is none
	addr netip.Addr        // the address, or the /64 network of an IPv6 address, if there is no certificate
	user int64             // uid of the peer's socket on a loopback address; -1 if unknown or on another address
}

// hostBits are the bits of an IPv6 address that a host chooses by itself (RFC 4291, section 2.5.4). A host has 2^64
// addresses, and counts as one peer.
const hostBits = 64

// ByAddress returns the ID of the peer at the other end of an accepted connection. On a loopback address it asks the
// kernel once for the user.
func ByAddress(nc net.Conn) ID {
	remote, ok := nc.RemoteAddr().(*net.TCPAddr)
	if !ok {
		return ID{user: -1}
	}
	other := remote.AddrPort()
	id := ID{addr: other.Addr().Unmap(), user: -1}
	switch {
	case id.addr.IsLoopback():
		if own, ok := nc.LocalAddr().(*net.TCPAddr); ok {
			if uid, err := sockets.UserOf(other, own.AddrPort()); err == nil {
				id.user = int64(uid)
			}
		}
	case id.addr.Is6():
		network, _ := id.addr.WithZone("").Prefix(128 - hostBits) // cannot fail for an IPv6 address
		id.addr = network.Addr()
	}
	return id
}

// ByCertificate returns the ID of the peer that has proven a certificate which the server verified. It returns
// false if the peer has not proven one.
func ByCertificate(state tls.ConnectionState) (ID, bool) {
	if len(state.VerifiedChains) == 0 {
		return ID{}, false
	}
	return ID{cert: sha256.Sum256(state.PeerCertificates[0].Raw), user: -1}, true
}

// String returns the ID as logs show it.
func (id ID) String() string {
	switch {
	case id.cert != [sha256.Size]byte{}:
		return "certificate sha256:" + hex.EncodeToString(id.cert[:8])
	case !id.addr.IsValid():
		return "local"
	case id.user >= 0:
		return id.addr.String() + " uid " + strconv.FormatInt(id.user, 10)
	}
	return id.addr.String()
}
