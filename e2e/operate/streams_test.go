//go:build e2e && linux

package operate

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	"github.com/core-tools/hsu-master/api"
	"github.com/core-tools/hsu-master/api/adminpb"
	"github.com/core-tools/hsu-master/e2e/harness"
)

// followers are streams of the admin service whose client reads the first message of each and no other.
type followers struct {
	h     *harness.Host
	conns []*grpc.ClientConn
	ends  []func()
}

func newFollowers(h *harness.Host) *followers {
	h.T.Helper()
	f := &followers{h: h}
	for range 16 {
		conn, err := grpc.NewClient("unix://"+filepath.Join(h.State, "run", "admin.sock"),
			grpc.WithTransportCredentials(insecure.NewCredentials()))
		if err != nil {
			h.T.Fatal(err)
		}
		h.T.Cleanup(func() { _ = conn.Close() })
		f.conns = append(f.conns, conn)
	}
	return f
}

// add opens a stream of the worker's log, or of events.
func (f *followers) add(worker string) {
	f.h.T.Helper()
	ctx, end := context.WithCancel(f.h.T.Context())
	f.h.T.Cleanup(end)
	n := len(f.ends)
	client := adminpb.NewAdminClient(f.conns[n%len(f.conns)])
	var err error
	if n%4 == 3 {
		var events grpc.ServerStreamingClient[adminpb.EventsResponse]
		if events, err = client.Events(ctx, &adminpb.EventsRequest{Follow: true}); err == nil {
			_, err = events.Recv()
		}
	} else {
		var logs grpc.ServerStreamingClient[adminpb.LogsResponse]
		logs, err = client.Logs(ctx, &adminpb.LogsRequest{Names: []string{worker}, Follow: n%2 == 0})
		if err == nil {
			_, err = logs.Recv()
		}
	}
	if err != nil {
		f.h.T.Fatalf("stream %d: %v", n, err)
	}
	f.ends = append(f.ends, end)
}

// residentMB returns the memory of a process.
func residentMB(t *testing.T, pid int) (mb int) {
	t.Helper()
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		t.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(status), "VmRSS:")
	if _, err := fmt.Sscan(rest, &mb); err != nil {
		t.Fatal(err)
	}
	return mb >> 10
}

// Clients that open streams and read none of them make the master use little memory, and no other command waits for
// them, except that further streams are refused.
func TestStreamsOfOneUserAreBounded(t *testing.T) {
	t.Parallel()
	h := harness.NewHost(t)
	h.Flags = h.Units("plain", "plain")
	h.Begin = func(cmd *exec.Cmd) error {
		cmd.Env = append(cmd.Environ(), "GOGC=100") // a master that starts leaves more garbage otherwise
		return cmd.Start()
	}
	m := h.Start()
	h.AwaitRunning(2)
	log, err := os.OpenFile(filepath.Join(h.State, "logs", "worker-0.log"), os.O_WRONLY|os.O_APPEND, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer log.Close()
	if _, err := log.WriteString(strings.Repeat(strings.Repeat("x", 99)+"\n", 80_000)); err != nil {
		t.Fatal(err)
	}
	before := residentMB(t, m.PID)
	f := newFollowers(h)
	for range api.MaxFollowed {
		f.add("worker-0")
	}
	const most = 160 // more than half a megabyte for each
	if used := residentMB(t, m.PID) - before; used > most {
		t.Errorf("the master uses %d MB more for %d streams, want %d at most", used, api.MaxFollowed, most)
	} else {
		t.Logf("%d streams cost %d MB", api.MaxFollowed, used)
	}
	for _, command := range [][]string{
		{"worker", "logs", "-f", "worker-1"},
		{"worker", "logs", "worker-1"},
		{"events", "-f"},
		{"events"},
		{"service", "list", "--watch"},
	} {
		want := fmt.Sprintf("hsu-master: error: user %d has %d streams", os.Getuid(), api.MaxFollowed)
		if r := h.CLI(command...); r.Code != 1 || !strings.HasPrefix(r.Stderr, want) ||
			!strings.Contains(r.Stderr, "hsu-master: hint: end some commands that follow") {
			t.Errorf("%s: exit code %d, %q, want 1 and %q with a hint", command, r.Code, r.Stderr, want)
		}
	}
	for _, command := range [][]string{{"status"}, {"worker", "restart", "worker-0"}, {"why", "worker-0"}} {
		if r := h.CLI(command...); r.Code != 0 {
			t.Errorf("%s: exit code %d, %q", command, r.Code, r.Stderr)
		}
	}
	f.ends[0]()
	harness.WaitFor(t, "there is room for a stream", func() error {
		if r := h.CLI("events"); r.Code != 0 {
			return fmt.Errorf("events: exit code %d, %q", r.Code, r.Stderr)
		}
		return nil
	})
	m.Stop()
	h.WantNothingLeft()
}
