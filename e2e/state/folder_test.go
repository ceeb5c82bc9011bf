//go:build e2e && linux

package state

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
	"github.com/core-tools/hsu-master/e2e/harness"
)

// Directories that disappear under a running master, and a file system without locks.

// tryAsk has one item processed, or returns the error.
func tryAsk(h *harness.Host, data string) error {
	ctx, cancel := context.WithTimeout(h.T.Context(), harness.Patience)
	defer cancel()
	_, err := proto.NewMyBusinessServiceClient(h.Dial()).ProcessData(ctx, &proto.ProcessRequest{Data: data})
	return err
}

// The master has the whole state in memory: it writes the state back, and loses nothing of it.
func TestStateFolderThatIsDeletedUnderWayIsWrittenBack(t *testing.T) {
	for _, mode := range []string{"always", "interval"} {
		t.Run("sync "+mode, func(t *testing.T) {
			t.Parallel()
			h := harness.NewHost(t, append(harness.Workers(3), "--sync", mode)...)
			m := h.Start()
			before := h.AwaitRunning(3)
			want := before.Instances()
			load := h.StartLoad(8)
			load.AwaitMore(100)
			if err := os.RemoveAll(h.State); err != nil && !errors.Is(err, syscall.ENOTEMPTY) {
				t.Fatal(err) // a file that appears while the directory is emptied
			}
			load.AwaitMore(100)
			harness.WaitFor(t, "the state is back, and says so", func() error {
				if log := m.Log(); !strings.Contains(log, "state database deleted") ||
					!strings.Contains(log, "state repaired") {
					return errors.New("nothing is said")
				}
				return nil
			})
			after := h.AwaitRunning(3) // through the admin socket, which is back as well
			if diff := cmp.Diff(want, after.Instances()); diff != "" || after.MasterPID != m.PID ||
				after.MasterID != before.MasterID {
				t.Errorf("it is not as it was, of %s and now of %s (-before +after):\n%s",
					before.MasterID, after.MasterID, diff)
			}
			h.KillWorker(after.Worker(t, "worker-2").PID) // its log and lease need their folders
			h.AwaitWorkers(3, "run, one of them anew", func(w harness.Worker) bool {
				return w.Running() && (w.ID != "worker-2" || w.Incarnation == 2)
			})
			load.AwaitMore(100)
			acked := load.Acked.Load()
			m.Kill()

			m = h.Start()
			last := h.AwaitRunning(3)
			for _, w := range last.Workers {
				if was := want[w.ID]; !w.Adopted || w.ID != "worker-2" && (w.PID != was.PID || w.Token != was.Token) {
					t.Errorf("%+v, want it adopted as it was: %+v", w, was)
				}
			}
			h.WantNoTwin(last)
			load.Stop()
			sent, got := load.Sent.Load(), h.Dump().ProcessedCount
			if last.ProcessedCount < acked || got < load.Acked.Load() || got > sent {
				t.Errorf("processed_count = %d, then %d, want at least %d, then %d, and at most %d",
					last.ProcessedCount, got, acked, load.Acked.Load(), sent)
			}
			m.Stop()
			h.WantNothingLeft()
		})
	}
}

// A directory that was moved away may come back; until then no request is acknowledged, and no worker is harmed.
func TestStateFolderThatIsMovedAwayIsWaitedFor(t *testing.T) {
	t.Parallel()
	h := harness.NewHost(t, harness.Workers(2)...)
	m := h.Start()
	before := h.AwaitRunning(2)
	want := before.Instances()
	h.Ask("one")
	away := h.State + ".away"
	if err := os.Rename(h.State, away); err != nil {
		t.Fatal(err)
	}
	harness.WaitFor(t, "callers are told what to do", func() error {
		err := tryAsk(h, "while it is away")
		if status.Code(err) != codes.Unavailable {
			t.Fatalf("the answer is %v, want UNAVAILABLE", err)
		}
		if !strings.Contains(err.Error(), "bring it back") {
			return err
		}
		return nil
	})
	for _, w := range before.Workers {
		harness.WorkerStatus(t, w.Port) // it answers
	}
	// A worker that dies is restarted as soon as that can be recorded.
	h.KillWorker(before.Worker(t, "worker-0").PID)
	harness.WaitFor(t, "the master has noticed", func() error {
		if len(m.Logged("worker exited")) == 0 {
			return errors.New("nothing is said")
		}
		return nil
	})
	if _, err := os.Lstat(h.State); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("something was made in the place of the folder (%v)", err)
	}
	if err := os.Rename(away, h.State); err != nil {
		t.Fatal(err)
	}
	harness.WaitFor(t, "service resumes", func() error { return tryAsk(h, "two") })
	after := h.AwaitWorkers(2, "run, one of them anew", func(w harness.Worker) bool {
		return w.Running() && (w.ID == "worker-1" || w.Incarnation == 2)
	})
	if w := after.Worker(t, "worker-1"); w.PID != want["worker-1"].PID || after.MasterPID != m.PID {
		t.Errorf("%+v of master %d, want it and its master as they were", w, after.MasterPID)
	}
	if after.ProcessedCount != 2 {
		t.Errorf("processed_count = %d, want the 2 that were acknowledged", after.ProcessedCount)
	}
	h.WantNoTwin(after)
	m.Stop()
	h.WantNothingLeft()
}

