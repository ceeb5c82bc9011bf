//go:build e2e && linux

package harness

import (
	"context"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"

	"github.com/core-tools/hsu-master/api/proto"
	"github.com/core-tools/hsu-master/internal/rpc"
)

// Dial connects to the master, whichever runs.
func (h *Host) Dial() *grpc.ClientConn {
	h.T.Helper()
	return dial(h.T, h.Port, h.credentials())
}

// credentials returns those of the host's clients.
func (h *Host) credentials() credentials.TransportCredentials {
	if h.Credentials == nil {
		return insecure.NewCredentials()
	}
	return h.Credentials
}

// Dial makes a connection that reconnects within milliseconds after its server is back.
func Dial(t *testing.T, port int) *grpc.ClientConn {
	t.Helper()
	return dial(t, port, insecure.NewCredentials())
}

func dial(t *testing.T, port int, secured credentials.TransportCredentials) *grpc.ClientConn {
	t.Helper()
	conn, err := grpc.NewClient("passthrough:///"+Loopback(port),
		grpc.WithTransportCredentials(secured),
		rpc.Interceptor(),
		grpc.WithConnectParams(grpc.ConnectParams{
			Backoff: backoff.Config{
				BaseDelay: 2 * time.Millisecond, Multiplier: 1.5, MaxDelay: 20 * time.Millisecond,
			},
			// A port without a listener refuses at once. A server that is only slow must not fail the calls that do
			// not wait for it to be ready.
			MinConnectTimeout: Patience,
		}))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	return conn
}

// Ask has one item processed by the master.
func (h *Host) Ask(data string) {
	h.T.Helper()
	ctx, cancel := context.WithTimeout(h.T.Context(), Patience)
	defer cancel()
	answer, err := proto.NewMyBusinessServiceClient(h.Dial()).ProcessData(ctx, &proto.ProcessRequest{Data: data})
	if err != nil || answer.GetResult() != "Processed: "+data || !answer.GetSuccess() {
		h.T.Errorf("ProcessData(%q) = %v, %v", data, answer, err)
	}
}

// WorkerStatus asks the worker directly, without a master, for its in-memory state.
func WorkerStatus(t *testing.T, port int) *proto.StatusResponse {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), Patience)
	defer cancel()
	answer, err := proto.NewMyBusinessServiceClient(Dial(t, port)).GetStatus(ctx, &proto.StatusRequest{},
		grpc.WaitForReady(true))
	if err != nil {
		t.Fatalf("the worker on port %d does not answer: %v", port, err)
	}
	return answer
}
