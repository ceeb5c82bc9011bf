package master

import (
	"context"
	"fmt"
	"net"

	"github.com/core-tools/hsu-master/api"
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
