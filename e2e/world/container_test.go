//go:build e2e && linux

package world

import (
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/core-tools/hsu-master/e2e/harness"
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
			h := harness.NewHost(t, harness.Workers(2)...)
			first := newNamespace(h, 500)
			h.Begin = first.start
			m := h.Start()
			before := h.AwaitRunning(2)
			first.end()
			m.Wait()
			if numbered {
				first.close()
			} else {
				t.Cleanup(first.close)
			}

			// The first processes of this namespace have PIDs that the first namespace did not have.
			second := newNamespace(h, 1000)
			h.Begin = second.start
			d := second.reborn(before.Worker(t, "worker-1").PID)
			m = h.Start()
			after := h.AwaitRunning(2)
			for _, w := range after.Workers {
				if was := before.Worker(t, w.ID); w.Incarnation != 2 || w.Token == was.Token ||
					w.LastExit == nil || w.LastExit.Known {
					t.Errorf("%+v, want a second instance, and that nobody knows how the first ended", w)
				}
			}
			wantInside(h, after)
			h.Ask("in the next container")
			m.Stop()
			d.WantUntouched(t)
			h.WantNothingLeft()
		})
	}
}

// From a container, the workers outside are not visible. They may be alive.
func TestWorkerThatLivesOutsideOfTheContainerIsHeldUntilItsLeaseIsFree(t *testing.T) {
	t.Parallel()
	h := harness.NewHost(t, harness.Workers(2)...)
	n := newNamespace(h, 0)
	m := h.Start()
	before := h.AwaitRunning(2)
	m.Kill()
	h.Begin = n.start
	m = h.Start()
	held := func(w harness.Worker) bool { return strings.HasPrefix(w.Reason, "held: ") }
	h.AwaitWorkers(2, "are held", held)
	if got := h.Leaders(); len(got["worker-0"]) != 1 || len(got["worker-1"]) != 1 {
		t.Errorf("a second copy was started beside one that lives: %v", got)
	}
	h.KillWorker(before.Worker(t, "worker-0").PID)
	after := h.AwaitWorkers(2, "run or are held", func(w harness.Worker) bool {
		return w.ID == "worker-0" && w.Running() && w.Incarnation == 2 || w.ID == "worker-1" && held(w)
	})
	if got := h.Leaders()["worker-1"]; !slices.Equal(got, []int{before.Worker(t, "worker-1").PID}) {
		t.Errorf("worker-1 is %v, want it as it was", got)
	}
	h.Ask("of the one inside")
	m.Kill()
	// The worker inside lives, and is visible from outside under another PID.
	inside := pidOutside(h, after.Worker(t, "worker-0").PID)

	h.Begin = (*exec.Cmd).Start
	m = h.Start()
	last := h.AwaitRunning(2)
	for id, was := range map[string]int{"worker-0": inside, "worker-1": before.Worker(t, "worker-1").PID} {
		if w := last.Worker(t, id); w.PID != was || !w.Adopted {
			t.Errorf("%+v, want process %d adopted", w, was)
		}
	}
	h.WantNoTwin(last)
	h.Ask("of both")
	m.Stop()
	h.WantNothingLeft()
}

// A lease file that was deleted shows nothing.
func TestWorkerThatLivesOutsideOfTheContainerIsHeldWithoutALeaseToAsk(t *testing.T) {
	t.Parallel()
	h := harness.NewHost(t, harness.Workers(1)...)
	n := newNamespace(h, 0)
	m := h.Start()
	before := h.AwaitRunning(1).Workers[0]
	m.Kill()
	if err := os.RemoveAll(filepath.Join(h.State, "run")); err != nil {
		t.Fatal(err)
	}
	h.Begin = n.start
	m = h.Start()
	held := func(w harness.Worker) bool {
		return strings.HasPrefix(w.Reason, "held: ") && strings.Contains(w.Reason, "start a master where it ran")
	}
	h.AwaitWorkers(1, "are held, and it is said what to do", held)
	if got := h.Leaders()["worker-0"]; !slices.Equal(got, []int{before.PID}) {
		t.Errorf("worker-0 is %v, want it as it was", got)
	}
	m.Signal(syscall.SIGTERM)
	m.WantExit(1) // one is left that it cannot stop
	if w := h.Dump().Workers[0]; w.PID != before.PID {
		t.Errorf("recorded is %+v, want the process that lives: %+v", w, before)
	}

	h.Begin = (*exec.Cmd).Start
	m = h.Start()
	if w := h.AwaitRunning(1).Workers[0]; w.PID != before.PID || !w.Adopted {
		t.Errorf("%+v, want it adopted where it is to be seen: %+v", w, before)
	}
	m.Stop()
	h.WantNothingLeft()
}
