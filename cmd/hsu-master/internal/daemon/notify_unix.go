//go:build unix

package daemon

import (
	"errors"
	"fmt"
	"os"
	"syscall"

	"golang.org/x/sys/unix"
)

// sendFile sends a message with a descriptor to systemd. go-systemd sends only text, and package net cannot send
// descriptors over a connected datagram socket.
func (n *notifier) sendFile(state string, f *os.File) error {
	if !n.on {
		return nil
	}
	raw, err := f.SyscallConn()
	if err != nil {
		return fmt.Errorf("send a descriptor to systemd: %w", err)
	}
	syscall.ForkLock.RLock() // no worker may inherit the socket
	sock, err := unix.Socket(unix.AF_UNIX, unix.SOCK_DGRAM, 0)
	if err == nil {
		unix.CloseOnExec(sock)
	}
	syscall.ForkLock.RUnlock()
	if err != nil {
		return fmt.Errorf("reach systemd: %w", err)
	}
	defer func() { _ = unix.Close(sock) }()
	var sent error
	// File.Fd would set the descriptor to blocking mode, and all its copies too.
	err = raw.Control(func(fd uintptr) {
		sent = unix.Sendmsg(sock, []byte(state), unix.UnixRights(int(fd)),
			&unix.SockaddrUnix{Name: os.Getenv("NOTIFY_SOCKET")}, 0)
	})
	if err := errors.Join(err, sent); err != nil {
		return fmt.Errorf("send a descriptor to systemd: %w", err)
	}
	return nil
}

// listens reports whether f is a listening socket.
func listens(f *os.File) bool {
	raw, err := f.SyscallConn()
	if err != nil {
		return false
	}
	yes := 0
	err = raw.Control(func(fd uintptr) { yes, _ = unix.GetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_ACCEPTCONN) })
	return err == nil && yes != 0
}
