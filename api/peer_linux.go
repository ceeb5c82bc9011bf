package api

import (
	"fmt"
	"net"

	"golang.org/x/sys/unix"
)

// peerOf returns the user and the process that made a connection.
func peerOf(conn *net.UnixConn) (peerIdentity, error) {
	raw, err := conn.SyscallConn()
	if err != nil {
		return peerIdentity{}, fmt.Errorf("ask who connects: %w", err)
	}
	var cred *unix.Ucred
	var credErr error
	if err := raw.Control(func(fd uintptr) {
		cred, credErr = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED)
	}); err != nil {
		return peerIdentity{}, fmt.Errorf("ask who connects: %w", err)
	}
	if credErr != nil {
		return peerIdentity{}, fmt.Errorf("ask who connects: %w", credErr)
	}
	return peerIdentity{uid: cred.Uid, pid: cred.Pid}, nil
}
