//go:build e2e && linux

package e2e

import (
	"context"
	"io"
	"net"
	"testing"

	"golang.org/x/net/http2"
	"golang.org/x/sys/unix"
	"google.golang.org/grpc"

	"github.com/core-tools/hsu-master/api/proto"
)

// Idle clients, even more than the master may have descriptors, take none that supervision, the admin socket or the
// store need.
func TestIdleClientsOfTheGatewayLeaveDescriptors(t *testing.T) {
	t.Parallel()
	h := newHost(t, workers(steady)...)
	m := h.start()
	before := h.awaitSteady(running)
	m.limit(unix.RLIMIT_NOFILE, 256)
	h.idle(400)
	h.killWorker(before.Workers[0].PID)
	after := h.awaitSteady(func(d dump, w worker) bool {
		return running(d, w) && (w.ID != before.Workers[0].ID || w.Incarnation == 2)
	})
	h.wantOnlyRestarted(before, after, before.Workers[0].ID)
	if r := h.cli("status"); r.code != 0 {
		t.Errorf("the administrator: %+v", r)
	}
	h.ask("of a new client")
	m.stop()
	h.wantNothingLeft()
}

// New clients get in soon, even after so many idle ones were accepted that new ones have to be refused.
func TestIdleClientsOverTheBoundMakeRoom(t *testing.T) {
	t.Parallel()
	h := newHost(t, workers(1)...)
	m := h.start()
	h.awaitRunning(1)
	h.idle(300)
	h.ask("of a client before there was a bound")
	m.limit(unix.RLIMIT_NOFILE, 340)
	client := proto.NewMyBusinessServiceClient(h.dial())
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	if _, err := client.GetStatus(ctx, &proto.StatusRequest{}, grpc.WaitForReady(true)); err != nil {
		t.Error(err)
	}
	m.stop()
	h.wantNothingLeft()
}

// idle opens client connections that are never used.
func (h *host) idle(n int) {
	h.t.Helper()
	for range n {
		nc, err := net.DialTimeout("tcp", address(h.port), patience)
		if err != nil {
			h.t.Fatal(err)
		}
		h.t.Cleanup(func() { _ = nc.Close() })
		_, _ = io.WriteString(nc, http2.ClientPreface+"\x00\x00\x00\x04\x00\x00\x00\x00\x00") // and empty SETTINGS
	}
}
