//go:build e2e && linux

package lifecycle

import (
	"path/filepath"
	"testing"
	"time"

	"github.com/core-tools/hsu-master/e2e/harness"
)

// Descendants that have left the worker's session and group get SIGTERM too, and the stop waits no longer than they
// take.
func TestStopAsksDescendantsInSessionsOfTheirOwn(t *testing.T) {
	t.Parallel()
	for _, adopted := range []bool{false, true} {
		h := harness.NewHost(t)
		h.Flags = append(h.Units("plain+polite"), "--stop-grace", "25s")
		m := h.Start()
		h.AwaitRunning(1)
		awaitDescendants(h, 1)
		if adopted {
			m.Kill()
			m = h.Start()
			h.AwaitRunning(1)
		}
		begun := time.Now()
		m.Stop()
		if took := time.Since(begun); took > 15*time.Second {
			t.Errorf("the stop took %s, although nobody needed it", took)
		}
		if asked, _ := filepath.Glob(filepath.Join(h.Record, "asked.*[0-9]")); len(asked) != 1 {
			t.Errorf("adopted %v: %d descendants were asked, want the one that there is", adopted, len(asked))
		}
		h.WantNothingLeft()
	}
}

// Each process of the chain lives for milliseconds, in its own session, and all but the first have no environment:
// only the lease identifies them. This test and the others with chains are not parallel: the master races the chain,
// and other tests would take its processor time.
func TestStopEndsAChainOfProcessesThatOnlyTheLeaseTellsOf(t *testing.T) {
	h := harness.NewHost(t)
	h.Flags = harness.ShortGrace(h.Units("plain+barechain", "plain+chain+barechain"))
	m := h.Start()
	h.AwaitRunning(2)
	awaitDescendants(h, 3)
	m.Stop()
	h.WantNothingLeft()
}

// A chain that a worker leaves behind is stopped before the next instance starts.
func TestChainOfADeadWorkerIsOverBeforeItsReplacementComes(t *testing.T) {
	for name, down := range map[string]bool{"while no master ran": true, "under a running master": false} {
		t.Run(name, func(t *testing.T) {
			h := harness.NewHost(t)
			h.Flags = harness.ShortGrace(h.Units("plain+chain+barechain"))
			m := h.Start()
			w := h.AwaitRunning(1).Workers[0]
			awaitDescendants(h, 2)
			if down {
				m.Kill()
			}
			h.KillWorker(w.PID)
			if down {
				m = h.Start()
			}
			h.AwaitWorkers(1, "run again", func(w harness.Worker) bool { return w.Running() && w.Incarnation == 2 })
			awaitDescendants(h, 4)
			for _, f := range h.Processes() {
				if token := f.Environ["HSU_WORKER_TOKEN"]; token == w.Token {
					t.Errorf("of the first instance is left: %v", f)
				}
			}
			m.Stop()
			h.WantNothingLeft()
		})
	}
}
