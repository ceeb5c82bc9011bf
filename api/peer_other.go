//go:build !linux

package api

import (
	"errors"
	"fmt"
	"net"
	"runtime"
)

func peerOf(*net.UnixConn) (peerIdentity, error) {
	return peerIdentity{}, fmt.Errorf("tell who connects to the admin socket on %s: %w",
		runtime.GOOS, errors.ErrUnsupported)
}
