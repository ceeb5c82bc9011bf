//go:build e2e && linux

package lifecycle

import (
	"fmt"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/core-tools/hsu-master/e2e/harness"
)

func TestHundredWorkersAreStartedKeptOverACrashAndStopped(t *testing.T) {
	const count = 100
	h := harness.NewHost(t, harness.Workers(count)...)
	begun := time.Now()
	took := func(what string) {
		t.Logf("%s: %s", what, time.Since(begun).Round(time.Millisecond))
		begun = time.Now()
	}
	m := h.Start()
	before := h.AwaitRunning(count)
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
	want := before.Instances()
	m.Kill()
	begun = time.Now()
	m = h.Start()
	took("adopted")
	after := h.AwaitRunning(count)
	after.WantInstances(t, want)
	h.WantNoTwin(after)
	h.Ask("one of a hundred")
	begun = time.Now()
	m.Stop()
	took("stopped")
	h.WantNothingLeft()
}

// If fewer workers are wanted than before, the surplus is stopped and the others stay.
func TestFewerWorkersThanBeforeStopsTheSurplusOnly(t *testing.T) {
	t.Parallel()
	h := harness.NewHost(t, harness.Workers(5)...)
	m := h.Start()
	before := h.AwaitRunning(5).Instances()
	m.Kill()
	h.Flags = harness.Workers(2)
	m = h.Start()
	after := h.AwaitRunning(2)
	delete(before, "worker-2")
	delete(before, "worker-3")
	delete(before, "worker-4")
	after.WantInstances(t, before)
	harness.WaitFor(t, "the surplus is gone", func() error {
		if got := h.Leaders(); len(got) != 2 {
			return fmt.Errorf("there are %v", got)
		}
		return nil
	})
	h.WantNoTwin(after)
	m.Stop()
	h.WantNothingLeft()
}

func TestMoreWorkersThanBeforeStartsTheMissingOnly(t *testing.T) {
	t.Parallel()
	h := harness.NewHost(t, harness.Workers(2)...)
	m := h.Start()
	before := h.AwaitRunning(2).Instances()
	m.Kill()
	h.Flags = harness.Workers(4)
	m = h.Start()
	after := h.AwaitRunning(4)
	got := after.Instances()
	delete(got, "worker-2")
	delete(got, "worker-3")
	if diff := cmp.Diff(before, got); diff != "" {
		t.Errorf("the workers are not what they were (-before +after):\n%s", diff)
	}
	m.Stop()
	h.WantNothingLeft()
}

func TestWorkersOfAnotherCommandLineAreKeptAndMarkedOutdated(t *testing.T) {
	t.Parallel()
	h := harness.NewHost(t, harness.Workers(2)...)
	m := h.Start()
	before := h.AwaitRunning(2).Instances()
	m.Kill()
	h.Flags = harness.Workers(2, "--log-level=debug")
	m = h.Start()
	after := h.AwaitWorkers(2, "are adopted and outdated",
		func(w harness.Worker) bool { return w.Running() && w.Outdated && w.Adopted })
	after.WantInstances(t, before)
	// Its next instance has the wanted configuration.
	h.KillWorker(after.Workers[0].PID)
	d := h.AwaitWorkers(2, "run, one of them anew", func(w harness.Worker) bool {
		return w.Running() && (w.ID == "worker-1" || w.Incarnation == 2)
	})
	if w := d.Worker(t, "worker-0"); w.Outdated {
		t.Errorf("%+v is still outdated", w)
	}
	m.Stop()
	h.WantNothingLeft()
}
