//go:build !linux

package api

import (
	"errors"
	"fmt"
	"net"
	"runtime"
)

func peerUID(*net.UnixConn) (uint32, error) {
	return 0, fmt.Errorf("tell who connects to the admin socket on %s: %w", runtime.GOOS, errors.ErrUnsupported)
}
