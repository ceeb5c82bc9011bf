//go:build e2e && linux

package e2e

import (
	"errors"
	"os/exec"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// Many workers on an overloaded machine: twenty processes that only compute are started before the crash. A late
// worker is not dead, so none of the survivors may be terminated or killed.
func TestThreeHundredWorkersBesideTwentyHogsSurviveACrashAndNoneIsEscalated(t *testing.T) {
	const count, hogs = 300, 20
	// The time from the first missed Ping of a worker to SIGTERM.
	const escalation = 20 * time.Second
	h := newHost(t, workers(count)...)
	begun := time.Now()
	took := func(what string) {
		t.Logf("%s: %s", what, time.Since(begun).Round(time.Millisecond))
		begun = time.Now()
	}
	m := h.start()
	before := h.awaitRunning(count)
	took("started")
	want := before.instances(t)

	for range hogs {
		hog := exec.Command(programs.unit, "-as", "hog")
		if err := hog.Start(); err != nil {
			t.Fatal(err)
		}
		h.others[hog.Process.Pid] = true
		t.Cleanup(func() {
			_ = hog.Process.Kill()
			_ = hog.Wait()
		})
	}
	m.kill()
	begun = time.Now()
	m = h.start()
	took("serving again")
	after := h.awaitWorkers(count, "are adopted", func(d dump, w worker) bool { return running(d, w) && w.Adopted })
	took("all adopted")
	h.wantNoTwin(after)
	h.ask("one of three hundred")
	waitFor(t, "the time is over in which one could be escalated", func() error {
		if time.Since(begun) < escalation {
			return errors.New("not yet")
		}
		return nil
	})
	if diff := cmp.Diff(want, h.awaitRunning(count).instances(t)); diff != "" {
		t.Errorf("the workers are not what they were (-before +after):\n%s", diff)
	}
	// A worker that does not answer at first gets no requests until it does.
	t.Logf("%d did not answer in time at some moment", len(m.said("worker unhealthy")))
	for _, what := range []string{"worker stopping", "worker exited"} {
		if lines := m.said(what); len(lines) > 0 {
			t.Errorf("of survivors that were only late it was said %d times: %s, first: %+v",
				len(lines), what, lines[0])
		}
	}
	h.ask("still")
	begun = time.Now()
	m.stop()
	took("stopped")
	h.wantNothingLeft()
}
