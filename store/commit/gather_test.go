package commit

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/core-tools/hsu-master/store/once"
	"github.com/core-tools/hsu-master/store/records"
)

// countIn adds n counts to q, one every pause.
func countIn(t *testing.T, q *queue, n int, pause time.Duration) {
	t.Helper()
	for range n {
		time.Sleep(pause)
		if err := q.addCount(nobody{}); err != nil {
			t.Error(err)
		}
	}
}

func TestGatherEnds(t *testing.T) {
	const pause = 10 * time.Microsecond
	for _, c := range []struct {
		name    string
		callers int           // of the last commit
		took    time.Duration // by it
		joined  int           // requests before the wait
		arrive  func(t *testing.T, q *queue)
		want    time.Duration // of the wait
	}{
		{name: "with most", callers: 20, took: time.Millisecond, joined: 1, arrive: func(t *testing.T, q *queue) {
			countIn(t, q, 19, pause)
		}, want: 14 * pause},
		{name: "at once with most callers", callers: 20, took: time.Millisecond, joined: 15},
		{name: "at once with many callers", callers: 1000, took: time.Millisecond, joined: manyCallers},
		{name: "at once with few callers", callers: fewCallers - 1, took: time.Millisecond, joined: 1},
		{name: "at once after a commit that took no time", callers: 20, joined: 1},
		{name: "at once without a request", callers: 20, took: time.Millisecond},
		{name: "after the time of a commit", callers: 20, took: 5 * pause, joined: 1, want: 5 * pause},
		{name: "after the longest time", callers: 20, took: time.Hour, joined: 1, want: longestGather},
		{name: "with a change", callers: 20, took: time.Millisecond, joined: 1, arrive: func(t *testing.T, q *queue) {
			time.Sleep(pause)
			ctx, cancel := context.WithTimeout(t.Context(), time.Second)
			defer cancel()
			muts := []records.Mutation{records.DeleteWorker("worker-0")}
			if err := q.do(ctx, request{muts: muts}); !errors.Is(err, context.DeadlineExceeded) {
				t.Errorf("nobody commits: %v", err)
			}
		}, want: pause},
		{name: "with a result", callers: 20, took: time.Millisecond, joined: 1, arrive: func(t *testing.T, q *queue) {
			time.Sleep(pause)
			if err := q.addResult(&once.Pending{}); err != nil {
				t.Error(err)
			}
		}, want: pause},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				q := newQueue()
				g := newGatherer(q)
				g.observe(c.callers, c.took)
				countIn(t, q, c.joined, 0)
				woken(q) // as the committer does before it waits
				if c.arrive != nil {
					go c.arrive(t, q)
				}
				began := time.Now()
				g.wait()
				if took := time.Since(began); took != c.want {
					t.Errorf("waited %s, want %s", took, c.want)
				}
				q.take(nil)
				synctest.Wait()
				time.Sleep(2 * time.Second) // the arrivals end
			})
		})
	}
}

// A batch that was taken ends the wait for it: later callers wake the committer only with a new batch.
func TestGatherIsOverWithItsBatch(t *testing.T) {
	q := newQueue()
	countIn(t, q, 1, 0)
	if !q.gather(3) {
		t.Fatal("no wait for a batch of 1, want 3")
	}
	woken(q)
	q.take(nil)
	countIn(t, q, 1, 0)
	if !woken(q) {
		t.Error("the next batch did not wake the committer")
	}
	countIn(t, q, 5, 0)
	if woken(q) {
		t.Error("woken twice for a batch that nobody waits for")
	}
}

// While nothing can be written, and during Close, no caller is to be waited for.
func TestGatherNotWhileRefusing(t *testing.T) {
	for name, refuse := range map[string]func(*queue){
		"closed": (*queue).close,
		"broken": func(q *queue) { q.fail(errors.New("the disk")) },
	} {
		q := newQueue()
		countIn(t, q, 1, 0)
		refuse(q)
		if q.gather(3) {
			t.Errorf("%s: a wait", name)
		}
	}
}
