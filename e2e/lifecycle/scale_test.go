//go:build e2e && linux

package lifecycle

import (
	"path/filepath"
	"strings"
	"testing"

	"github.com/core-tools/hsu-master/e2e/harness"
	"github.com/core-tools/hsu-master/internal/crashpoint"
)

// The number of workers that an operator has set outlives the master, until a start asks for another.
func TestScaleOutlivesTheMaster(t *testing.T) {
	h := harness.NewHost(t, harness.Workers(2)...)
	m := h.Start()
	h.AwaitRunning(2)
	scale(h, "worker=4", "worker has 4 workers, before 2, configured 2\nstarted: worker-2, worker-3\n")
	want := h.AwaitRunning(4).Instances()
	if r := h.CLI("worker", "list"); !strings.Contains(r.Stdout, "worker is scaled: 4 of 2 configured\n") {
		t.Errorf("worker list: %+v", r)
	}
	m.Kill()
	m = h.Start()
	h.AwaitRunning(4).WantInstances(t, want)

	scale(h, "worker=1", "worker has 1 worker, before 4, configured 2\nstopped: worker-1, worker-2, worker-3\n")
	delete(want, "worker-1")
	delete(want, "worker-2")
	delete(want, "worker-3")
	h.AwaitRunning(1).WantInstances(t, want)
	refused(h, 1, "it was removed; its log is kept: "+filepath.Join(h.State, "logs", "worker-3.log"),
		"worker", "logs", "worker-3")
	m.Kill()
	m = h.Start()
	h.AwaitRunning(1).WantInstances(t, want)
	if leaders := h.Leaders(); len(leaders) != 1 {
		t.Errorf("processes %v, want that of worker-0 alone", leaders)
	}

	r := h.CLI("worker", "scale", "worker=2", "--json")
	const object = `{"unit":"worker","replicas":2,"before":1,"configured":2,` +
		`"added":["worker-1"],"removed":[],"done":true}`
	if got := strings.Join(strings.Fields(r.Stdout), ""); r.Code != 0 || got != object {
		t.Errorf("scale --json: %+v, want %s", r, object)
	}
	h.AwaitRunning(2)
	r = h.CLI("worker", "scale", "wroker=2")
	if r.Code != 1 || !strings.Contains(r.Stderr, `no such unit: "wroker" (did you mean "worker"?)`) {
		t.Errorf("an unknown unit: %+v", r)
	}
	m.Kill()
	h.Flags = harness.Workers(3)
	m = h.Start()
	h.AwaitRunning(3)
	m.Stop()
	h.WantNothingLeft()
}

// scale runs "worker scale", which must print the text.
func scale(h *harness.Host, arg, text string) {
	h.T.Helper()
	if r := h.CLI("worker", "scale", arg); r.Code != 0 || r.Stdout != text {
		h.T.Errorf("worker scale %s: %+v, want %q", arg, r, text)
	}
}

// A master that is killed while it scales leaves a state from which the next one ends at one of the two numbers, with
// the other workers untouched.
func TestScaleCutOffByACrashIsCompletedOrUndone(t *testing.T) {
	for _, moment := range harness.Moments(1, crashpoint.UnitRecord) {
		h := harness.NewHost(t, harness.Workers(2)...)
		h.Start().Kill()
		m := h.Launch(h.Program, []string{"HSU_CRASH_POINT=" + moment})
		m.AwaitServing()
		before := h.AwaitRunning(2).Instances()
		h.CLI("worker", "scale", "worker=1")
		m.WantExit(-1)
		m = h.Start()
		want := 2
		if strings.HasPrefix(moment, string(crashpoint.UnitRecord.After())) {
			delete(before, "worker-1")
			want = 1
		}
		h.AwaitRunning(want).WantInstances(t, before)
		m.Stop()
		h.WantNothingLeft()
	}
}
