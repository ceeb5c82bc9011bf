//go:build e2e && linux

package harness

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

// Load is a group of callers that send requests continuously.
type Load struct {
	t           *testing.T
	Sent, Acked atomic.Int64
	end         context.CancelFunc
	callers     sync.WaitGroup

	mu       sync.Mutex
	failures map[string]int // since takeFailures
	epoch    int            // the number of calls of forgetFailures
}

// StartLoad starts the callers. Each sends its next request when the last one was answered or failed. A call waits
// for the master to be ready, so that each request that is sent is sent once.
func (h *Host) StartLoad(callers int) *Load {
	h.T.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	l := &Load{t: h.T, end: cancel}
	h.T.Cleanup(l.Stop)
	var conns [8]*grpc.ClientConn
	for i := range conns {
		conns[i] = h.Dial()
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

func (l *Load) call(client proto.MyBusinessServiceClient, data string) {
	// Not the load's own context: at its end, calls in flight are waited for.
	ctx, cancel := context.WithTimeout(context.Background(), Patience)
	defer cancel()
	l.mu.Lock()
	epoch := l.epoch
	l.mu.Unlock()
	l.Sent.Add(1)
	answer, err := client.ProcessData(ctx, &proto.ProcessRequest{Data: data}, grpc.WaitForReady(true))
	if err != nil {
		l.failed(err, epoch)
		return
	}
	l.Acked.Add(1)
	if answer.GetResult() != "Processed: "+data || !answer.GetSuccess() {
		l.t.Errorf("ProcessData(%q) = %v", data, answer)
	}
}

// failed records a caller's error; the caller retries, but not at once.
func (l *Load) failed(err error, epoch int) {
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

// TakeFailures returns the number of each error, and clears them.
func (l *Load) TakeFailures() map[string]int {
	l.mu.Lock()
	defer l.mu.Unlock()
	failures := l.failures
	l.failures = nil
	return failures
}

// ForgetFailures clears the failures of all calls that were begun before, also of those that have not ended yet.
func (l *Load) ForgetFailures() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.failures = nil
	l.epoch++
}

// AwaitMore returns when n more requests were acknowledged.
func (l *Load) AwaitMore(n int64) {
	l.t.Helper()
	AwaitMore(l.t, "requests acknowledged", &l.Acked, n)
}

// Stop returns when every call has been answered or has failed.
func (l *Load) Stop() {
	l.end()
	done := make(chan struct{})
	go func() { l.callers.Wait(); close(done) }()
	select {
	case <-done:
	case <-time.After(2 * Patience):
		l.t.Error("callers hang")
	}
}
