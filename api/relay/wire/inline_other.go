//go:build !unix

package wire

import (
	"errors"
	"net"
)

// Use sets the network connection. Reads and writes that do not block are not available.
func (s *Socket) Use(nc net.Conn) { s.Conn = nc }

func (s *Socket) tryWrite([]byte) (int, error) { return 0, errors.ErrUnsupported }

func tryRead(uintptr, []byte) (int, error) { return 0, errors.ErrUnsupported }
