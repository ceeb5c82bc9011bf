//go:build e2e && linux

package e2e

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// ownBinary gives the host a worker's executable that the test may replace.
func (h *host) ownBinary() string {
	h.t.Helper()
	path := filepath.Join(h.dir, "worker")
	h.install(path, "")
	return path
}

// install replaces an executable as package managers do; a different value of more makes it another version.
func (h *host) install(path, more string) {
	h.t.Helper()
	content, err := os.ReadFile(programs.worker)
	if err == nil {
		err = writeProgram(path+".new", append(content, more...))
	}
	if err == nil {
		err = os.Rename(path+".new", path)
	}
	if err != nil {
		h.t.Fatal(err)
	}
}

// executable returns the executable of the process, as the kernel names it.
func executable(pid int) string {
	path, _ := os.Readlink(fmt.Sprintf("/proc/%d/exe", pid))
	return path
}

func TestWorkerWhoseBinaryWasReplacedIsKeptAndItsNextInstanceIsTheNewOne(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	binary := h.ownBinary()
	h.flags = workersOf(binary, 2)
	m := h.start()
	before := h.awaitRunning(2).instances(t)
	h.install(binary, "another version")
	m.kill()
	m = h.start()
	d := h.awaitWorkers(2, "are adopted and outdated",
		func(d dump, w worker) bool { return running(d, w) && w.Adopted && w.Outdated })
	if diff := cmp.Diff(before, d.instances(t)); diff != "" {
		t.Errorf("the workers are not what they were (-before +after):\n%s", diff)
	}
	old := d.worker(t, "worker-0").PID
	if got := executable(old); !strings.HasSuffix(got, " (deleted)") {
		t.Fatalf("the first runs %s, want the one that was replaced", got)
	}
	h.killWorker(old)
	d = h.awaitWorkers(2, "run, one of them anew", func(d dump, w worker) bool {
		return running(d, w) && (w.ID == "worker-1" || w.Incarnation == 2)
	})
	if w := d.worker(t, "worker-0"); w.Outdated || executable(w.PID) != binary {
		t.Errorf("%+v runs %s, want the new version and nothing outdated", w, executable(w.PID))
	}
	if w := d.worker(t, "worker-1"); !w.Outdated || w.PID != before["worker-1"].PID {
		t.Errorf("%+v, want it as it was", w)
	}
	h.wantNoTwin(d)
	m.stop()
	h.wantNothingLeft()
}

func TestWorkerWhoseBinaryWasDeletedIsKeptAndStartedAgainWhenItIsBack(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	binary := h.ownBinary()
	h.flags = append(workersOf(binary, 2), "--restart-budget", "1000/5m", "--restart-backoff", "50ms")
	m := h.start()
	before := h.awaitRunning(2).instances(t)
	if err := os.Remove(binary); err != nil {
		t.Fatal(err)
	}
	m.kill()
	m = h.start()
	d := h.awaitWorkers(2, "are adopted", func(d dump, w worker) bool { return running(d, w) && w.Adopted })
	if diff := cmp.Diff(before, d.instances(t)); diff != "" {
		t.Errorf("the workers are not what they were (-before +after):\n%s", diff)
	}
	h.killWorker(d.worker(t, "worker-0").PID)
	h.awaitWorkers(2, "run, but for one that says why not", func(d dump, w worker) bool {
		if w.ID == "worker-1" {
			return running(d, w) && w.PID == before["worker-1"].PID
		}
		return w.Status == "backoff" && strings.Contains(w.Reason, binary) && strings.Contains(w.Reason, "no such file")
	})
	// The other worker takes the requests meanwhile; the next master knows the reason for the wait.
	h.ask("while one cannot start")
	m.kill()
	m = h.start()
	if w := h.dump().worker(t, "worker-0"); w.Status != "backoff" && w.Status != "starting" {
		t.Errorf("%+v, want it to wait", w)
	}
	h.install(binary, "")
	d = h.awaitRunning(2)
	if w := d.worker(t, "worker-0"); w.Outdated || w.Reason != "" || executable(w.PID) != binary {
		t.Errorf("%+v runs %s, want the binary that is back", w, executable(w.PID))
	}
	if w := d.worker(t, "worker-1"); w.PID != before["worker-1"].PID {
		t.Errorf("%+v, want it as it was", w)
	}
	h.wantNoTwin(d)
	m.stop()
	h.wantNothingLeft()
}
