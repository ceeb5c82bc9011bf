//go:build e2e && linux

package gateway

import (
	"strings"
	"testing"

	"github.com/core-tools/hsu-master/e2e/harness"
)

// Any gRPC server can be a worker, with any of the health checks.
func TestServersWithoutPingAreWorkersAndOfferNothingThatTheyDoNotHave(t *testing.T) {
	t.Parallel()
	h := harness.NewHost(t)
	h.Flags = h.Units("plain", "healthy", "bare")
	m := h.Start()
	isRunning := func(w harness.Worker) bool { return w.Status == "running" } // also without a service
	d := h.AwaitWorkers(3, "run", isRunning)
	for id, want := range map[string]string{"worker-0": "ping", "worker-1": "grpc", "worker-2": "tcp"} {
		if w := d.Worker(t, id); w.Probe != want || w.Incarnation != 1 {
			t.Errorf("%s is asked by %q in incarnation %d, want %q in the first", id, w.Probe, w.Incarnation, want)
		}
	}
	awaitService(h, "proto.MyBusinessService", 1)
	for range 10 {
		h.Ask("of the one that has the service")
	}
	r := h.CLI("status")
	if !strings.Contains(r.Stdout, "3 of 3 workers ready") || !strings.Contains(r.Stdout, "probe tcp") {
		t.Errorf("status = %q, want all ready, and how they are asked", r.Stdout)
	}
	m.Stop()

	h.Flags = append(h.Flags, "--worker-service", "none")
	m = h.Start()
	h.AwaitWorkers(3, "run", isRunning)
	h.Ask("of the master itself")
	if r := h.CLI("service", "list"); strings.Contains(r.Stdout, "worker-") {
		t.Errorf("service list = %q, want no worker in it", r.Stdout)
	}
	m.Stop()
	h.WantNothingLeft()
}
