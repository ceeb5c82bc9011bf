//go:build e2e && linux

package world

import (
	"errors"
	"os/exec"
	"testing"
	"time"

	"github.com/core-tools/hsu-master/e2e/harness"
)

// Many workers on an overloaded machine: twenty processes that only compute are started before the crash. A late
// worker is not dead, so none of the survivors may be terminated or killed.
func TestThreeHundredWorkersBesideTwentyHogsSurviveACrashAndNoneIsEscalated(t *testing.T) {
	const count, hogs = 300, 20
	// The time from the first missed Ping of a worker to SIGTERM.
	const escalation = 20 * time.Second
	h := harness.NewHost(t, harness.Workers(count)...)
	begun := time.Now()
	took := func(what string) {
		t.Logf("%s: %s", what, time.Since(begun).Round(time.Millisecond))
		begun = time.Now()
	}
	m := h.Start()
	before := h.AwaitRunning(count)
	took("started")
	want := before.Instances()

	for range hogs {
		hog := exec.Command(harness.Programs.Unit, "-as", "hog")
		if err := hog.Start(); err != nil {
			t.Fatal(err)
		}
		h.Others[hog.Process.Pid] = true
		t.Cleanup(func() {
			_ = hog.Process.Kill()
			_ = hog.Wait()
		})
	}
	m.Kill()
	begun = time.Now()
	m = h.Start()
	took("serving again")
	after := h.AwaitWorkers(count, "are adopted", func(w harness.Worker) bool { return w.Running() && w.Adopted })
	took("all adopted")
	h.WantNoTwin(after)
	h.Ask("one of three hundred")
	harness.WaitFor(t, "the time is over in which one could be escalated", func() error {
		if time.Since(begun) < escalation {
			return errors.New("not yet")
		}
		return nil
	})
	h.AwaitRunning(count).WantInstances(t, want)
	// A worker that does not answer at first gets no requests until it does.
	t.Logf("%d did not answer in time at some moment", len(m.Logged("worker unhealthy")))
	for _, what := range []string{"worker stopping", "worker exited"} {
		if lines := m.Logged(what); len(lines) > 0 {
			t.Errorf("of survivors that were only late it was said %d times: %s, first: %+v",
				len(lines), what, lines[0])
		}
	}
	h.Ask("still")
	begun = time.Now()
	m.Stop()
	took("stopped")
	h.WantNothingLeft()
}
