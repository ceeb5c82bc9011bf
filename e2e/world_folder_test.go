//go:build e2e && linux

package e2e

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/core-tools/hsu-master/api/proto"
)

// Directories that disappear under a running master, and a file system without locks.

// tryAsk has one item processed, or returns the error.
func (h *host) tryAsk(data string) error {
	ctx, cancel := context.WithTimeout(h.t.Context(), patience)
	defer cancel()
	_, err := proto.NewMyBusinessServiceClient(h.dial()).ProcessData(ctx, &proto.ProcessRequest{Data: data})
	return err
}

// The master has the whole state in memory: it writes the state back, and loses nothing of it.
func TestStateFolderThatIsDeletedUnderWayIsWrittenBack(t *testing.T) {
	for _, mode := range []string{"always", "interval"} {
		t.Run("sync "+mode, func(t *testing.T) {
			t.Parallel()
			h := newHost(t, append(workers(3), "--sync", mode)...)
			m := h.start()
			before := h.awaitRunning(3)
			want := before.instances(t)
			load := h.startLoad(8)
			load.awaitMore(100)
			if err := os.RemoveAll(h.state); err != nil && !errors.Is(err, syscall.ENOTEMPTY) {
				t.Fatal(err) // a file that appears while the directory is emptied
			}
			load.awaitMore(100)
			waitFor(t, "the state is back, and says so", func() error {
				if log := m.log(); !strings.Contains(log, "state was deleted under way") ||
					!strings.Contains(log, "service resumes") {
					return errors.New("nothing is said")
				}
				return nil
			})
			after := h.awaitRunning(3) // through the admin socket, which is back as well
			if diff := cmp.Diff(want, after.instances(t)); diff != "" || after.MasterPID != m.pid ||
				after.MasterID != before.MasterID {
				t.Errorf("it is not as it was, of %s and now of %s (-before +after):\n%s",
					before.MasterID, after.MasterID, diff)
			}
			h.killWorker(after.worker(t, "worker-2").PID) // its log and lease need their folders
			h.awaitWorkers(3, "run, one of them anew", func(d dump, w worker) bool {
				return running(d, w) && (w.ID != "worker-2" || w.Incarnation == 2)
			})
			load.awaitMore(100)
			acked := load.acked.Load()
			m.kill()

			m = h.start()
			last := h.awaitRunning(3)
			for _, w := range last.Workers {
				if was := want[w.ID]; !w.Adopted || w.ID != "worker-2" && (w.PID != was.PID || w.Token != was.Token) {
					t.Errorf("%+v, want it adopted as it was: %+v", w, was)
				}
			}
			h.wantNoTwin(last)
			load.stop()
			sent, got := load.sent.Load(), h.dump().ProcessedCount
			if last.ProcessedCount < acked || got < load.acked.Load() || got > sent {
				t.Errorf("processed_count = %d, then %d, want at least %d, then %d, and at most %d",
					last.ProcessedCount, got, acked, load.acked.Load(), sent)
			}
			m.stop()
			h.wantNothingLeft()
		})
	}
}

// A directory that was moved away may come back; until then no request is acknowledged, and no worker is harmed.
func TestStateFolderThatIsMovedAwayIsWaitedFor(t *testing.T) {
	t.Parallel()
	h := newHost(t, workers(2)...)
	m := h.start()
	before := h.awaitRunning(2)
	want := before.instances(t)
	h.ask("one")
	away := h.state + ".away"
	if err := os.Rename(h.state, away); err != nil {
		t.Fatal(err)
	}
	waitFor(t, "callers are told what to do", func() error {
		err := h.tryAsk("while it is away")
		if status.Code(err) != codes.Unavailable {
			t.Fatalf("the answer is %v, want UNAVAILABLE", err)
		}
		if !strings.Contains(err.Error(), "bring it back") {
			return err
		}
		return nil
	})
	for _, w := range before.Workers {
		own(t, w.Port) // it answers
	}
	// A worker that dies is restarted as soon as that can be recorded.
	h.killWorker(before.worker(t, "worker-0").PID)
	waitFor(t, "the master has noticed", func() error {
		if len(m.said("worker exited")) == 0 {
			return errors.New("nothing is said")
		}
		return nil
	})
	if _, err := os.Lstat(h.state); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("something was made in the place of the folder (%v)", err)
	}
	if err := os.Rename(away, h.state); err != nil {
		t.Fatal(err)
	}
	waitFor(t, "service resumes", func() error { return h.tryAsk("two") })
	after := h.awaitWorkers(2, "run, one of them anew", func(d dump, w worker) bool {
		return running(d, w) && (w.ID == "worker-1" || w.Incarnation == 2)
	})
	if w := after.worker(t, "worker-1"); w.PID != want["worker-1"].PID || after.MasterPID != m.pid {
		t.Errorf("%+v of master %d, want it and its master as they were", w, after.MasterPID)
	}
	if after.ProcessedCount != 2 {
		t.Errorf("processed_count = %d, want the 2 that were acknowledged", after.ProcessedCount)
	}
	h.wantNoTwin(after)
	m.stop()
	h.wantNothingLeft()
}