// removeAll deletes a directory into which the master may be writing files again.
func removeAll(t *testing.T, dir string) {
	t.Helper()
	harness.WaitFor(t, "the directory is deleted", func() error {
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
	h := harness.NewHost(t, harness.Workers(2)...)
	runtime := filepath.Join(h.Dir, "runtime")
	h.Flags = append(h.Flags, "--runtime-dir", runtime)
	m := h.Start()
	before := h.AwaitRunning(2)
	for range 2 {
		removeAll(t, runtime)
		harness.WaitFor(t, "the admin socket is back", func() error {
			d, err := h.TryDump()
			if err == nil && d.MasterPID != m.PID {
				err = fmt.Errorf("the answer is that of %d", d.MasterPID)
			}
			return err
		})
	}
	h.KillWorker(before.Worker(t, "worker-0").PID)
	after := h.AwaitWorkers(2, "run, one of them anew", func(w harness.Worker) bool {
		return w.Running() && (w.ID == "worker-1" || w.Incarnation == 2)
	})
	removeAll(t, runtime)
	m.Kill()
	m = h.Start()
	last := h.AwaitRunning(2)
	last.WantInstances(t, after.Instances())
	h.WantNoTwin(last)
	h.Ask("at last")
	m.Stop()
	if _, err := os.Lstat(filepath.Join(runtime, "admin.sock")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the socket was left (%v)", err)
	}
	h.WantNothingLeft()
}

// Without locks two masters could not be kept apart: the master does not start, and reports the missing locks. The
// workers of an earlier master go on running.
func TestMasterOnAFileSystemThatRefusesLocksDoesNotStart(t *testing.T) {
	t.Parallel()
	h := harness.NewHost(t, harness.Workers(2)...)
	m := h.Start()
	before := h.AwaitRunning(2)
	m.Kill()
	args := []string{"-as", "nolocks", h.Program, "run", "--state-dir", h.State, "--port", fmt.Sprint(h.Port)}
	refused := h.Exec(harness.Programs.Unit, nil, append(args, h.Flags...)...)
	refused.WantExit(1)
	for _, want := range []string{"no locks available", "needs a file system with locks"} {
		if !strings.Contains(refused.Log(), want) {
			t.Errorf("it said %q, want %q in it", refused.Log(), want)
		}
	}
	for _, w := range before.Workers {
		harness.WorkerStatus(t, w.Port)
	}
	h.WantNoTwin(before)
	m = h.Start()
	h.AwaitRunning(2).WantInstances(t, before.Instances())
	m.Stop()
	h.WantNothingLeft()
}

// Only the directory of the leases is on such a file system, and is moved to another one.
func TestWorkersAreNotStartedWhereTheirLeasesCannotBeLocked(t *testing.T) {
	t.Parallel()
	h := harness.NewHost(t, harness.Workers(2)...)
	faults := filepath.Join(h.Dir, "faults")
	if err := errors.Join(os.Mkdir(faults, 0o700),
		os.WriteFile(filepath.Join(faults, "lease"), []byte("ENOLCK"), 0o600)); err != nil {
		t.Fatal(err)
	}
	m := h.Launch(harness.Programs.Master, []string{"HSU_FAULT_DIR=" + faults})
	m.AwaitServing()
	h.AwaitWorkers(2, "wait, and say what for", func(w harness.Worker) bool {
		return w.Status == "backoff" && strings.Contains(w.Reason, "no locks available") && w.Restarts == 0
	})
	if got := h.Leaders(); len(got) > 0 {
		t.Errorf("started without a lease: %v", got)
	}
	if err := os.Remove(filepath.Join(faults, "lease")); err != nil {
		t.Fatal(err)
	}
	begun := time.Now()
	d := h.AwaitRunning(2)
	t.Logf("running %s after the fault was gone", time.Since(begun).Round(time.Millisecond))
	h.WantNoTwin(d)
	m.Stop()
	h.WantNothingLeft()
}
