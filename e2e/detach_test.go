//go:build e2e && linux

package e2e

import (
	"errors"
	"fmt"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/types/known/wrapperspb"
)

// A call waits for the next master before it is sent, so that only a call in flight can fail.
func TestDetachedMasterFinishesTheCallsUnderWay(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	flags, notes := h.noting("echo", 2)
	h.flags = append(flags, "--worker-service", echoService)
	m := h.start()
	want := h.awaitRunning(2).instances(t)
	h.awaitService(echoService, 2)
	calls := h.startCrowd("callers", 8, false, patience)
	for cycle := range 6 {
		calls.awaitMore(30)
		m.signal(syscall.SIGUSR1)
		m.wantExit(0)
		m = h.start()
		calls.wantFailures(fmt.Sprintf("after detach %d", cycle), 0)
		if diff := cmp.Diff(want, h.awaitRunning(2).instances(t)); diff != "" {
			t.Errorf("the workers are not what they were (-before +after):\n%s", diff)
		}
	}
	calls.awaitMore(30)
	calls.stop()
	calls.wantFailures("at the end", 0)
	times, _ := handled(t, notes)
	calls.wantHandled(times)
	m.stop()
	h.wantNothingLeft()
}

// A call without an end must not keep the master from exiting.
func TestDetachWaitsForCallsNoLongerThanTheGrace(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	flags := append(h.units("plain"), "--worker-arg=-echo") // it answers other methods as streams
	h.flags = append(flags, "--worker-service", echoService, "--stop-grace", "200ms")
	m := h.start()
	want := h.awaitRunning(1).instances(t)
	h.awaitService(echoService, 1)
	both := &grpc.StreamDesc{ServerStreams: true, ClientStreams: true}
	stream, err := h.dial().NewStream(t.Context(), both, "/"+echoService+"/Stream")
	if err != nil {
		t.Fatal(err)
	}
	answer := new(wrapperspb.StringValue)
	if err := errors.Join(stream.SendMsg(wrapperspb.String("x")), stream.RecvMsg(answer)); err != nil {
		t.Fatal(err)
	}
	m.signal(syscall.SIGUSR1)
	m.wantExit(0)
	if err := stream.RecvMsg(answer); err == nil {
		t.Error("the stream goes on without a master")
	}
	m = h.start()
	if diff := cmp.Diff(want, h.awaitRunning(1).instances(t)); diff != "" {
		t.Errorf("the worker is not what it was (-before +after):\n%s", diff)
	}
	m.stop()
	h.wantNothingLeft()
}
