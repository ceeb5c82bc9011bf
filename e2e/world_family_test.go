//go:build e2e && linux

package e2e

import (
	"path/filepath"
	"testing"
	"time"
)

// Descendants that have left the worker's session and group get SIGTERM too, and the stop waits no longer than they
// take.
func TestStopAsksDescendantsInSessionsOfTheirOwn(t *testing.T) {
	t.Parallel()
	for _, adopted := range []bool{false, true} {
		h := newHost(t)
		h.flags = append(h.units("plain+polite"), "--stop-grace", "25s")
		m := h.start()
		h.awaitRunning(1)
		h.awaitDescendants(1)
		if adopted {
			m.kill()
			m = h.start()
			h.awaitRunning(1)
		}
		begun := time.Now()
		m.stop()
		if took := time.Since(begun); took > 15*time.Second {
			t.Errorf("the stop took %s, although nobody needed it", took)
		}
		if asked, _ := filepath.Glob(filepath.Join(h.record, "asked.*[0-9]")); len(asked) != 1 {
			t.Errorf("adopted %v: %d descendants were asked, want the one that there is", adopted, len(asked))
		}
		h.wantNothingLeft()
	}
}

// Each process of the chain lives for milliseconds, in its own session, and all but the first have no environment:
// only the lease identifies them.
func TestStopEndsAChainOfProcessesThatOnlyTheLeaseTellsOf(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	h.flags = graceful(h.units("plain+barechain", "plain+chain+barechain"))
	m := h.start()
	h.awaitRunning(2)
	h.awaitDescendants(3)
	m.stop()
	h.wantNothingLeft()
}

// A chain that a worker leaves behind is stopped before the next instance starts.
func TestChainOfADeadWorkerIsOverBeforeItsReplacementComes(t *testing.T) {
	for name, down := range map[string]bool{"while no master ran": true, "under a running master": false} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			h := newHost(t)
			h.flags = graceful(h.units("plain+chain+barechain"))
			m := h.start()
			w := h.awaitRunning(1).Workers[0]
			h.awaitDescendants(2)
			if down {
				m.kill()
			}
			h.killWorker(w.PID)
			if down {
				m = h.start()
			}
			h.awaitWorkers(1, "run again", func(d dump, w worker) bool { return running(d, w) && w.Incarnation == 2 })
			h.awaitDescendants(4)
			for _, f := range h.processes() {
				if token := f.environ["HSU_WORKER_TOKEN"]; token == w.Token {
					t.Errorf("of the first instance is left: %v", f)
				}
			}
			m.stop()
			h.wantNothingLeft()
		})
	}
}
