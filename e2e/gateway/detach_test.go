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
