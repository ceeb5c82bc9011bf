package master

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"

	"github.com/core-tools/hsu-master/api"
	"github.com/core-tools/hsu-master/internal/safefile"
)

// ListenTCP returns a function for [Options] that listens on an address such as 127.0.0.1:50051. The IPv4 address
// 0.0.0.0 does not include the IPv6 addresses of the host.
func ListenTCP(address string) func() (net.Listener, error) {
	return func() (net.Listener, error) {
		network := "tcp"
		if host, _, err := net.SplitHostPort(address); err == nil && net.ParseIP(host).To4() != nil {
			network = "tcp4" // with "tcp", 0.0.0.0 would include all IPv6 addresses
		}
		var config net.ListenConfig
		l, err := config.Listen(context.Background(), network, address)
		if err != nil {
			return nil, fmt.Errorf("listen on %s: %w", address, err)
		}
		return l, nil
	}
}

// ListenRegistry returns a function for [Options] that listens on the unix socket of the module registry at path.
func ListenRegistry(path string) func() (net.Listener, error) {
	return func() (net.Listener, error) { return api.ListenRegistry(context.Background(), path) }
}

// Inherit returns the listener of a descriptor that the earlier program of this process has handed over, if it has the
// wanted address. Otherwise it returns nil. It closes the descriptor, which may be nil.
func Inherit(passed *os.File, wanted func(net.Addr) bool) net.Listener {
	if passed == nil {
		return nil
	}
	defer func() { _ = passed.Close() }() // the listener has its own descriptor
	l, err := net.FileListener(passed)
	if err != nil {
		return nil
	}
	if !wanted(l.Addr()) {
		_ = l.Close()
		return nil
	}
	return l
}

// InheritRegistry returns a function like that of [ListenRegistry], which takes the socket of the earlier program of
// this process if it has the path. passed may be nil.
func InheritRegistry(path string, passed *os.File) func() (net.Listener, error) {
	return func() (net.Listener, error) {
		l, ok := Inherit(passed, func(a net.Addr) bool { return a.String() == path }).(*net.UnixListener)
		if !ok {
			return api.ListenRegistry(context.Background(), path)
		}
		sticky, err := safefile.CheckEntry(path)
		if err != nil {
			return nil, errors.Join(fmt.Errorf("module registry %s: %w", path, err), l.Close())
		}
		l.SetUnlinkOnClose(!sticky)
		return l, nil
	}
}
