//go:build e2e && linux

package gateway

import (
	"context"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"github.com/core-tools/hsu-master/e2e/harness"
	"github.com/core-tools/hsu-master/e2e/testdata/echo"
)

// A crowd is a group of callers of the echo unit that call continuously. Each call has an ID, which the workers
// note.
type crowd struct {
	t       *testing.T
	name    string
	marked  bool          // the calls may be retried
	timeout time.Duration // of a call
	acked   atomic.Int64
	ended   []atomic.Int64 // calls of each caller
	end     context.CancelFunc
	callers sync.WaitGroup

	mu       sync.Mutex
	came     map[string]error // result of each call that has ended
	failures []error          // since takeFailures
}

// startCrowd starts the callers. Every second one sends slow requests, so that calls are always in flight.
func startCrowd(h *harness.Host, name string, callers int, marked bool, timeout time.Duration) *crowd {
	h.T.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	c := &crowd{t: h.T, name: name, marked: marked, timeout: timeout, end: cancel, came: map[string]error{}}
	c.ended = make([]atomic.Int64, callers)
	h.T.Cleanup(c.stop)
	var conns [4]*grpc.ClientConn
	for i := range conns {
		conns[i] = h.Dial()
	}
	for i := range callers {
		speed := []string{"fast", "slow"}[i/len(conns)%2]
		c.callers.Go(func() {
			for n := 0; ctx.Err() == nil; n++ {
				c.call(conns[i%len(conns)], fmt.Sprintf("%s %s %d.%d", name, speed, i, n))
				c.ended[i].Add(1)
			}
		})
	}
	return c
}

func (c *crowd) call(conn *grpc.ClientConn, id string) {
	// Not the crowd's own context: at its end, calls in flight are waited for.
	ctx, cancel := context.WithTimeout(context.Background(), c.timeout)
	defer cancel()
	if c.marked {
		ctx = metadata.AppendToOutgoingContext(ctx, harness.RequestID, id)
	}
	// It waits for the master to be ready, so that each call is sent once.
	err := echo.Call(ctx, conn, id, grpc.WaitForReady(true))
	c.mu.Lock()
	c.came[id] = err
	if err != nil {
		c.failures = append(c.failures, fmt.Errorf("%s: %w", id, err))
	}
	c.mu.Unlock()
	if err == nil {
		c.acked.Add(1)
		return
	}
	time.Sleep(time.Millisecond) // it retries, but not at once
}

// takeFailures returns the failures of calls, and clears them.
func (c *crowd) takeFailures() []error {
	c.mu.Lock()
	defer c.mu.Unlock()
	failures := c.failures
	c.failures = nil
	return failures
}

// wantFailures checks the failures since the last time: at most this many, with these codes.
func (c *crowd) wantFailures(after string, most int, allowed ...codes.Code) {
	c.t.Helper()
	failures := c.takeFailures()
	if len(failures) > most {
		c.t.Errorf("%s: %d calls of the %s have failed, want %d at most, the first with %v",
			after, len(failures), c.name, most, failures[0])
	}
	for _, err := range failures {
		if !slices.Contains(allowed, status.Code(err)) {
			c.t.Errorf("%s: a call of the %s has failed: %v", after, c.name, err)
			return
		}
	}
}

// awaitMore returns when n more calls were answered.
func (c *crowd) awaitMore(n int64) {
	c.t.Helper()
	harness.AwaitMore(c.t, "calls of the "+c.name+" answered", &c.acked, n)
}

// awaitEachCaller returns when all calls that are in flight now have ended.
func (c *crowd) awaitEachCaller() {
	c.t.Helper()
	for i := range c.ended {
		harness.AwaitMore(c.t, fmt.Sprintf("calls of caller %d of the %s ended", i, c.name), &c.ended[i], 1)
	}
}

// stop returns when every call has ended.
func (c *crowd) stop() {
	c.end()
	c.callers.Wait()
}

// noting returns flags for n units of a habit that note their requests in a folder.
func noting(h *harness.Host, habit string, n int) (flags []string, notes string) {
	h.T.Helper()
	notes = filepath.Join(h.Dir, "notes")
	if err := os.Mkdir(notes, 0o700); err != nil {
		h.T.Fatal(err)
	}
	return harness.WorkersOf(harness.Programs.Unit, n, "-as", habit, "-record", h.Record, "-notes", notes), notes
}

// handled returns the requests that the workers have noted, with the number of times each; and the number of
// requests of each worker, over all its instances. No call may be in flight.
func handled(t *testing.T, notes string) (times, byWorker map[string]int) {
	t.Helper()
	files, err := os.ReadDir(notes)
	if err != nil {
		t.Fatal(err)
	}
	times, byWorker = map[string]int{}, map[string]int{}
	for _, f := range files {
		text, err := os.ReadFile(filepath.Join(notes, f.Name()))
		if err != nil {
			t.Fatal(err)
		}
		worker, _, _ := strings.Cut(f.Name(), ".")
		for line := range strings.Lines(string(text)) {
			times[strings.TrimSuffix(line, "\n")]++
			byWorker[worker]++
		}
	}
	return times, byWorker
}

// wantHandled compares the callers' results with the workers' notes.
func (c *crowd) wantHandled(times map[string]int) {
	c.t.Helper()
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, id := range slices.Sorted(maps.Keys(c.came)) {
		err, n := c.came[id], times[id]
		switch {
		case err == nil && n == 0:
			c.t.Errorf("%q was answered, and no worker has handled it", id)
		case n > 1 && !c.marked:
			c.t.Errorf("%q was handled %d times, and nothing said that it may be (it ended with %v)", id, n, err)
		}
	}
	c.t.Logf("the %s: %d calls, %d answered", c.name, len(c.came), c.acked.Load())
}
