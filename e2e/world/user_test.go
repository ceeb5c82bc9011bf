//go:build e2e && linux

package world

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/core-tools/hsu-master/e2e/harness"
	"github.com/core-tools/hsu-master/store/records"
)

// Root may read and signal everything. Only a master that runs as another user meets the restrictions of other
// users.

func TestWorkerThatAnUnprivilegedMasterCannotReadIsAdopted(t *testing.T) {
	t.Parallel()
	h := harness.NewHost(t)
	h.AsNobody()
	h.Flags = h.Units("undumpable", "plain")
	m := h.Start()
	want := h.AwaitRunning(2).Instances()
	for range 2 {
		m.Kill()
		m = h.Start()
		d := h.AwaitRunning(2)
		d.WantInstances(t, want)
		h.WantNoTwin(d)
		h.Ask("of one that hides")
	}
	m.Stop()
	h.WantNothingLeft()
}

// Its PID is not recorded, and its environment, which would identify it, cannot be read. A process holds the lease,
// so no second copy is started.
func TestWorkerThatAnUnprivilegedMasterCannotReadIsNotDoubledWhereItsPIDIsLost(t *testing.T) {
	t.Parallel()
	h := harness.NewHost(t)
	h.AsNobody()
	h.Flags = h.Units("undumpable", "plain")
	m := h.Start()
	before := h.AwaitRunning(2)
	m.Kill()
	if err := os.Chown(h.State, 0, 0); err != nil { // root does not write into folders of other users
		t.Fatal(err)
	}
	for _, id := range []string{"worker-0", "worker-1"} {
		h.EditRecord(id, func(w *records.Worker) {
			w.Instance.PID, w.Instance.Inode, w.Instance.StartTicks = 0, 0, 0
			w.Status = records.StatusStarting
		})
	}
	ownState(h)
	m = h.Start()
	d := h.AwaitWorkers(2, "run or are held", func(w harness.Worker) bool {
		return w.ID == "worker-0" && strings.HasPrefix(w.Reason, "held: ") && strings.Contains(w.Reason, "lease") ||
			w.ID == "worker-1" && w.Running() && w.Adopted
	})
	for _, w := range before.Workers {
		if got := h.Leaders()[w.ID]; !slices.Equal(got, []int{w.PID}) {
			t.Errorf("%s is %v, want process %d alone", w.ID, got, w.PID)
		}
	}
	if got, want := d.Worker(t, "worker-1").PID, before.Worker(t, "worker-1").PID; got != want {
		t.Errorf("the one that can be read is process %d, want %d", got, want)
	}
	h.Ask("of the other")
	h.KillWorker(before.Worker(t, "worker-0").PID)
	h.WantNoTwin(h.AwaitWorkers(2, "run, one of them anew", func(w harness.Worker) bool {
		return w.Running() && (w.ID == "worker-1" || w.Incarnation == 2)
	}))
	m.Stop()
	h.WantNothingLeft()
}

// ownState gives the files that the test itself has written to the masters' user.
func ownState(h *harness.Host) {
	h.T.Helper()
	files, err := filepath.Glob(filepath.Join(h.State, "*"))
	for _, f := range append(files, h.State) {
		err = errors.Join(err, os.Lchown(f, harness.Nobody, harness.Nobody))
	}
	if err != nil {
		h.T.Fatal(err)
	}
}

// Another user's process holds the lease, as a setuid helper may: here it is the test itself.
func TestLeaseHeldByAProcessThatCannotBeReadHoldsTheWorker(t *testing.T) {
	t.Parallel()
	h := harness.NewHost(t)
	h.AsNobody()
	h.Flags = harness.ShortGrace(h.Units("plain", "plain"))
	m := h.Start()
	before := h.AwaitRunning(2)
	dead := before.Worker(t, "worker-0")
	release := takeLease(h, dead.PID)
	defer release()
	h.KillWorker(dead.PID)
	held := func(w harness.Worker) bool {
		return w.ID == "worker-1" && w.Running() ||
			w.ID == "worker-0" && !w.Ready && strings.HasPrefix(w.Reason, "held: ")
	}
	h.AwaitWorkers(2, "run or are held", held)
	if got := h.Leaders()["worker-0"]; len(got) > 0 {
		t.Errorf("started beside what is left of the first: %v", got)
	}
	h.Ask("of the other")

	m.Kill()
	m = h.Start()
	h.AwaitWorkers(2, "run or are held", held)
	m.Signal(syscall.SIGTERM)
	m.WantExit(1)
	if !strings.Contains(m.Log(), "cannot be found") {
		t.Errorf("nothing is said of who is left:\n%s", m.Log())
	}

	m = h.Start()
	h.AwaitWorkers(2, "run or are held", held)
	release()
	d := h.AwaitRunning(2)
	if w := d.Worker(t, "worker-0"); w.Incarnation != 2 {
		t.Errorf("%+v, want a second instance", w)
	}
	h.WantNoTwin(d)
	m.Stop()
	h.WantNothingLeft()
}

// takeLease makes this process share the lease of a worker, until release.
func takeLease(h *harness.Host, pid int) (release func()) {
	h.T.Helper()
	links, err := filepath.Glob(fmt.Sprintf("/proc/%d/fd/*", pid))
	if err != nil {
		h.T.Fatal(err)
	}
	for _, link := range links {
		var number int
		if target, _ := os.Readlink(link); !strings.HasSuffix(target, ".lease") {
			continue
		}
		if _, err := fmt.Sscan(filepath.Base(link), &number); err != nil {
			h.T.Fatal(err)
		}
		process, err := unix.PidfdOpen(pid, 0)
		if err != nil {
			h.T.Fatal(err)
		}
		defer func() { _ = unix.Close(process) }()
		lease, err := unix.PidfdGetfd(process, number, 0)
		if err != nil {
			h.T.Fatal(err)
		}
		return func() {
			if lease >= 0 {
				_ = unix.Close(lease)
				lease = -1
			}
		}
	}
	h.T.Fatalf("process %d has no lease", pid)
	return nil
}
