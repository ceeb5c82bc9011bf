package commit

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"

	"github.com/core-tools/hsu-master/store/once"
)

// nobody takes no notice of the outcome of a count.
type nobody struct{}

func (nobody) Counted(error) {}

// woken reports whether the queue has a token for the committer, and takes it.
func woken(q *queue) bool {
	select {
	case <-q.wake:
		return true
	default:
		return false
	}
}

func TestQueueWakesTheCommitterOncePerBatch(t *testing.T) {
	q := newQueue()
	if woken(q) || q.take(nil) != nil {
		t.Fatal("an empty queue has work")
	}
	for range 3 {
		if err := q.addCount(nobody{}); err != nil {
			t.Fatal(err)
		}
	}
	if err := q.addResult(&once.Pending{}); err != nil {
		t.Fatal(err)
	}
	if !woken(q) || woken(q) {
		t.Error("woken not exactly once for the first batch")
	}
	b := q.take(nil)
	if b == nil || b.count != 3 || len(b.counts) != 3 || len(b.results) != 1 || b.done != nil {
		t.Fatalf("batch %+v", b)
	}
	if q.take(nil) != nil {
		t.Error("the same batch was taken twice")
	}
	if err := q.addCount(nobody{}); err != nil || !woken(q) {
		t.Errorf("the second batch: %v, or not woken", err)
	}
	spare := b.reset()
	if b = q.take(spare); b == spare || b.count != 1 {
		t.Errorf("second batch %+v", b)
	}
	if err := q.addCount(nobody{}); err != nil {
		t.Fatal(err)
	}
	if b = q.take(nil); b != spare || b.count != 1 || len(b.results) != 0 {
		t.Errorf("the spare batch was not used, or not empty: %+v", b)
	}
}

func TestQueueReleasesAllCallersOfABatch(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		q := newQueue()
		failed := errors.New("failed")
		errs := make(chan error, 3)
		for range 2 {
			go func() { errs <- q.do(context.Background(), request{count: 2, flush: true}) }()
		}
		go func() { errs <- q.do(context.Background(), request{ping: true}) }()
		synctest.Wait()
		b := q.take(nil)
		if b.count != 4 || !b.flush || !b.ping || len(errs) > 0 {
			t.Errorf("batch %+v, %d callers released before it was committed", b, len(errs))
		}
		b.err = failed
		close(b.done)
		bad := 0
		for range 3 {
			if err := <-errs; errors.Is(err, failed) {
				bad++
			} else if err != nil {
				t.Error(err)
			}
		}
		if bad != 2 { // a ping is answered even so
			t.Errorf("%d callers got the error, want 2", bad)
		}
	})
}

func TestQueueRefusesWhileBrokenOrClosed(t *testing.T) {
	q := newQueue()
	cause := errors.New("cause")
	if !q.fail(cause) || q.fail(errors.New("a later one")) || !errors.Is(q.cause(), cause) {
		t.Fatalf("cause %v, want only the first", q.cause())
	}
	add := func() []error {
		return []error{
			q.addCount(nobody{}), q.addResult(&once.Pending{}), q.do(t.Context(), request{flush: true}), q.refusal(),
		}
	}
	for i, err := range add() {
		if !errors.Is(err, ErrUnavailable) || !errors.Is(err, cause) {
			t.Errorf("broken, %d: %v", i, err)
		}
	}
	if woken(q) || q.take(nil) != nil {
		t.Error("a refused request joined")
	}
	ended, cancel := context.WithCancel(t.Context())
	pinged := make(chan error)
	go func() { pinged <- q.do(ended, request{ping: true}) }()
	<-q.wake
	cancel()
	if err := <-pinged; !errors.Is(err, context.Canceled) || !q.take(nil).ping {
		t.Errorf("a ping while broken: %v", err)
	}
	q.setCause(nil)
	if err := q.addCount(nobody{}); err != nil || q.refusal() != nil {
		t.Errorf("resumed: %v, %v", err, q.refusal())
	}
	q.fail(cause)
	q.close()
	for i, err := range append(add(), q.do(t.Context(), request{ping: true})) {
		if !errors.Is(err, ErrClosed) {
			t.Errorf("closed, %d: %v", i, err)
		}
	}
	if b := q.take(nil); b == nil || b.count != 1 {
		t.Errorf("the batch from before the close is %+v", b)
	}
}
