//go:build e2e && linux

package state

import (
	"context"
	"io"
	"net"
	"path/filepath"
	"testing"

	"golang.org/x/net/http2"
	"golang.org/x/sys/unix"
	"google.golang.org/grpc"

	"github.com/core-tools/hsu-master/api/proto"
	"github.com/core-tools/hsu-master/e2e/harness"
)

// Idle clients, even more than the master may have descriptors, take none that supervision, the admin socket or the
// store need.
func TestIdleClientsOfTheGatewayLeaveDescriptors(t *testing.T) {
	t.Parallel()
	h := harness.NewHost(t, harness.Workers(steady)...)
	m := h.Start()
	before := awaitSteady(h, harness.Worker.Running)
	limit(m, unix.RLIMIT_NOFILE, 256)
	openIdle(h, 400)
	h.KillWorker(before.Workers[0].PID)
	after := awaitSteady(h, func(w harness.Worker) bool {
		return w.Running() && (w.ID != before.Workers[0].ID || w.Incarnation == 2)
	})
	wantOnlyRestarted(h, before, after, before.Workers[0].ID)
	if r := h.CLI("status"); r.Code != 0 {
		t.Errorf("the administrator: %+v", r)
	}
	h.Ask("of a new client")
	m.Stop()
	h.WantNothingLeft()
}

// A program that leaks connections to the admin socket keeps neither a worker from its restart nor another program out.
func TestIdleAdministratorsLeaveDescriptors(t *testing.T) {
	t.Parallel()
	h := harness.NewHost(t, harness.Workers(steady)...)
	m := h.Start()
	before := awaitSteady(h, harness.Worker.Running)
	limit(m, unix.RLIMIT_NOFILE, 256)
	for range 400 {
		nc, err := net.DialTimeout("unix", filepath.Join(h.State, "run", "admin.sock"), harness.Patience)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = nc.Close() })
		beginHTTP2(nc)
	}
	h.KillWorker(before.Workers[0].PID)
	after := awaitSteady(h, func(w harness.Worker) bool {
		return w.Running() && (w.ID != before.Workers[0].ID || w.Incarnation == 2)
	})
	wantOnlyRestarted(h, before, after, before.Workers[0].ID)
	if r := h.CLI("status"); r.Code != 0 {
		t.Errorf("the administrator: %+v", r)
	}
	m.Stop()
	h.WantNothingLeft()
}

// New clients get in soon, even after so many idle ones were accepted that new ones have to be refused.
func TestIdleClientsOverTheBoundMakeRoom(t *testing.T) {
	t.Parallel()
	h := harness.NewHost(t, harness.Workers(1)...)
	m := h.Start()
	h.AwaitRunning(1)
	openIdle(h, 300)
	h.Ask("of a client before there was a bound")
	limit(m, unix.RLIMIT_NOFILE, 340)
	client := proto.NewMyBusinessServiceClient(h.Dial())
	ctx, cancel := context.WithTimeout(t.Context(), harness.Patience)
	defer cancel()
	if _, err := client.GetStatus(ctx, &proto.StatusRequest{}, grpc.WaitForReady(true)); err != nil {
		t.Error(err)
	}
	m.Stop()
	h.WantNothingLeft()
}

// openIdle opens client connections that are never used.
func openIdle(h *harness.Host, n int) {
	h.T.Helper()
	for range n {
		nc, err := net.DialTimeout("tcp", harness.Loopback(h.Port), harness.Patience)
		if err != nil {
			h.T.Fatal(err)
		}
		h.T.Cleanup(func() { _ = nc.Close() })
		beginHTTP2(nc)
	}
}

// beginHTTP2 sends the preface of a client and empty SETTINGS. The other side may have closed the connection.
func beginHTTP2(nc net.Conn) {
	_, _ = io.WriteString(nc, http2.ClientPreface+"\x00\x00\x00\x04\x00\x00\x00\x00\x00")
}
