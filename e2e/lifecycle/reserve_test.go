//go:build e2e && linux

package lifecycle

import (
	"errors"
	"fmt"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/core-tools/hsu-master/e2e/harness"
)

// bindAlone binds to a port like a program that sets no socket option.
func bindAlone(t *testing.T, port int) error {
	t.Helper()
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	return unix.Bind(fd, &unix.SockaddrInet4{Port: port, Addr: [4]byte{127, 0, 0, 1}})
}

func TestPortOfAKilledWorkerIsKeptUntilItsRestart(t *testing.T) {
	t.Parallel()
	h := harness.NewHost(t)
	// At the restart of the lone worker its port is free for a moment: the test must have asked before that.
	h.Flags = append(h.Units("plain", "lone"), "--restart-backoff", "10s")
	m := h.Start()
	before := h.AwaitRunning(2)
	if w := before.Worker(t, "worker-1"); w.Restarts != 0 || w.Incarnation != 2 {
		t.Errorf("%+v, want it started a second time at no cost: its socket shares nothing", w)
	}
	for _, id := range []string{"worker-0", "worker-1"} {
		w := before.Worker(t, id)
		h.KillWorker(w.PID)
		harness.WaitFor(t, "its death is noticed", func() error {
			if now := h.Dump().Worker(t, id); now.PID != 0 {
				return fmt.Errorf("it is %s", now.Status)
			}
			return nil
		})
		if err := bindAlone(t, w.Port); !errors.Is(err, syscall.EADDRINUSE) {
			t.Errorf("bind to the port of %s: %v, want it in use", id, err)
		}
	}
	after := h.AwaitRunning(2)
	for _, w := range after.Workers {
		was := before.Worker(t, w.ID)
		if w.Port != was.Port || w.Restarts != 1 || w.Incarnation != was.Incarnation+1 {
			t.Errorf("%+v, want one restart on the same port as %+v", w, was)
		}
	}
	m.Stop()
	h.WantNothingLeft()
}
