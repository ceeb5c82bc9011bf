package worker

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"

	"github.com/core-tools/hsu-master/supervisor/launcher"
	"github.com/core-tools/hsu-master/supervisor/process"
)

// Errors for the callers of calls on such a connection: they reveal nothing about this machine.
var (
	errPeerClosed  = errors.New("closed by the other side")
	errNotAccepted = errors.New("not accepted in time")
	ErrStranger    = errors.New("another process took the connection")
)

// verifier returns a function that proves that a connection of the gateway leads to the instance: any process of the
// same user can listen on the worker's port beside it, and then gets some of the connections. If one does, stolen is
// called with the error to report.
func verifier(
	inst launcher.Sockets, port int, stolen func(ctx context.Context, stranger error),
) func(ctx context.Context, nc net.Conn) error {
	return func(ctx context.Context, nc net.Conn) error {
		local, remote := addrPort(nc.LocalAddr()), addrPort(nc.RemoteAddr())
		if !local.IsValid() || !remote.IsValid() {
			return nil
		}
		owner, err := inst.OwnsPeer(ctx, local, remote)
		switch {
		case err != nil && ctx.Err() != nil:
			return errNotAccepted
		case owner == process.PortFree:
			return errPeerClosed
		case owner != process.PortForeign:
			return nil // owned by the worker, or unreadable: the Ping has decided
		}
		stranger := fmt.Errorf("%w beside the worker: a connection of the gateway led there",
			launcher.ForeignPort(port))
		stolen(ctx, stranger)
		return ErrStranger
	}
}

func addrPort(a net.Addr) netip.AddrPort {
	if tcp, ok := a.(*net.TCPAddr); ok {
		return tcp.AddrPort()
	}
	return netip.AddrPort{}
}
