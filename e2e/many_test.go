//go:build e2e && linux

package e2e

import (
	"fmt"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func TestHundredWorkersAreStartedKeptOverACrashAndStopped(t *testing.T) {
	const count = 100
	h := newHost(t, workers(count)...)
	begun := time.Now()
	took := func(what string) {
		t.Logf("%s: %s", what, time.Since(begun).Round(time.Millisecond))
		begun = time.Now()
	}
	m := h.start()
	before := h.awaitRunning(count)
	took("started")
	ports := map[int]string{}
	for _, w := range before.Workers {
		if other := ports[w.Port]; other != "" {
			t.Errorf("%s and %s have port %d", other, w.ID, w.Port)
		}
		ports[w.Port] = w.ID
	}
	for i := range count {
		if want := fmt.Sprintf("worker-%d", i); before.Workers[i].ID != want {
			t.Fatalf("worker %d of the dump is %s, want %s: people look for them in order",
				i, before.Workers[i].ID, want)
		}
	}
	want := before.instances(t)
	m.kill()
	begun = time.Now()
	m = h.start()
	took("adopted")
	after := h.awaitRunning(count)
	if diff := cmp.Diff(want, after.instances(t)); diff != "" {
		t.Errorf("the workers are not what they were (-before +after):\n%s", diff)
	}
	h.wantNoTwin(after)
	h.ask("one of a hundred")
	begun = time.Now()
	m.stop()
	took("stopped")
	h.wantNothingLeft()
}

// If fewer workers are wanted than before, the surplus is stopped and the others stay.
func TestFewerWorkersThanBeforeStopsTheSurplusOnly(t *testing.T) {
	t.Parallel()
	h := newHost(t, workers(5)...)
	m := h.start()
	before := h.awaitRunning(5).instances(t)
	m.kill()
	h.flags = workers(2)
	m = h.start()
	after := h.awaitRunning(2)
	delete(before, "worker-2")
	delete(before, "worker-3")
	delete(before, "worker-4")
	if diff := cmp.Diff(before, after.instances(t)); diff != "" {
		t.Errorf("the workers are not what they were (-before +after):\n%s", diff)
	}
	waitFor(t, "the surplus is gone", func() error {
		if got := h.leaders(); len(got) != 2 {
			return fmt.Errorf("there are %v", got)
		}
		return nil
	})
	h.wantNoTwin(after)
	m.stop()
	h.wantNothingLeft()
}

func TestMoreWorkersThanBeforeStartsTheMissingOnly(t *testing.T) {
	t.Parallel()
	h := newHost(t, workers(2)...)
	m := h.start()
	before := h.awaitRunning(2).instances(t)
	m.kill()
	h.flags = workers(4)
	m = h.start()
	after := h.awaitRunning(4)
	got := after.instances(t)
	delete(got, "worker-2")
	delete(got, "worker-3")
	if diff := cmp.Diff(before, got); diff != "" {
		t.Errorf("the workers are not what they were (-before +after):\n%s", diff)
	}
	m.stop()
	h.wantNothingLeft()
}

func TestWorkersOfAnotherCommandLineAreKeptAndMarkedOutdated(t *testing.T) {
	t.Parallel()
	h := newHost(t, workers(2)...)
	m := h.start()
	before := h.awaitRunning(2).instances(t)
	m.kill()
	h.flags = workers(2, "--log-level=debug")
	m = h.start()
	after := h.awaitWorkers(2, "are adopted and outdated",
		func(d dump, w worker) bool { return running(d, w) && w.Outdated && w.Adopted })
	if diff := cmp.Diff(before, after.instances(t)); diff != "" {
		t.Errorf("the workers are not what they were (-before +after):\n%s", diff)
	}
	// Its next instance has the wanted configuration.
	h.killWorker(after.Workers[0].PID)
	d := h.awaitWorkers(2, "run, one of them anew", func(d dump, w worker) bool {
		return running(d, w) && (w.ID == "worker-1" || w.Incarnation == 2)
	})
	if w := d.worker(t, "worker-0"); w.Outdated {
		t.Errorf("%+v is still outdated", w)
	}
	m.stop()
	h.wantNothingLeft()
}
