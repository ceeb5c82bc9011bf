//go:build e2e && linux

package upgrade

import (
	"context"
	"fmt"
	"maps"
	"net"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"github.com/core-tools/hsu-master/api/proto"
	"github.com/core-tools/hsu-master/e2e/harness"
)

// callers send requests without a pause and do not wait for the master to be ready: a refused connection is a failure.
// Half of them make a connection for each call.
type callers struct {
	t     *testing.T
	ids   bool // each request has an id and is sent again if it ends with UNAVAILABLE
	acked atomic.Int64
	end   context.CancelFunc
	wg    sync.WaitGroup

	mu       sync.Mutex
	failures map[string]int
	longest  time.Duration
}

func startCallers(h *harness.Host, n int, ids bool) *callers {
	h.T.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	c := &callers{t: h.T, ids: ids, end: cancel, failures: map[string]int{}}
	h.T.Cleanup(c.stop)
	var conns [4]*grpc.ClientConn
	for i := range conns {
		conns[i] = h.Dial()
	}
	for i := range n {
		c.wg.Go(func() {
			for k := 0; ctx.Err() == nil; k++ {
				data := fmt.Sprintf("%d of caller %d", k, i)
				if i%2 == 0 {
					c.call(conns[i/2%len(conns)], data)
				} else {
					c.callAnew(h.Address(), data)
				}
			}
		})
	}
	return c
}

func (c *callers) callAnew(address, data string) {
	conn, err := grpc.NewClient("passthrough:///"+address, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		c.t.Error(err)
		return
	}
	defer func() { _ = conn.Close() }()
	c.call(conn, data)
}

func (c *callers) call(conn *grpc.ClientConn, data string) {
	ctx, cancel := context.WithTimeout(context.Background(), 2*harness.Patience)
	defer cancel()
	if c.ids {
		ctx = metadata.AppendToOutgoingContext(ctx, "hsu-request-id", data)
	}
	began := time.Now()
	for {
		answer, err := proto.NewMyBusinessServiceClient(conn).ProcessData(ctx, &proto.ProcessRequest{Data: data})
		if c.ids && status.Code(err) == codes.Unavailable {
			time.Sleep(time.Millisecond)
			continue
		}
		if err == nil && answer.GetResult() != "Processed: "+data {
			err = fmt.Errorf("the answer is %q", answer.GetResult())
		}
		c.ended(err, time.Since(began))
		return
	}
}

func (c *callers) ended(err error, took time.Duration) {
	if err == nil {
		c.acked.Add(1)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if err != nil {
		c.failures[err.Error()]++
	}
	c.longest = max(c.longest, took)
}

// dial expects that a connection is accepted.
func dial(t *testing.T, network, address string) {
	t.Helper()
	var dialer net.Dialer
	conn, err := dialer.DialContext(t.Context(), network, address)
	if err != nil {
		t.Error(err)
		return
	}
	_ = conn.Close()
}

func (c *callers) awaitMore(n int64) {
	c.t.Helper()
	harness.AwaitMore(c.t, "requests acknowledged", &c.acked, n)
}

func (c *callers) stop() {
	c.end()
	c.wg.Wait()
}

func (c *callers) wantNoFailures() {
	c.t.Helper()
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.failures) > 0 {
		c.t.Errorf("failed calls: %v", maps.Clone(c.failures))
		clear(c.failures)
	}
}
