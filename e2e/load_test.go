//go:build e2e && linux

package e2e

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/grpc"

	"github.com/core-tools/hsu-master/api/proto"
)

// load is a group of callers that send requests continuously.
type load struct {
	t           *testing.T
	sent, acked atomic.Int64
	end         context.CancelFunc
	callers     sync.WaitGroup

	mu       sync.Mutex
	failures map[string]int // since takeFailures
	epoch    int            // the number of calls of forgetFailures
}

// startLoad starts the callers. Each sends its next request when the last one was answered or failed. A call waits
// for the master to be ready, so that each request that is sent is sent once.
func (h *host) startLoad(callers int) *load {
	h.t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	l := &load{t: h.t, end: cancel}
	h.t.Cleanup(l.stop)
	var conns [8]*grpc.ClientConn
	for i := range conns {
		conns[i] = h.dial()
	}
	for i := range callers {
		client := proto.NewMyBusinessServiceClient(conns[i%len(conns)])
		l.callers.Go(func() {
			for n := 0; ctx.Err() == nil; n++ {
				l.call(client, fmt.Sprintf("caller %d, request %d", i, n))
			}
		})
	}
	return l
}

func (l *load) call(client proto.MyBusinessServiceClient, data string) {
	// Not the load's own context: at its end, calls in flight are waited for.
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	l.mu.Lock()
	epoch := l.epoch
	l.mu.Unlock()
	l.sent.Add(1)
	answer, err := client.ProcessData(ctx, &proto.ProcessRequest{Data: data}, grpc.WaitForReady(true))
	if err != nil {
		l.failed(err, epoch)
		return
	}
	l.acked.Add(1)
	if answer.GetResult() != "Processed: "+data || !answer.GetSuccess() {
		l.t.Errorf("ProcessData(%q) = %v", data, answer)
	}
}

// failed records a caller's error; the caller retries, but not at once.
func (l *load) failed(err error, epoch int) {
	l.mu.Lock()
	if l.failures == nil {
		l.failures = map[string]int{}
	}
	if epoch == l.epoch {
		l.failures[err.Error()]++
	}
	l.mu.Unlock()
	time.Sleep(time.Millisecond)
}

// takeFailures returns the number of each error, and clears them.
func (l *load) takeFailures() map[string]int {
	l.mu.Lock()
	defer l.mu.Unlock()
	failures := l.failures
	l.failures = nil
	return failures
}

// forgetFailures clears the failures of all calls that were begun before, also of those that have not ended yet.
func (l *load) forgetFailures() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.failures = nil
	l.epoch++
}

// awaitMore returns when n more requests were acknowledged.
func (l *load) awaitMore(n int64) {
	l.t.Helper()
	awaitMore(l.t, "requests acknowledged", &l.acked, n)
}

// stop returns when every call has been answered or has failed.
func (l *load) stop() {
	l.end()
	done := make(chan struct{})
	go func() { l.callers.Wait(); close(done) }()
	select {
	case <-done:
	case <-time.After(2 * patience):
		l.t.Error("callers hang")
	}
}
