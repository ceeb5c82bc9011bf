package worker

import (
	"context"
	"testing"
	"time"

	"github.com/core-tools/hsu-master/store/records"
	"github.com/core-tools/hsu-master/supervisor/unit"
)

// The end of a master, for example by a detach, ends its wait for a starting worker; the start has not failed.
func TestEndOfTheWaitIsNotThatOfTheWorker(t *testing.T) {
	w := &owner{
		Worker: &Worker{inbox: make(chan message, 1)},
		env:    &Env{AwaitListener: func(ctx context.Context, _ int, _ func(error)) error { return ctx.Err() }},
		unit:   &unit.Spec{Start: unit.Start{Timeout: time.Minute}},
		rec:    records.Worker{Instance: &records.Instance{Port: 1}},
	}
	ended, end := context.WithCancel(t.Context())
	end()
	for range 50 { // otherwise chance decides
		w.await(ended)
		w.helpers.Wait()
		if len(w.inbox) > 0 {
			t.Fatal("the worker is said to have failed")
		}
	}
}
