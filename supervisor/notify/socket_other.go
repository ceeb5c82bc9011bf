//go:build !linux

package notify

import (
	"errors"
	"fmt"
	"net"
	"os"
)

const (
	suffix    = ".new"
	ancillary = 0
)

func listen(string, uint32) (*net.UnixConn, error) {
	return nil, fmt.Errorf("health type notify needs Linux: %w", errors.ErrUnsupported)
}

func read(*net.UnixConn, []byte, []byte) (n, pid int, release func(), err error) {
	return 0, 0, nil, net.ErrClosed
}

func enters(os.FileInfo, uint32) bool { return false }

func own(os.FileInfo) bool { return false }

func ownerOf(os.FileInfo) uint32 { return 0 }
