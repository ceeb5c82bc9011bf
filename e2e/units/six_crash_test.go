//go:build e2e && linux

package units

import (
	"context"
	"fmt"
	"net/http"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/core-tools/hsu-master/e2e/harness"
)

// customers call a program continuously.
type customers struct {
	t      *testing.T
	name   string
	acked  atomic.Int64
	end    context.CancelFunc
	ended  sync.WaitGroup
	mu     sync.Mutex
	failed []error
}

// startCustomers starts n callers. A failed call is noted and repeated, not at once.
func startCustomers(t *testing.T, name string, n int, call func() error) *customers {
	ctx, cancel := context.WithCancel(context.Background())
	c := &customers{t: t, name: name, end: cancel}
	t.Cleanup(c.stop)
	for range n {
		c.ended.Go(func() {
			for ctx.Err() == nil {
				err := call()
				if err == nil {
					c.acked.Add(1)
					continue
				}
				c.mu.Lock()
				c.failed = append(c.failed, err)
				c.mu.Unlock()
				time.Sleep(time.Millisecond) // it retries, but not at once
			}
		})
	}
	return c
}

// stop returns when every call has ended.
func (c *customers) stop() {
	c.end()
	c.ended.Wait()
}

func (c *customers) awaitMore(n int64) {
	c.t.Helper()
	harness.AwaitMore(c.t, c.name+" answered", &c.acked, n)
}

// wantFailures checks the failures since the last time: at most this many, all with UNAVAILABLE.
func (c *customers) wantFailures(most int) {
	c.t.Helper()
	c.mu.Lock()
	failed := c.failed
	c.failed = nil
	c.mu.Unlock()
	if len(failed) > most {
		c.t.Errorf("%d of the %s have failed, want %d at most: %v", len(failed), c.name, most, failed[0])
	}
	for _, err := range failed {
		if status.Code(err) != codes.Unavailable {
			c.t.Errorf("one of the %s has failed: %v", c.name, err)
			return
		}
	}
}

// Only calls through the port of the master notice its end: those in flight end with UNAVAILABLE, and are answered
// if they are sent again. The service may then have them twice: the master remembers answers of ProcessData only.
func TestSixProgramsRunOnWhileMastersAreKilled(t *testing.T) {
	t.Parallel()
	s := newSix(t, "keep: 3", "keep: 1000") // all lines are kept, however long this takes
	m := s.start()
	want := s.awaitUp(workersOfSix).Instances()

	const greeters = 8
	conn := s.Dial()
	greetings := startCustomers(t, "greetings", greeters, func() error {
		_, err := greet(context.Background(), conn, "Grace")
		return err
	})
	pages := startCustomers(t, "pages", 2, func() error {
		_, err := get(context.Background(), s.pages, "/")
		return err
	})
	visits := startCustomers(t, "visits", 2, func() error {
		_, err := get(context.Background(), s.shop, "/")
		return err
	})
	t.Cleanup(http.DefaultClient.CloseIdleConnections)
	cache := s.dialCache()
	counts := startCustomers(t, "counts", 1, func() error {
		answer, err := redis(cache, "INCR total")
		if err == nil && answer[0] != ':' {
			err = fmt.Errorf("INCR = %q", answer)
		}
		return err
	})
	all := []*customers{greetings, pages, visits, counts}
	for range 3 {
		for _, c := range all {
			c.awaitMore(20)
			c.wantFailures(0)
		}
		m.Kill()
		for _, c := range all[1:] {
			c.awaitMore(20) // without a master
		}
		m = s.start()
		greetings.awaitMore(100)
		greetings.wantFailures(greeters) // one for each call in flight: no call has failed twice
		s.awaitUp(workersOfSix).WantInstances(t, want)
	}
	for _, c := range all {
		c.stop()
		c.wantFailures(0)
	}
	if got, err := redis(cache, "INCR total"); err != nil || got != fmt.Sprintf(":%d", counts.acked.Load()+1) {
		t.Errorf("the total is %q, %v, after %d counts", got, err, counts.acked.Load())
	}
	d := s.awaitUp(workersOfSix)
	s.wantNoTwin(d)
	s.wantAnswers(d)
	m.Stop()
	s.wantWholeLog(2000)
	s.WantNothingLeft()
}
