//go:build e2e && linux

package e2e

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"github.com/core-tools/hsu-master/store/records"
)

// Root may read and signal everything. Only a master that runs as another user meets the restrictions of other
// users.

// asNobody makes the host's masters run as a user without privileges.
func (h *host) asNobody() {
	h.t.Helper()
	if os.Geteuid() != 0 {
		lacking(h.t, "starts masters as another user, which only root may")
	}
	err := os.Mkdir(h.state, 0o700)
	for _, dir := range []string{programs.dir, h.dir} {
		err = errors.Join(err, os.Chmod(dir, 0o711))
	}
	for _, dir := range []string{h.state, h.record} {
		err = errors.Join(err, os.Chown(dir, nobody, nobody))
	}
	if err != nil {
		h.t.Fatal(err)
	}
	h.begin = func(cmd *exec.Cmd) error {
		cmd.SysProcAttr.Credential = &syscall.Credential{Uid: nobody, Gid: nobody}
		return cmd.Start()
	}
}

func TestWorkerThatAnUnprivilegedMasterCannotReadIsAdopted(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	h.asNobody()
	h.flags = h.units("undumpable", "plain")
	m := h.start()
	want := h.awaitRunning(2).instances(t)
	for range 2 {
		m.kill()
		m = h.start()
		d := h.awaitRunning(2)
		if diff := cmp.Diff(want, d.instances(t)); diff != "" {
			t.Errorf("the workers are not what they were (-before +after):\n%s", diff)
		}
		h.wantNoTwin(d)
		h.ask("of one that hides")
	}
	m.stop()
	h.wantNothingLeft()
}

// Its PID is not recorded, and its environment, which would identify it, cannot be read. A process holds the lease,
// so no second copy is started.
func TestWorkerThatAnUnprivilegedMasterCannotReadIsNotDoubledWhereItsPIDIsLost(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	h.asNobody()
	h.flags = h.units("undumpable", "plain")
	m := h.start()
	before := h.awaitRunning(2)
	m.kill()
	if err := os.Chown(h.state, 0, 0); err != nil { // root does not write into folders of other users
		t.Fatal(err)
	}
	for _, id := range []string{"worker-0", "worker-1"} {
		h.edit(id, func(w *records.Worker) {
			w.Instance.PID, w.Instance.Inode, w.Instance.StartTicks = 0, 0, 0
			w.Status = records.StatusStarting
		})
	}
	h.ownState()
	m = h.start()
	d := h.awaitWorkers(2, "run or are held", func(d dump, w worker) bool {
		return w.ID == "worker-0" && strings.HasPrefix(w.Reason, "held: ") && strings.Contains(w.Reason, "lease") ||
			w.ID == "worker-1" && running(d, w) && w.Adopted
	})
	for _, w := range before.Workers {
		if got := h.leaders()[w.ID]; !slices.Equal(got, []int{w.PID}) {
			t.Errorf("%s is %v, want process %d alone", w.ID, got, w.PID)
		}
	}
	if got, want := d.worker(t, "worker-1").PID, before.worker(t, "worker-1").PID; got != want {
		t.Errorf("the one that can be read is process %d, want %d", got, want)
	}
	h.ask("of the other")
	h.killWorker(before.worker(t, "worker-0").PID)
	h.wantNoTwin(h.awaitWorkers(2, "run, one of them anew", func(d dump, w worker) bool {
		return running(d, w) && (w.ID == "worker-1" || w.Incarnation == 2)
	}))
	m.stop()
	h.wantNothingLeft()
}

// ownState gives the files that the test itself has written to the masters' user.
func (h *host) ownState() {
	h.t.Helper()
	files, err := filepath.Glob(filepath.Join(h.state, "*"))
	for _, f := range append(files, h.state) {
		err = errors.Join(err, os.Lchown(f, nobody, nobody))
	}
	if err != nil {
		h.t.Fatal(err)
	}
}

// Another user's process holds the lease, as a setuid helper may: here it is the test itself.
func TestLeaseHeldByAProcessThatCannotBeReadHoldsTheWorker(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	h.asNobody()
	h.flags = graceful(h.units("plain", "plain"))
	m := h.start()
	before := h.awaitRunning(2)
	dead := before.worker(t, "worker-0")
	release := h.takeLease(dead.PID)
	defer release()
	h.killWorker(dead.PID)
	held := func(d dump, w worker) bool {
		return w.ID == "worker-1" && running(d, w) ||
			w.ID == "worker-0" && !d.ready(w.ID) && strings.HasPrefix(w.Reason, "held: ")
	}
	h.awaitWorkers(2, "run or are held", held)
	if got := h.leaders()["worker-0"]; len(got) > 0 {
		t.Errorf("started beside what is left of the first: %v", got)
	}
	h.ask("of the other")

	m.kill()
	m = h.start()
	h.awaitWorkers(2, "run or are held", held)
	m.signal(syscall.SIGTERM)
	m.wantExit(1)
	if !strings.Contains(m.log(), "cannot be found") {
		t.Errorf("nothing is said of who is left:\n%s", m.log())
	}

	m = h.start()
	h.awaitWorkers(2, "run or are held", held)
	release()
	d := h.awaitRunning(2)
	if w := d.worker(t, "worker-0"); w.Incarnation != 2 {
		t.Errorf("%+v, want a second instance", w)
	}
	h.wantNoTwin(d)
	m.stop()
	h.wantNothingLeft()
}

// takeLease makes this process share the lease of a worker, until release.
func (h *host) takeLease(pid int) (release func()) {
	h.t.Helper()
	links, err := filepath.Glob(fmt.Sprintf("/proc/%d/fd/*", pid))
	if err != nil {
		h.t.Fatal(err)
	}
	for _, link := range links {
		var number int
		if target, _ := os.Readlink(link); !strings.HasSuffix(target, ".lease") {
			continue
		}
		if _, err := fmt.Sscan(filepath.Base(link), &number); err != nil {
			h.t.Fatal(err)
		}
		process, err := unix.PidfdOpen(pid, 0)
		if err != nil {
			h.t.Fatal(err)
		}
		defer func() { _ = unix.Close(process) }()
		lease, err := unix.PidfdGetfd(process, number, 0)
		if err != nil {
			h.t.Fatal(err)
		}
		return func() {
			if lease >= 0 {
				_ = unix.Close(lease)
				lease = -1
			}
		}
	}
	h.t.Fatalf("process %d has no lease", pid)
	return nil
}
