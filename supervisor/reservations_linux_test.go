package supervisor

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/core-tools/hsu-master/identity"
	"github.com/core-tools/hsu-master/store/records"
	"github.com/core-tools/hsu-master/supervisor/logs"
	"github.com/core-tools/hsu-master/supervisor/ports"
	"github.com/core-tools/hsu-master/supervisor/unit"
)

// listenAlone listens like a program that sets no socket option.
func listenAlone(port int) error {
	config := net.ListenConfig{Control: func(_, _ string, c syscall.RawConn) error {
		var failed error
		err := c.Control(func(fd uintptr) {
			// the default of Go is 1
			failed = syscall.SetsockoptInt(int(fd), syscall.SOL_SOCKET, syscall.SO_REUSEADDR, 0)
		})
		return errors.Join(err, failed)
	}}
	l, err := config.Listen(context.Background(), "tcp4", ports.Address(port))
	if err != nil {
		return err
	}
	return l.Close()
}

func TestPortOfAWorkerIsReservedUntilItStartsAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		world, dir := newFakeOS(t), t.TempDir()
		slow := func(u *unit.Spec) { u.Restart.Backoff = time.Minute }
		m := startMaster(t, world, dir, 1, slow)
		settle(time.Second)
		port := m.worker("worker-0").Port
		world.of("worker-0").die(identity.Exit{Signal: syscall.SIGKILL, Source: identity.ExitWait})
		settle(time.Second)
		for range 2 { // before and after a restart of the master
			if w := m.worker("worker-0"); w.Status != records.StatusBackoff {
				t.Errorf("worker is %s, want it to wait for its restart", w.Status)
			}
			if err := listenAlone(port); !errors.Is(err, syscall.EADDRINUSE) {
				t.Errorf("another program listens on the worker's port: %v", err)
			}
			m.crash()
			if err := listenAlone(port); err != nil {
				t.Errorf("the reservation outlives its master: %v", err)
			}
			m = startMaster(t, world, dir, 1, slow)
			settle(time.Second)
		}
		settle(2 * time.Minute)
		if w := m.worker("worker-0"); w.Status != records.StatusRunning || w.Port != port {
			t.Errorf("worker is %s on port %d, want it running on %d", w.Status, w.Port, port)
		}
		m.stop(nil)
		if err := listenAlone(port); err != nil {
			t.Errorf("the port is not free after the stop: %v", err)
		}
	})
}

// A program that sets no socket option fails beside a reservation: once, at no cost.
func TestWorkerThatCannotListenBesideAReservationIsStartedWithoutOne(t *testing.T) {
	for name, test := range map[string]struct {
		output   string
		restarts uint64 // counted restarts
	}{
		"it says why":         {"OSError: [Errno 98] Address already in use\n", 0},
		"it does not say why": {"fatal\n", 1},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				world, dir := newFakeOS(t), t.TempDir()
				world.behave = func(p *fakeProcess) {
					if listenAlone(p.rec.Port) == nil {
						return
					}
					p.readyAfter, p.exitsAfter, p.exitCode = -1, time.Millisecond, 1
					path := logs.Path(filepath.Join(dir, "logs"), p.worker)
					if err := os.WriteFile(path, []byte(test.output), 0o600); err != nil {
						t.Error(err)
					}
				}
				m := startMaster(t, world, dir, 2)
				settle(time.Minute)
				var port int
				for _, w := range m.Workers() {
					if w.Status != records.StatusRunning || w.Restarts > test.restarts || w.Incarnation > 2 {
						t.Errorf("%s is %s after %d restarts, incarnation %d",
							w.ID, w.Status, w.Restarts, w.Incarnation)
					}
					if w.ID == "worker-0" {
						port = w.Port
					}
				}
				started := world.starts("worker-0")
				if all := started + world.starts("worker-1"); all < 3 {
					t.Errorf("started %d times: no start was beside a reservation", all)
				}

				// The refusal is remembered, and the port stays reserved while no process of the worker lives.
				before := m.worker("worker-0").Restarts
				world.of("worker-0").die(identity.Exit{Signal: syscall.SIGKILL, Source: identity.ExitWait})
				synctest.Wait()
				settle(time.Second)
				w := m.worker("worker-0")
				again := w.Restarts == before+1 && world.starts("worker-0") == started+1
				if w.Status != records.StatusRunning || w.Port != port || !again {
					t.Errorf("worker is %s on port %d after %d restarts, want one more, on %d",
						w.Status, w.Port, w.Restarts, port)
				}
				m.stop(nil)
			})
		})
	}
}

// A program that retries its listen instead of exiting gets its port.
func TestWorkerThatDoesNotOpenItsReservedPortGetsItUnreserved(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		world := newFakeOS(t)
		world.behave = func(p *fakeProcess) { p.readyAfter = -1 }
		m := startMaster(t, world, t.TempDir(), 1)
		settle(ports.ReservePatience / 2)
		port := m.worker("worker-0").Port
		if err := listenAlone(port); !errors.Is(err, syscall.EADDRINUSE) {
			t.Errorf("listening on the port: %v, want it reserved", err)
		}
		settle(ports.ReservePatience)
		if err := listenAlone(port); err != nil {
			t.Errorf("listening on the port: %v, want it free for the worker", err)
		}
		m.stop(nil)
	})
}

// Other masters cannot choose a port as soon as one master has chosen it, even before a worker listens.
func TestMastersNeverChooseTheSamePort(t *testing.T) {
	chosen := map[int]bool{}
	first, second := ports.Book{Share: 1}, ports.Book{Share: 1}
	for i := range 200 {
		worker := fmt.Sprint("worker-", i)
		for _, book := range []*ports.Book{&first, &second} {
			port, err := book.Choose(worker, 0)
			if err != nil {
				t.Fatal(err)
			}
			defer book.LetGo(worker)
			if chosen[port] {
				t.Errorf("port %d was chosen twice", port)
			}
			chosen[port] = true
		}
	}
}
