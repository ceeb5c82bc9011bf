//go:build unix

package main

import (
	"errors"
	"fmt"
	"net"
	"os"
	"syscall"
)

// sendFile sends the message with a descriptor; go-systemd sends text only.
func (n *notifier) sendFile(state string, f *os.File) error {
	raw, err := f.SyscallConn()
	if err != nil {
		return fmt.Errorf("send a descriptor to systemd: %w", err)
	}
	conn, err := net.DialUnix("unixgram", nil, &net.UnixAddr{Name: os.Getenv("NOTIFY_SOCKET"), Net: "unixgram"})
	if err != nil {
		return fmt.Errorf("reach systemd: %w", err)
	}
	defer func() { _ = conn.Close() }()
	var sent error
	// Not by Fd, which would make the descriptor, and with it every copy, block.
	err = raw.Control(func(fd uintptr) {
		_, _, sent = conn.WriteMsgUnix([]byte(state), syscall.UnixRights(int(fd)), nil)
	})
	if err := errors.Join(err, sent); err != nil {
		return fmt.Errorf("send a descriptor to systemd: %w", err)
	}
	return nil
}
