//go:build e2e && linux

package e2e

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/grpc/metadata"

	"github.com/core-tools/hsu-master/api/proto"
)

// once calls ProcessData under a key until it is answered.
func once(ctx context.Context, t *testing.T, client proto.MyBusinessServiceClient, key string) string {
	for ctx.Err() == nil {
		call, cancel := context.WithTimeout(metadata.AppendToOutgoingContext(ctx, requestID, key), 2*time.Second)
		answer, err := client.ProcessData(call, &proto.ProcessRequest{Data: key})
		cancel()
		if err == nil {
			return answer.GetResult()
		}
		time.Sleep(time.Millisecond)
	}
	t.Errorf("%s was never answered", key)
	return ""
}

// Requests under a key are retried repeatedly while masters and workers are killed. Each is counted once, and its
// answer stays the same forever, although every worker gives a different answer each time.
func TestRequestUnderAKeyIsCountedOnceOverEveryCrash(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	const count, callers = 3, 8
	flags, notes := h.noting("unique", count)
	h.flags = append(flags, "--restart-backoff", "1ms", "--restart-budget", "1000/5m")
	m := h.start()
	h.awaitRunning(count)

	ctx, cancel := context.WithTimeout(t.Context(), 10*patience)
	defer cancel()
	var over atomic.Bool
	var mu sync.Mutex
	results := map[string]string{}
	var all sync.WaitGroup
	defer all.Wait()
	defer over.Store(true)
	for i := range callers {
		// Two of each: two simultaneous requests under a key run once.
		clients := []proto.MyBusinessServiceClient{
			proto.NewMyBusinessServiceClient(h.dial()),
			proto.NewMyBusinessServiceClient(h.dial()),
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
		waitFor(t, fmt.Sprintf("%d requests are answered", goal), func() error {
			if got := answered(); got < goal {
				return fmt.Errorf("%d", got)
			}
			return nil
		})
	}
	for i := range 6 {
		awaitMore(100)
		if i%2 == 0 {
			m.kill()
			m = h.start()
		} else {
			h.killWorker(h.awaitRunning(count).Workers[i%count].PID)
			h.awaitRunning(count)
		}
	}
	awaitMore(20)
	over.Store(true)
	all.Wait()

	if got := h.dump().ProcessedCount; got != int64(len(results)) {
		t.Errorf("processed_count = %d, want that of the keys, %d", got, len(results))
	}
	// A master that has run none of the requests knows the answers.
	m.kill()
	m = h.start()
	client := proto.NewMyBusinessServiceClient(h.dial())
	for key, want := range results {
		if got := once(ctx, t, client, key); got != want {
			t.Errorf("%s was answered with %q, and later with %q", key, want, got)
		}
	}
	if got := h.dump().ProcessedCount; got != int64(len(results)) {
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
	m.stop()
	h.wantNothingLeft()
}
