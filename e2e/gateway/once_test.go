//go:build e2e && linux

package gateway

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"

	"github.com/core-tools/hsu-master/api/proto"
	"github.com/core-tools/hsu-master/e2e/harness"
)

// marker is a group of callers whose requests have IDs, and that send each request until it is answered.
type marker struct {
	answered, failed atomic.Int64
	end              context.CancelFunc
	callers          sync.WaitGroup
}

// startMarked starts the callers. Each request is sent once more after its answer.
func startMarked(h *harness.Host, callers int) *marker {
	h.T.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	m := &marker{end: cancel}
	h.T.Cleanup(func() { m.stop() })
	for i := range callers {
		client := proto.NewMyBusinessServiceClient(h.Dial())
		m.callers.Go(func() {
			for n := 0; ctx.Err() == nil; n++ {
				id := fmt.Sprintf("caller-%d-request-%d", i, n)
				for answers := 0; answers < 2; {
					if m.send(h.T, client, id) {
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
		metadata.AppendToOutgoingContext(context.Background(), harness.RequestID, id), harness.Patience)
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
	harness.AwaitMore(t, "requests answered", &m.answered, n)
}

// Workers are killed, one after the other, and no caller notices: each request was answered at the first attempt,
// and counts once.
func TestRequestsWithAnIDNoticeNoDeathOfAWorker(t *testing.T) {
	t.Parallel()
	h := harness.NewHost(t, harness.Workers(2)...)
	h.Flags = append(h.Flags, "--restart-backoff", "1ms", "--restart-budget", "1000/5m")
	m := h.Start()
	d := h.AwaitRunning(2)
	crowd := startMarked(h, 8)
	for n := range 6 {
		crowd.awaitMore(t, 20)
		h.KillWorker(d.Worker(t, fmt.Sprint("worker-", n%2)).PID)
		d = h.AwaitRunning(2)
	}
	crowd.stop()
	if got := h.Dump().ProcessedCount; got != crowd.answered.Load() || crowd.failed.Load() != 0 {
		t.Errorf("processed_count = %d, %d were answered; %d attempts have failed",
			got, crowd.answered.Load(), crowd.failed.Load())
	}
	m.Stop()
	h.WantNothingLeft()
}

// The master is killed too: callers resend unanswered requests, and each request counts exactly once.
func TestRequestsWithAnIDCountOnceOverTheDeathOfTheMaster(t *testing.T) {
	t.Parallel()
	for _, mode := range []string{"always", "interval"} {
		t.Run(mode, func(t *testing.T) {
			t.Parallel()
			h := harness.NewHost(t, append(harness.Workers(2), "--sync", mode)...)
			m := h.Start()
			h.AwaitRunning(2)
			crowd := startMarked(h, 8)
			for range 5 {
				crowd.awaitMore(t, 30)
				m.Kill()
				m = h.Start()
			}
			crowd.awaitMore(t, 30)
			crowd.stop()
			if got := h.Dump().ProcessedCount; got != crowd.answered.Load() {
				t.Errorf("processed_count = %d, %d requests were sent until they were answered",
					got, crowd.answered.Load())
			}
			h.Ask("one without an id")
			m.Stop()
			if got := h.Dump().ProcessedCount; got != crowd.answered.Load()+1 {
				t.Errorf("at rest, processed_count = %d, want one more than %d", got, crowd.answered.Load())
			}
			h.WantNothingLeft()
		})
	}
}

// Requests under a key are retried repeatedly while masters and workers are killed. Each is counted once, and its
// answer stays the same forever, although every worker gives a different answer each time.
func TestRequestUnderAKeyIsCountedOnceOverEveryCrash(t *testing.T) {
	t.Parallel()
	h := harness.NewHost(t)
	const count, callers = 3, 8
	flags, notes := noting(h, "unique", count)
	h.Flags = append(flags, "--restart-backoff", "1ms", "--restart-budget", "1000/5m")
	m := h.Start()
	h.AwaitRunning(count)

	ctx, cancel := context.WithTimeout(t.Context(), 10*harness.Patience)
	var over atomic.Bool
	var mu sync.Mutex
	results := map[string]string{}
	var all sync.WaitGroup
	defer all.Wait()
	defer cancel() // if the test has failed, the callers may wait for a master that is gone
	defer over.Store(true)
	for i := range callers {
		// Two of each: two simultaneous requests under a key run once.
		clients := []proto.MyBusinessServiceClient{
			proto.NewMyBusinessServiceClient(h.Dial()),
			proto.NewMyBusinessServiceClient(h.Dial()),
		}
		all.Go(func() {
			for n := 0; !over.Load(); n++ {
				key := fmt.Sprintf("caller %d, request %d", i, n)
				var answers [2]string
				var both sync.WaitGroup
				for j, client := range clients {
					both.Go(func() { answers[j] = once(ctx, t, client, key) })
				}
				both.Wait()
				if answers[0] != answers[1] {
					t.Errorf("%s was answered with %q and with %q", key, answers[0], answers[1])
				}
				mu.Lock()
				results[key] = answers[0]
				mu.Unlock()
			}
		})
	}
	answered := func() int { mu.Lock(); defer mu.Unlock(); return len(results) }
	awaitMore := func(n int) {
		t.Helper()
		goal := answered() + n
		harness.WaitFor(t, fmt.Sprintf("%d requests are answered", goal), func() error {
			if got := answered(); got < goal {
				return fmt.Errorf("%d", got)
			}
			return nil
		})
	}
	for i := range 6 {
		awaitMore(100)
		if i%2 == 0 {
			m.Kill()
			m = h.Start()
		} else {
			h.KillWorker(h.AwaitRunning(count).Workers[i%count].PID)
			h.AwaitRunning(count)
		}
	}
	awaitMore(20)
	over.Store(true)
	all.Wait()

	if got := h.Dump().ProcessedCount; got != int64(len(results)) {
		t.Errorf("processed_count = %d, want that of the keys, %d", got, len(results))
	}
	// A master that has run none of the requests knows the answers.
	m.Kill()
	m = h.Start()
	client := proto.NewMyBusinessServiceClient(h.Dial())
	for key, want := range results {
		if got := once(ctx, t, client, key); got != want {
			t.Errorf("%s was answered with %q, and later with %q", key, want, got)
		}
	}
	if got := h.Dump().ProcessedCount; got != int64(len(results)) {
		t.Errorf("processed_count = %d after they were asked for again, want %d as before", got, len(results))
	}
	times, _ := handled(t, notes)
	again := 0
	for _, n := range times {
		if n > 1 {
			again++
		}
	}
	t.Logf("%d requests, %d of them handled more than once", len(results), again)
	m.Stop()
	h.WantNothingLeft()
}

// once calls ProcessData under a key until it is answered.
func once(ctx context.Context, t *testing.T, client proto.MyBusinessServiceClient, key string) string {
	for ctx.Err() == nil {
		call := metadata.AppendToOutgoingContext(ctx, harness.RequestID, key)
		call, cancel := context.WithTimeout(call, 2*time.Second)
		answer, err := client.ProcessData(call, &proto.ProcessRequest{Data: key})
		cancel()
		if err == nil {
			return answer.GetResult()
		}
		time.Sleep(time.Millisecond) // it retries, but not at once
	}
	t.Errorf("%s was never answered", key)
	return ""
}
