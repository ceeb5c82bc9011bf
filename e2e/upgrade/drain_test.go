//go:build e2e && linux

package upgrade

import (
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/core-tools/hsu-master/e2e/harness"
	"github.com/core-tools/hsu-master/internal/crashpoint"
	"github.com/core-tools/hsu-master/store"
)

const echoService = "test.Echo"

// echoHost returns a host with a worker that answers each message of a stream.
func echoHost(t *testing.T) *harness.Host {
	t.Helper()
	h := newHost(t)
	h.Flags = append(h.Units("plain"), "--worker-arg=-echo", "--worker-service", echoService)
	return h
}

// openStream returns a stream to a worker that has answered once.
func openStream(h *harness.Host) grpc.ClientStream {
	h.T.Helper()
	both := &grpc.StreamDesc{ServerStreams: true, ClientStreams: true}
	stream, err := h.Dial().NewStream(h.T.Context(), both, "/"+echoService+"/Stream", grpc.WaitForReady(true))
	if err == nil {
		err = echo(stream, "first")
	}
	if err != nil {
		h.T.Fatal(err)
	}
	return stream
}

func echo(stream grpc.ClientStream, text string) error {
	answer := new(wrapperspb.StringValue)
	err := errors.Join(stream.SendMsg(wrapperspb.String(text)), stream.RecvMsg(answer))
	if err == nil && answer.GetValue() != text {
		err = fmt.Errorf("echo %q", answer.GetValue())
	}
	return err
}

// A stream that ends within the drain is not disturbed; one that does not is cut and counted.
func TestDrainIsBounded(t *testing.T) {
	t.Parallel()
	h := echoHost(t)
	m := h.Start()
	want := h.AwaitRunning(1).Instances()
	short, long := openStream(h), openStream(h)
	h.InstallMaster(harness.MasterOf(t, harness.NewVersion))
	done := make(chan outcome)
	go func() { done <- upgrade(h, "--drain", "3s") }()
	harness.WaitFor(t, "the drain begins", func() error { return logged(m, "master upgrading") })
	if err := errors.Join(echo(short, "while draining"), short.CloseSend()); err != nil {
		t.Errorf("a stream in flight: %v", err)
	}
	if err := short.RecvMsg(new(wrapperspb.StringValue)); err == nil || status.Code(err) == codes.Unavailable {
		t.Errorf("the stream that ends while the master drains: %v", err)
	}
	if o := <-done; o.CallsCut != 1 {
		t.Errorf("%+v, want one call cut", o)
	}
	if err := echo(long, "too late"); status.Code(long.RecvMsg(new(wrapperspb.StringValue))) != codes.Unavailable {
		t.Errorf("the stream beyond the drain: %v, want UNAVAILABLE", err)
	}
	h.AwaitRunning(1).WantInstances(t, want)
	m.Stop()
	wantEvent(h, "upgrade", "from version v1.0.0 to v2.0.0; 1 calls cut")
	h.WantNothingLeft()
}

// count opens a stream in which the worker sends so many messages, 10 ms apart, and returns when the first has come.
func count(h *harness.Host, most int) grpc.ClientStream {
	h.T.Helper()
	stream, err := h.Dial().NewStream(h.T.Context(), &grpc.StreamDesc{ServerStreams: true},
		"/"+echoService+"/Count", grpc.WaitForReady(true))
	if err == nil {
		err = errors.Join(stream.SendMsg(wrapperspb.String(strconv.Itoa(most))), stream.CloseSend(),
			stream.RecvMsg(new(wrapperspb.StringValue)))
	}
	if err != nil {
		h.T.Fatal(err)
	}
	return stream
}

// receive returns how many messages have come in all when the stream ends, and its error.
func receive(stream grpc.ClientStream) (int, error) {
	for n := 1; ; n++ {
		message := new(wrapperspb.StringValue)
		if err := stream.RecvMsg(message); err != nil {
			return n, err
		}
		if message.GetValue() != strconv.Itoa(n) {
			return n, fmt.Errorf("message %d is %q", n, message.GetValue())
		}
	}
}

