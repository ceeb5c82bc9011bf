//go:build e2e && linux

package e2e

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"

	"github.com/core-tools/hsu-master/api/proto"
)

// marker is a group of callers whose requests have IDs, and that send each request until it is answered.
type marker struct {
	answered, failed atomic.Int64
	end              context.CancelFunc
	callers          sync.WaitGroup
}

// startMarked starts the callers. Each request is sent once more after its answer.
func (h *host) startMarked(callers int) *marker {
	h.t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	m := &marker{end: cancel}
	h.t.Cleanup(func() { m.stop() })
	for i := range callers {
		client := proto.NewMyBusinessServiceClient(h.dial())
		m.callers.Go(func() {
			for n := 0; ctx.Err() == nil; n++ {
				id := fmt.Sprintf("caller-%d-request-%d", i, n)
				for answers := 0; answers < 2; {
					if m.send(h.t, client, id) {
						answers++
					}
				}
				m.answered.Add(1)
			}
		})
	}
	return m
}

func (m *marker) send(t *testing.T, client proto.MyBusinessServiceClient, id string) bool {
	ctx, cancel := context.WithTimeout(
		metadata.AppendToOutgoingContext(context.Background(), "hsu-request-id", id), patience)
	defer cancel()
	answer, err := client.ProcessData(ctx, &proto.ProcessRequest{Data: id}, grpc.WaitForReady(true))
	if err != nil {
		m.failed.Add(1)
		return false
	}
	if answer.GetResult() != "Processed: "+id || !answer.GetSuccess() {
		t.Errorf("ProcessData(%q) = %v", id, answer)
	}
	return true
}

// stop returns when every request was answered.
func (m *marker) stop() {
	m.end()
	m.callers.Wait()
}

func (m *marker) awaitMore(t *testing.T, n int64) {
	t.Helper()
	awaitMore(t, "requests answered", &m.answered, n)
}

// Workers are killed, one after the other, and no caller notices: each request was answered at the first attempt,
// and counts once.
func TestRequestsWithAnIDNoticeNoDeathOfAWorker(t *testing.T) {
	t.Parallel()
	h := newHost(t, workers(2)...)
	h.flags = append(h.flags, "--restart-backoff", "1ms", "--restart-budget", "1000/5m")
	m := h.start()
	d := h.awaitRunning(2)
	crowd := h.startMarked(8)
	for n := range 6 {
		crowd.awaitMore(t, 20)
		h.killWorker(d.worker(t, fmt.Sprint("worker-", n%2)).PID)
		d = h.awaitRunning(2)
	}
	crowd.stop()
	if got := h.dump().ProcessedCount; got != crowd.answered.Load() || crowd.failed.Load() != 0 {
		t.Errorf("processed_count = %d, %d were answered; %d attempts have failed",
			got, crowd.answered.Load(), crowd.failed.Load())
	}
	m.stop()
	h.wantNothingLeft()
}

// The master is killed too: callers resend unanswered requests, and each request counts exactly once.
func TestRequestsWithAnIDCountOnceOverTheDeathOfTheMaster(t *testing.T) {
	t.Parallel()
	for _, mode := range []string{"always", "interval"} {
		t.Run(mode, func(t *testing.T) {
			t.Parallel()
			h := newHost(t, append(workers(2), "--sync", mode)...)
			m := h.start()
			h.awaitRunning(2)
			crowd := h.startMarked(8)
			for range 5 {
				crowd.awaitMore(t, 30)
				m.kill()
				m = h.start()
			}
			crowd.awaitMore(t, 30)
			crowd.stop()
			if got := h.dump().ProcessedCount; got != crowd.answered.Load() {
				t.Errorf("processed_count = %d, %d requests were sent until they were answered",
					got, crowd.answered.Load())
			}
			h.ask("one without an id")
			m.stop()
			if got := h.dump().ProcessedCount; got != crowd.answered.Load()+1 {
				t.Errorf("at rest, processed_count = %d, want one more than %d", got, crowd.answered.Load())
			}
			h.wantNothingLeft()
		})
	}
}