// removeAll deletes a directory into which the master may be writing files again.
func removeAll(t *testing.T, dir string) {
	t.Helper()
	waitFor(t, "the directory is deleted", func() error {
		err := os.RemoveAll(dir)
		if err != nil && !errors.Is(err, syscall.ENOTEMPTY) {
			t.Fatal(err)
		}
		return err
	})
}

// Commands, and the next master, find all its files again.
func TestRuntimeFolderThatIsDeletedUnderWayIsMadeAgain(t *testing.T) {
	t.Parallel()
	h := newHost(t, workers(2)...)
	runtime := filepath.Join(h.dir, "runtime")
	h.flags = append(h.flags, "--runtime-dir", runtime)
	m := h.start()
	before := h.awaitRunning(2)
	for range 2 {
		removeAll(t, runtime)
		waitFor(t, "the admin socket is back", func() error {
			d, err := h.tryDump()
			if err == nil && d.MasterPID != m.pid {
				err = fmt.Errorf("the answer is that of %d", d.MasterPID)
			}
			return err
		})
	}
	h.killWorker(before.worker(t, "worker-0").PID)
	after := h.awaitWorkers(2, "run, one of them anew", func(d dump, w worker) bool {
		return running(d, w) && (w.ID == "worker-1" || w.Incarnation == 2)
	})
	removeAll(t, runtime)
	m.kill()
	m = h.start()
	last := h.awaitRunning(2)
	if diff := cmp.Diff(after.instances(t), last.instances(t)); diff != "" {
		t.Errorf("the workers are not what they were (-before +after):\n%s", diff)
	}
	h.wantNoTwin(last)
	h.ask("at last")
	m.stop()
	if _, err := os.Lstat(filepath.Join(runtime, "admin.sock")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the socket was left (%v)", err)
	}
	h.wantNothingLeft()
}

// Without locks two masters could not be kept apart: the master does not start, and reports the missing locks. The
// workers of an earlier master go on running.
func TestMasterOnAFileSystemThatRefusesLocksDoesNotStart(t *testing.T) {
	t.Parallel()
	h := newHost(t, workers(2)...)
	m := h.start()
	before := h.awaitRunning(2)
	m.kill()
	args := []string{"-as", "nolocks", h.program, "run", "--state-dir", h.state, "--port", fmt.Sprint(h.port)}
	refused := h.execute(programs.unit, nil, append(args, h.flags...)...)
	refused.wantExit(1)
	for _, want := range []string{"no locks available", "needs a file system with locks"} {
		if !strings.Contains(refused.log(), want) {
			t.Errorf("it said %q, want %q in it", refused.log(), want)
		}
	}
	for _, w := range before.Workers {
		own(t, w.Port)
	}
	h.wantNoTwin(before)
	m = h.start()
	if diff := cmp.Diff(before.instances(t), h.awaitRunning(2).instances(t)); diff != "" {
		t.Errorf("the workers are not what they were (-before +after):\n%s", diff)
	}
	m.stop()
	h.wantNothingLeft()
}

// Only the directory of the leases is on such a file system, and is moved to another one.
func TestWorkersAreNotStartedWhereTheirLeasesCannotBeLocked(t *testing.T) {
	t.Parallel()
	h := newHost(t, workers(2)...)
	faults := filepath.Join(h.dir, "faults")
	if err := errors.Join(os.Mkdir(faults, 0o700),
		os.WriteFile(filepath.Join(faults, "lease"), []byte("ENOLCK"), 0o600)); err != nil {
		t.Fatal(err)
	}
	m := h.launch(programs.crasher, []string{"HSU_FAULT_DIR=" + faults})
	m.awaitServing()
	h.awaitWorkers(2, "wait, and say what for", func(_ dump, w worker) bool {
		return w.Status == "backoff" && strings.Contains(w.Reason, "no locks available") && w.Restarts == 0
	})
	if got := h.leaders(); len(got) > 0 {
		t.Errorf("started without a lease: %v", got)
	}
	if err := os.Remove(filepath.Join(faults, "lease")); err != nil {
		t.Fatal(err)
	}
	begun := time.Now()
	d := h.awaitRunning(2)
	t.Logf("running %s after the fault was gone", time.Since(begun).Round(time.Millisecond))
	h.wantNoTwin(d)
	m.stop()
	h.wantNothingLeft()
}
