//go:build e2e && linux

package e2e

import (
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
)

// State that was written in one PID namespace and is read in another.

// A container that is stopped takes its workers along. The next one has the same boot ID, and other processes with
// the same small PIDs.
func TestWorkersOfARestartedContainerAreStartedAnew(t *testing.T) {
	for name, numbered := range map[string]bool{
		"whose namespace has another number": false, "whose namespace may have the same number": true,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			h := newHost(t, workers(2)...)
			first := h.newNamespace(500)
			h.begin = first.start
			m := h.start()
			before := h.awaitRunning(2)
			first.end()
			m.wait()
			if numbered {
				first.close()
			} else {
				t.Cleanup(first.close)
			}

			// The first processes of this namespace have PIDs that the first namespace did not have.
			second := h.newNamespace(1000)
			h.begin = second.start
			d := second.reborn(before.worker(t, "worker-1").PID)
			m = h.start()
			after := h.awaitRunning(2)
			for _, w := range after.Workers {
				if was := before.worker(t, w.ID); w.Incarnation != 2 || w.Token == was.Token ||
					w.LastExit == nil || w.LastExit.Known {
					t.Errorf("%+v, want a second instance, and that nobody knows how the first ended", w)
				}
			}
			h.wantInside(after)
			h.ask("in the next container")
			m.stop()
			d.wantUntouched()
			h.wantNothingLeft()
		})
	}
}

// From a container, the workers outside are not visible. They may be alive.
func TestWorkerThatLivesOutsideOfTheContainerIsHeldUntilItsLeaseIsFree(t *testing.T) {
	t.Parallel()
	h := newHost(t, workers(2)...)
	n := h.newNamespace(0)
	m := h.start()
	before := h.awaitRunning(2)
	m.kill()
	h.begin = n.start
	m = h.start()
	held := func(_ dump, w worker) bool { return strings.HasPrefix(w.Reason, "held: ") }
	h.awaitWorkers(2, "are held", held)
	if got := h.leaders(); len(got["worker-0"]) != 1 || len(got["worker-1"]) != 1 {
		t.Errorf("a second copy was started beside one that lives: %v", got)
	}
	h.killWorker(before.worker(t, "worker-0").PID)
	after := h.awaitWorkers(2, "run or are held", func(d dump, w worker) bool {
		return w.ID == "worker-0" && running(d, w) && w.Incarnation == 2 || w.ID == "worker-1" && held(d, w)
	})
	if got := h.leaders()["worker-1"]; !slices.Equal(got, []int{before.worker(t, "worker-1").PID}) {
		t.Errorf("worker-1 is %v, want it as it was", got)
	}
	h.ask("of the one inside")
	m.kill()
	// The worker inside lives, and is visible from outside under another PID.
	inside := h.outside(after.worker(t, "worker-0").PID)

	h.begin = (*exec.Cmd).Start
	m = h.start()
	last := h.awaitRunning(2)
	for id, was := range map[string]int{"worker-0": inside, "worker-1": before.worker(t, "worker-1").PID} {
		if w := last.worker(t, id); w.PID != was || !w.Adopted {
			t.Errorf("%+v, want process %d adopted", w, was)
		}
	}
	h.wantNoTwin(last)
	h.ask("of both")
	m.stop()
	h.wantNothingLeft()
}

// A lease file that was deleted shows nothing.
func TestWorkerThatLivesOutsideOfTheContainerIsHeldWithoutALeaseToAsk(t *testing.T) {
	t.Parallel()
	h := newHost(t, workers(1)...)
	n := h.newNamespace(0)
	m := h.start()
	before := h.awaitRunning(1).Workers[0]
	m.kill()
	if err := os.RemoveAll(filepath.Join(h.state, "run")); err != nil {
		t.Fatal(err)
	}
	h.begin = n.start
	m = h.start()
	held := func(_ dump, w worker) bool {
		return strings.HasPrefix(w.Reason, "held: ") && strings.Contains(w.Reason, "start a master where it ran")
	}
	h.awaitWorkers(1, "are held, and it is said what to do", held)
	if got := h.leaders()["worker-0"]; !slices.Equal(got, []int{before.PID}) {
		t.Errorf("worker-0 is %v, want it as it was", got)
	}
	m.signal(syscall.SIGTERM)
	m.wantExit(1) // one is left that it cannot stop
	if w := h.dump().Workers[0]; w.PID != before.PID {
		t.Errorf("recorded is %+v, want the process that lives: %+v", w, before)
	}

	h.begin = (*exec.Cmd).Start
	m = h.start()
	if w := h.awaitRunning(1).Workers[0]; w.PID != before.PID || !w.Adopted {
		t.Errorf("%+v, want it adopted where it is to be seen: %+v", w, before)
	}
	m.stop()
	h.wantNothingLeft()
}
