//go:build e2e && linux

package gateway

import (
	"errors"
	"fmt"
	"syscall"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/core-tools/hsu-master/e2e/harness"
)

// A call waits for the next master before it is sent, so that only a call in flight can fail.
func TestDetachedMasterFinishesTheCallsUnderWay(t *testing.T) {
	t.Parallel()
	h := harness.NewHost(t)
	flags, notes := noting(h, "echo", 2)
	h.Flags = append(flags, "--worker-service", echoService)
	m := h.Start()
	want := h.AwaitRunning(2).Instances()
	awaitService(h, echoService, 2)
	calls := startCrowd(h, "callers", 8, false, harness.Patience)
	for cycle := range 6 {
		calls.awaitMore(30)
		m.Signal(syscall.SIGUSR1)
		m.WantExit(0)
		m = h.Start()
		calls.wantFailures(fmt.Sprintf("after detach %d", cycle), 0)
		h.AwaitRunning(2).WantInstances(t, want)
	}
	calls.awaitMore(30)
	calls.stop()
	calls.wantFailures("at the end", 0)
	times, _ := handled(t, notes)
	calls.wantHandled(times)
	m.Stop()
	h.WantNothingLeft()
}

// A call without an end must not keep the master from exiting.
func TestDetachWaitsForCallsNoLongerThanTheGrace(t *testing.T) {
	t.Parallel()
	h := harness.NewHost(t)
	flags := append(h.Units("plain"), "--worker-arg=-echo") // it answers other methods as streams
	h.Flags = append(flags, "--worker-service", echoService, "--stop-grace", "200ms")
	m := h.Start()
	want := h.AwaitRunning(1).Instances()
	awaitService(h, echoService, 1)
	both := &grpc.StreamDesc{ServerStreams: true, ClientStreams: true}
	stream, err := h.Dial().NewStream(t.Context(), both, "/"+echoService+"/Stream")
	if err != nil {
		t.Fatal(err)
	}
	answer := new(wrapperspb.StringValue)
	if err := errors.Join(stream.SendMsg(wrapperspb.String("x")), stream.RecvMsg(answer)); err != nil {
		t.Fatal(err)
	}
	m.Signal(syscall.SIGUSR1)
	m.WantExit(0)
	if err := stream.RecvMsg(answer); err == nil {
		t.Error("the stream goes on without a master")
	}
	m = h.Start()
	h.AwaitRunning(1).WantInstances(t, want)
	m.Stop()
	h.WantNothingLeft()
}

// Callers of a master whose listener outlives it, as that of systemd does, notice nothing.
func TestDetachAndStartLosesNoCall(t *testing.T) {
	t.Parallel()
	h := harness.NewHost(t)
	h.KeepListener()
	flags, notes := noting(h, "echo", 2)
	h.Flags = append(flags, "--worker-service", echoService)
	m := h.Start()
	want := h.AwaitRunning(2).Instances()
	awaitService(h, echoService, 2)
	calls := startCrowd(h, "callers", 64, false, harness.Patience)
	once := startCrowd(h, "callers that retry", 8, true, harness.Patience)
	refused := h.CountRefused()
	for cycle := range 4 {
		calls.awaitMore(100)
		if r := h.CLI("detach"); r.Code != 0 {
			t.Fatalf("detach: %+v", r)
		}
		m.WantExit(0)
		m = h.Start()
		h.AwaitRunning(2).WantInstances(t, want)
		calls.awaitMore(100)
		calls.wantFailures(fmt.Sprintf("after detach %d", cycle), 0)
		once.wantFailures(fmt.Sprintf("after detach %d", cycle), 0)
	}
	calls.stop()
	once.stop()
	if n := refused(); n > 0 {
		t.Errorf("%d connections were refused", n)
	}
	times, _ := handled(t, notes)
	calls.wantHandled(times)
	once.wantHandled(times)
	if r := h.CLI("down"); r.Code != 0 {
		t.Errorf("down: %+v", r)
	}
	m.WantExit(0)
	h.WantNothingLeft()
}
