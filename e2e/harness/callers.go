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
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"github.com/core-tools/hsu-master/api/proto"
	"github.com/core-tools/hsu-master/e2e/testdata/echo"
)

// RequestID is the key in the metadata of a call for its id. A call with an id may be sent again.
const RequestID = "hsu-request-id"

// Callers send requests without a pause. Half of them make a connection for each call.
type Callers struct {
	Acked    atomic.Int64
	t        *testing.T
	requests Requests
	end      context.CancelFunc
	wg       sync.WaitGroup

	mu       sync.Mutex
	failures []Failure
	longest  time.Duration
}

// Requests are the requests that Callers send, and how they handle failures.
type Requests int

// The values of Requests.
const (
	// Once is ProcessData, each request once: a refused connection is a failure.
	Once Requests = iota
	// WithID is ProcessData. Each request has an id and is sent again if it ends with UNAVAILABLE.
	WithID
	// Echo is a call of the echo service, which the master does not count, each once. It waits for a connection.
	Echo
)

// Failure is a call that has failed.
type Failure struct {
	Caller int
	Err    error
}

// StartCallers starts n callers.
func (h *Host) StartCallers(n int, requests Requests) *Callers {
	h.T.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	c := &Callers{t: h.T, requests: requests, end: cancel}
	h.T.Cleanup(c.Stop)
	var conns [4]*grpc.ClientConn
	for i := range conns {
		conns[i] = h.Dial()
	}
	for i := range n {
		c.wg.Go(func() {
			for k := 0; ctx.Err() == nil; k++ {
				data := fmt.Sprintf("%d of caller %d", k, i)
				if i%2 == 0 {
					c.call(conns[i/2%len(conns)], i, data)
				} else {
					c.callAnew(h, i, data)
				}
			}
		})
	}
	return c
}

func (c *Callers) callAnew(h *Host, caller int, data string) {
	conn, err := grpc.NewClient("passthrough:///"+h.Address(), grpc.WithTransportCredentials(h.credentials()))
	if err != nil {
		c.t.Error(err)
		return
	}
	defer func() { _ = conn.Close() }()
	c.call(conn, caller, data)
}

func (c *Callers) call(conn *grpc.ClientConn, caller int, data string) {
	// Not the context of the callers: at their end, calls in flight are waited for.
	ctx, cancel := context.WithTimeout(context.Background(), 2*Patience)
	defer cancel()
	if c.requests == WithID {
		ctx = metadata.AppendToOutgoingContext(ctx, RequestID, data)
	}
	began := time.Now()
	err := c.send(ctx, conn, data)
	for c.requests == WithID && status.Code(err) == codes.Unavailable {
		time.Sleep(time.Millisecond)
		err = c.send(ctx, conn, data)
	}
	if err == nil {
		c.Acked.Add(1)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if err != nil {
		c.failures = append(c.failures, Failure{caller, err})
	}
	c.longest = max(c.longest, time.Since(began))
}

// send sends a request once.
func (c *Callers) send(ctx context.Context, conn *grpc.ClientConn, data string) error {
	if c.requests == Echo {
		return echo.Call(ctx, conn, data, grpc.WaitForReady(true))
	}
	answer, err := proto.NewMyBusinessServiceClient(conn).ProcessData(ctx, &proto.ProcessRequest{Data: data})
	if err == nil && answer.GetResult() != "Processed: "+data {
		err = fmt.Errorf("the answer is %q", answer.GetResult())
	}
	return err
}

// Longest returns how long the longest call took, with its repetitions.
func (c *Callers) Longest() time.Duration {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.longest
}

// AwaitMore returns when n more requests were acknowledged.
func (c *Callers) AwaitMore(n int64) {
	c.t.Helper()
	AwaitMore(c.t, "requests acknowledged", &c.Acked, n)
}

// Stop returns when every call has ended.
func (c *Callers) Stop() {
	c.end()
	c.wg.Wait()
}

// TakeFailures returns the failures since the last time.
func (c *Callers) TakeFailures() []Failure {
	c.mu.Lock()
	defer c.mu.Unlock()
	failures := c.failures
	c.failures = nil
	return failures
}

// WantNoFailures checks that no call has failed since the last time.
func (c *Callers) WantNoFailures() {
	c.t.Helper()
	number := map[string]int{}
	for _, f := range c.TakeFailures() {
		number[f.Err.Error()]++
	}
	if len(number) > 0 {
		c.t.Errorf("failed calls: %v", number)
	}
}

// WantLostByKill checks the failures since the last time, in which the master was killed once: each caller has lost at
// most the call that it had in flight then, with UNAVAILABLE. It returns their number. A call that was sent before the
// client has noticed the end of its connection was in flight.
func (c *Callers) WantLostByKill() int {
	c.t.Helper()
	failures, lost := c.TakeFailures(), map[int]bool{}
	for _, f := range failures {
		if status.Code(f.Err) != codes.Unavailable || lost[f.Caller] {
			c.t.Errorf("caller %d lost a call, before also %t: %v", f.Caller, lost[f.Caller], f.Err)
		}
		lost[f.Caller] = true
	}
	return len(failures)
}
