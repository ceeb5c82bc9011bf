//go:build e2e && linux

package gateway

import (
	"context"
	"fmt"
	"testing"
	"time"

	"golang.org/x/sys/unix"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/core-tools/hsu-master/e2e/harness"
	"github.com/core-tools/hsu-master/e2e/testdata/echo"
)

func TestEchoUnitIsCalledOverCrashesOfTheMasterAndOfWorkers(t *testing.T) {
	t.Parallel()
	h := harness.NewHost(t)
	const callers = 8
	flags, notes := noting(h, "echo", 3)
	h.Flags = append(flags, "--worker-service", echoService, "--restart-backoff", "1ms", "--restart-budget", "100/5m")
	m := h.Start()
	before := h.AwaitRunning(3)
	awaitService(h, echoService, 3)
	calls := startCrowd(h, "echo callers", callers, false, harness.Patience)
	calls.awaitMore(100)
	calls.wantFailures("before any crash", 0)
	for range 3 {
		want := h.AwaitRunning(3).Instances()
		m.Kill()
		m = h.Start()
		calls.takeFailures() // failures of calls in flight; a call that is not sent yet waits
		// Each adopted worker has its routes before SERVING, so that no call fails from now on.
		conn := h.Dial()
		for i := range 30 {
			ctx, cancel := context.WithTimeout(t.Context(), harness.Patience)
			if err := echo.Call(ctx, conn, fmt.Sprintf("after SERVING, %d", i), grpc.WaitForReady(true)); err != nil {
				t.Errorf("call %d after SERVING: %v", i, err)
			}
			cancel()
		}
		calls.awaitMore(100)
		calls.wantFailures("after SERVING", callers, codes.Unavailable)
		awaitService(h, echoService, 3)
		h.AwaitRunning(3).WantInstances(t, want)
	}
	for _, w := range before.Workers {
		calls.awaitMore(10)
		calls.takeFailures()
		h.KillWorker(w.PID)
		calls.awaitMore(50)
		calls.wantFailures("after the end of a worker", 2*callers, codes.Unavailable)
		h.AwaitRunning(3)
		awaitService(h, echoService, 3)
	}
	calls.stop()
	times, _ := handled(t, notes)
	calls.wantHandled(times)
	m.Stop()
	h.WantNothingLeft()
}

// A client that waits for SERVING and calls at once is answered by a worker that existed before.
func TestRoutesOfAdoptedWorkersAreThereBeforeServing(t *testing.T) {
	t.Parallel()
	h := harness.NewHost(t)
	h.Flags = echoes(h, "echo", "echo", "echo", "echo")
	m := h.Start()
	want := h.AwaitRunning(4).Instances()
	awaitService(h, echoService, 4)
	for range 5 {
		m.Kill()
		m = h.Start()
		conn := h.Dial()
		for range 50 {
			// The timeout only covers the call itself: it must not have to wait.
			ctx, cancel := context.WithTimeout(t.Context(), harness.Patience)
			if err := echo.Call(ctx, conn, "first"); err != nil {
				t.Errorf("a call after SERVING: %v", err)
			}
			cancel()
		}
	}
	h.AwaitRunning(4).WantInstances(t, want)
	m.Stop()
	h.WantNothingLeft()
}

// A call of a service whose workers are not ready yet waits, instead of failing as for an unknown service.
func TestCallOfAServiceWhoseWorkerIsNotReadyWaitsForIt(t *testing.T) {
	t.Parallel()
	h := harness.NewHost(t)
	h.Flags = echoes(h, "deaf")
	m := h.Start()
	began := time.Now()
	ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	err := echo.Call(ctx, h.Dial(), "nobody there")
	if code := status.Code(err); code != codes.DeadlineExceeded && code != codes.Unavailable ||
		time.Since(began) < 250*time.Millisecond {
		t.Errorf("after %s: %v, want it to have waited", time.Since(began), err)
	}
	m.Kill()
	h.Flags = echoes(h, "echo")
	for _, f := range h.Processes() {
		f.Signal(unix.SIGKILL)
	}
	m = h.Start()
	ctx, cancel = context.WithTimeout(t.Context(), harness.Patience)
	defer cancel()
	if err := echo.Call(ctx, h.Dial(), "now there is"); err != nil {
		t.Error(err)
	}
	m.Stop()
}
