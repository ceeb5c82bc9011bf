package services

import (
	"testing"
	"time"
)

// A watcher that looks as soon as it is notified sees the change: the notification comes after the change.
func TestWatchTellsAfterTheChange(t *testing.T) {
	r := New(Options{})
	r.Offer("worker-0", "pkg.Service")
	changed, stop := r.Watch()
	defer stop()
	late := time.After(time.Minute)
	ep := &Endpoint{Address: "127.0.0.1:1", Worker: "worker-0"}
	for round := range 20_000 {
		ready := round%2 == 0
		go func() {
			if ready {
				r.Add(ep, "pkg.Service")
			} else {
				r.Remove(ep)
			}
		}()
		for (len(r.Service("pkg.Service").Endpoints()) == 1) != ready {
			select {
			case <-changed:
			case <-late:
				t.Fatalf("round %d: not told that ready is %v", round, ready)
			}
		}
	}
}