// A stream of the server ends in order if that takes no longer than the drain. Otherwise the client gets all messages
// until then, and UNAVAILABLE. A new stream waits for the new program.
func TestServerStreamsAreDrained(t *testing.T) {
	t.Parallel()
	h := echoHost(t)
	m := h.Start()
	want := h.AwaitRunning(1).Instances()
	const most = 150 // 1.5 s
	short, long := count(h, most), count(h, math.MaxInt32)
	h.InstallMaster(harness.MasterOf(t, harness.NewVersion))
	done := make(chan outcome)
	go func() { done <- upgrade(h, "--drain", "4s") }()
	harness.WaitFor(t, "the drain begins", func() error { return logged(m, "master upgrading") })
	if n, err := receive(short); n != most || !errors.Is(err, io.EOF) {
		t.Errorf("the stream that ends within the drain: %d messages, %v", n, err)
	}
	if err := openStream(h).CloseSend(); err != nil {
		t.Errorf("a new stream: %v", err)
	}
	if o := <-done; o.CallsCut != 1 {
		t.Errorf("%+v, want one call cut", o)
	}
	if n, err := receive(long); n <= most || status.Code(err) != codes.Unavailable {
		t.Errorf("the stream beyond the drain: %d messages, %v, want UNAVAILABLE", n, err)
	}
	h.AwaitRunning(1).WantInstances(t, want)
	m.Stop()
	h.WantNothingLeft()
}

// A second upgrade is refused while one is under way, and an order to stop ends the first.
func TestStopEndsTheDrain(t *testing.T) {
	t.Parallel()
	h := echoHost(t)
	h.Flags = append(h.Flags, "--stop-grace", "1s")
	m := h.Start()
	h.AwaitRunning(1)
	openStream(h)
	first := make(chan harness.Result)
	go func() { first <- h.CLI("upgrade") }()
	harness.WaitFor(t, "the drain begins", func() error { return logged(m, "master upgrading") })
	if r := h.CLI("upgrade"); r.Code != 1 || !strings.Contains(r.Stderr, "another upgrade is under way") {
		t.Errorf("a second upgrade: %+v", r)
	}
	m.Stop()
	if r := <-first; r.Code != 1 || !strings.Contains(r.Stderr, "the master is stopping") {
		t.Errorf("the first upgrade: %+v", r)
	}
	h.WantNothingLeft()
}

// A signal that arrives when the old program has ended its work is executed by the new one.
func TestSignalToStopIsNotLost(t *testing.T) {
	t.Parallel()
	h := newHost(t, harness.Workers(1)...)
	faults := t.TempDir()
	hang := filepath.Join(faults, string(crashpoint.Unlock))
	if err := os.WriteFile(hang, []byte("hang"), 0o600); err != nil {
		t.Fatal(err)
	}
	trace := filepath.Join(h.Dir, "trace")
	m := h.Launch(h.Program, []string{"HSU_FAULT_DIR=" + faults, "HSU_CRASH_TRACE=" + trace})
	m.AwaitServing()
	h.AwaitRunning(1)
	m.Signal(syscall.SIGUSR2)
	harness.WaitFor(t, "the supervisor has ended", func() error {
		text, err := os.ReadFile(trace)
		if err == nil && !strings.Contains(string(text), crashpoint.Detach.After()) {
			err = errors.New("not yet")
		}
		return err
	})
	m.Signal(syscall.SIGTERM)
	harness.WaitFor(t, "the signal is delivered", func() error {
		text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", m.PID))
		if err == nil && !strings.Contains(string(text), "ShdPnd:\t0000000000000000\n") {
			err = errors.New("it is pending")
		}
		return err
	})
	if err := os.Remove(hang); err != nil {
		t.Fatal(err)
	}
	m.WantExit(0)
	if n := strings.Count(m.Log(), `"msg":"master started"`); n != 2 {
		t.Errorf("%d programs were started, want the first and the one that stops", n)
	}
	h.WantNothingLeft()
}

// wantEvent expects an event of an operator in the history of a master that has ended.
func wantEvent(h *harness.Host, kind, detail string) {
	h.T.Helper()
	snap, err := store.ReadSnapshot(h.State)
	if err != nil {
		h.T.Fatal(err)
	}
	for _, e := range snap.Events {
		if e.Type == kind && strings.Contains(e.Detail, detail) {
			if e.Operator == nil || int(e.Operator.UID) != os.Getuid() {
				h.T.Errorf("the event names no operator: %+v", e)
			}
			return
		}
	}
	h.T.Errorf("no event %q with %q: %+v", kind, detail, snap.Events)
}
