//go:build e2e && linux

package world

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/core-tools/hsu-master/e2e/harness"
)

// ownBinary gives the host a worker's executable that the test may replace.
func ownBinary(h *harness.Host) string {
	h.T.Helper()
	path := filepath.Join(h.Dir, "worker")
	install(h, path, "")
	return path
}

// install replaces an executable as package managers do; a different value of more makes it another version.
func install(h *harness.Host, path, more string) {
	h.T.Helper()
	content, err := os.ReadFile(harness.Programs.Worker)
	if err == nil {
		err = harness.WriteProgram(path+".new", append(content, more...))
	}
	if err == nil {
		err = os.Rename(path+".new", path)
	}
	if err != nil {
		h.T.Fatal(err)
	}
}

// executable returns the executable of the process, as the kernel names it.
func executable(pid int) string {
	path, _ := os.Readlink(fmt.Sprintf("/proc/%d/exe", pid))
	return path
}

func TestWorkerWhoseBinaryWasReplacedIsKeptAndItsNextInstanceIsTheNewOne(t *testing.T) {
	t.Parallel()
	h := harness.NewHost(t)
	binary := ownBinary(h)
	h.Flags = harness.WorkersOf(binary, 2)
	m := h.Start()
	before := h.AwaitRunning(2).Instances()
	install(h, binary, "another version")
	m.Kill()
	m = h.Start()
	d := h.AwaitWorkers(2, "are adopted and outdated",
		func(w harness.Worker) bool { return w.Running() && w.Adopted && w.Outdated })
	d.WantInstances(t, before)
	old := d.Worker(t, "worker-0").PID
	if got := executable(old); !strings.HasSuffix(got, " (deleted)") {
		t.Fatalf("the first runs %s, want the one that was replaced", got)
	}
	h.KillWorker(old)
	d = h.AwaitWorkers(2, "run, one of them anew", func(w harness.Worker) bool {
		return w.Running() && (w.ID == "worker-1" || w.Incarnation == 2)
	})
	if w := d.Worker(t, "worker-0"); w.Outdated || executable(w.PID) != binary {
		t.Errorf("%+v runs %s, want the new version and nothing outdated", w, executable(w.PID))
	}
	if w := d.Worker(t, "worker-1"); !w.Outdated || w.PID != before["worker-1"].PID {
		t.Errorf("%+v, want it as it was", w)
	}
	h.WantNoTwin(d)
	m.Stop()
	h.WantNothingLeft()
}

func TestWorkerWhoseBinaryWasDeletedIsKeptAndStartedAgainWhenItIsBack(t *testing.T) {
	t.Parallel()
	h := harness.NewHost(t)
	binary := ownBinary(h)
	h.Flags = append(harness.WorkersOf(binary, 2), "--restart-budget", "1000/5m", "--restart-backoff", "50ms")
	m := h.Start()
	before := h.AwaitRunning(2).Instances()
	if err := os.Remove(binary); err != nil {
		t.Fatal(err)
	}
	m.Kill()
	m = h.Start()
	d := h.AwaitWorkers(2, "are adopted", func(w harness.Worker) bool { return w.Running() && w.Adopted })
	d.WantInstances(t, before)
	h.KillWorker(d.Worker(t, "worker-0").PID)
	h.AwaitWorkers(2, "run, but for one that says why not", func(w harness.Worker) bool {
		if w.ID == "worker-1" {
			return w.Running() && w.PID == before["worker-1"].PID
		}
		return w.Status == "backoff" && strings.Contains(w.Reason, binary) && strings.Contains(w.Reason, "no such file")
	})
	// The other worker takes the requests meanwhile; the next master knows the reason for the wait.
	h.Ask("while one cannot start")
	m.Kill()
	m = h.Start()
	if w := h.Dump().Worker(t, "worker-0"); w.Status != "backoff" && w.Status != "starting" {
		t.Errorf("%+v, want it to wait", w)
	}
	install(h, binary, "")
	d = h.AwaitRunning(2)
	if w := d.Worker(t, "worker-0"); w.Outdated || w.Reason != "" || executable(w.PID) != binary {
		t.Errorf("%+v runs %s, want the binary that is back", w, executable(w.PID))
	}
	if w := d.Worker(t, "worker-1"); w.PID != before["worker-1"].PID {
		t.Errorf("%+v, want it as it was", w)
	}
	h.WantNoTwin(d)
	m.Stop()
	h.WantNothingLeft()
}
