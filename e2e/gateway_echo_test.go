//go:build e2e && linux

package e2e

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

func TestEchoUnitIsCalledOverCrashesOfTheMasterAndOfWorkers(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	const callers = 8
	flags, notes := h.noting("echo", 3)
	h.flags = append(flags, "--worker-service", echoService, "--restart-backoff", "1ms", "--restart-budget", "100/5m")
	m := h.start()
	before := h.awaitRunning(3)
	h.awaitService(echoService, 3)
	calls := h.startCrowd("echo callers", callers, false, patience)
	calls.awaitMore(100)
	calls.wantFailures("before any crash", 0)
	for range 3 {
		want := h.awaitRunning(3).instances(t)
		m.kill()
		m = h.start()
		calls.takeFailures() // failures of calls in flight; a call that is not sent yet waits
		// Each adopted worker has its routes before SERVING, so that no call fails from now on.
		conn := h.dial()
		for i := range 30 {
			ctx, cancel := context.WithTimeout(t.Context(), patience)
			if err := callEcho(ctx, conn, fmt.Sprintf("after SERVING, %d", i), grpc.WaitForReady(true)); err != nil {
				t.Errorf("call %d after SERVING: %v", i, err)
			}
			cancel()
		}
		calls.awaitMore(100)
		calls.wantFailures("after SERVING", callers, codes.Unavailable)
		h.awaitService(echoService, 3)
		if diff := cmp.Diff(want, h.awaitRunning(3).instances(t)); diff != "" {
			t.Errorf("the units are not what they were (-before +after):\n%s", diff)
		}
	}
	for _, w := range before.Workers {
		calls.awaitMore(10)
		calls.takeFailures()
		h.killWorker(w.PID)
		calls.awaitMore(50)
		calls.wantFailures("after the end of a worker", 2*callers, codes.Unavailable)
		h.awaitRunning(3)
		h.awaitService(echoService, 3)
	}
	calls.stop()
	times, _ := handled(t, notes)
	calls.wantHandled(times)
	m.stop()
	h.wantNothingLeft()
}

// A client that waits for SERVING and calls at once is answered by a worker that existed before.
func TestRoutesOfAdoptedWorkersAreThereBeforeServing(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	h.flags = h.echoes("echo", "echo", "echo", "echo")
	m := h.start()
	want := h.awaitRunning(4).instances(t)
	h.awaitService(echoService, 4)
	for range 5 {
		m.kill()
		m = h.start()
		conn := h.dial()
		for range 50 {
			// The timeout only covers the call itself: it must not have to wait.
			ctx, cancel := context.WithTimeout(t.Context(), patience)
			if err := callEcho(ctx, conn, "first"); err != nil {
				t.Errorf("a call after SERVING: %v", err)
			}
			cancel()
		}
	}
	if diff := cmp.Diff(want, h.awaitRunning(4).instances(t)); diff != "" {
		t.Errorf("the units are not what they were (-before +after):\n%s", diff)
	}
	m.stop()
	h.wantNothingLeft()
}

// A call of a service whose workers are not ready yet waits, instead of failing as for an unknown service.
func TestCallOfAServiceWhoseWorkerIsNotReadyWaitsForIt(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	h.flags = h.echoes("deaf")
	m := h.start()
	began := time.Now()
	ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	err := callEcho(ctx, h.dial(), "nobody there")
	if code := status.Code(err); code != codes.DeadlineExceeded && code != codes.Unavailable ||
		time.Since(began) < 250*time.Millisecond {
		t.Errorf("after %s: %v, want it to have waited", time.Since(began), err)
	}
	m.kill()
	h.flags = h.echoes("echo")
	for _, f := range h.processes() {
		f.kill()
	}
	m = h.start()
	ctx, cancel = context.WithTimeout(t.Context(), patience)
	defer cancel()
	if err := callEcho(ctx, h.dial(), "now there is"); err != nil {
		t.Error(err)
	}
	m.stop()
}
