//go:build e2e && linux

package e2e

import (
	"fmt"
	"strings"
	"testing"
)

// Any gRPC server can be a worker, with any of the health checks.
func TestServersWithoutPingAreWorkersAndOfferNothingThatTheyDoNotHave(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	h.flags = h.units("plain", "healthy", "bare")
	m := h.start()
	isRunning := func(_ dump, w worker) bool { return w.Status == "running" } // also without a service
	d := h.awaitWorkers(3, "run", isRunning)
	for id, want := range map[string]string{"worker-0": "ping", "worker-1": "grpc", "worker-2": "tcp"} {
		if w := d.worker(t, id); w.Probe != want || w.Incarnation != 1 {
			t.Errorf("%s is asked by %q in incarnation %d, want %q in the first", id, w.Probe, w.Incarnation, want)
		}
	}
	h.awaitService("proto.MyBusinessService", 1)
	for range 10 {
		h.ask("of the one that has the service")
	}
	r := h.cli("status")
	if !strings.Contains(r.stdout, "3 of 3 workers ready") || !strings.Contains(r.stdout, "probe tcp") {
		t.Errorf("status = %q, want all ready, and how they are asked", r.stdout)
	}
	m.stop()

	h.flags = append(h.flags, "--worker-service", "none")
	m = h.start()
	h.awaitWorkers(3, "run", isRunning)
	h.ask("of the master itself")
	if r := h.cli("service", "list"); strings.Contains(r.stdout, "worker-") {
		t.Errorf("service list = %q, want no worker in it", r.stdout)
	}
	m.stop()
	h.wantNothingLeft()
}

func TestStatusSaysWhatAStartingWorkerIsWaitedFor(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	h.flags = graceful(h.units("mute", "deaf"))
	m := h.start()
	h.awaitWorkers(2, "are waited for", func(_ dump, w worker) bool {
		return w.ID == "worker-0" && w.WaitingFor == "Ping: no answer yet" ||
			w.ID == "worker-1" && strings.HasSuffix(w.WaitingFor, ": connection refused")
	})
	// The answers may be others at the next moment, and these again later.
	waitFor(t, "people are told so", func() error {
		r := h.cli("worker", "list")
		for _, want := range []string{
			"worker-0 is starting: waiting for Ping: no answer yet", "worker-1 is starting: waiting for port ",
		} {
			if !strings.Contains(r.stdout, want) {
				return fmt.Errorf("worker list = %q, want %q in it", r.stdout, want)
			}
		}
		return nil
	})
	m.stop()
	h.wantNothingLeft()
}
