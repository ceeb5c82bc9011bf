//go:build e2e && linux

package harness

import (
	"context"
	"net"
	"os"
	"os/exec"
	"time"
)

// KeepListener makes all masters of the host inherit one listener on its port, as those that systemd starts do.
func (h *Host) KeepListener() {
	h.T.Helper()
	l, err := net.Listen("tcp4", h.Address())
	if err != nil {
		h.T.Fatal(err)
	}
	defer func() { _ = l.Close() }()
	file, err := l.(*net.TCPListener).File()
	if err != nil {
		h.T.Fatal(err)
	}
	h.T.Cleanup(func() { _ = file.Close() })
	begin := h.Begin
	h.Begin = func(cmd *exec.Cmd) error {
		const script = `LISTEN_PID=$$ LISTEN_FDS=1 LISTEN_FDNAMES=grpc exec "$0" "$@"`
		cmd.Args = append([]string{"sh", "-c", script, cmd.Path}, cmd.Args[1:]...)
		cmd.Path, cmd.ExtraFiles = "/bin/sh", []*os.File{file}
		return begin(cmd)
	}
}

// CountRefused connects to the host's port all the time, until the returned function is called, which returns how many
// of the connections were refused.
func (h *Host) CountRefused() (stop func() int) {
	ctx, cancel := context.WithCancel(h.T.Context())
	counted := make(chan int, 1)
	go func() {
		n := 0
		for ctx.Err() == nil {
			conn, err := net.Dial("tcp4", h.Address())
			if err == nil {
				_ = conn.Close()
			} else {
				n++
			}
			time.Sleep(time.Millisecond)
		}
		counted <- n
	}()
	return func() int {
		cancel()
		return <-counted
	}
}
