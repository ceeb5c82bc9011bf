//go:build e2e && linux

package e2e

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/core-tools/hsu-master/store/records"
)

// Another boot, and another path to the same directory.

// After a boot no PID belongs to the process that had it before.
func TestEverythingIsStartedAnewAfterABootAndNoStrangerIsTouched(t *testing.T) {
	for name, tidy := range map[string]bool{
		"with the runtime folder as it was": false, "without what was in memory": true,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			const count = 3
			h := newHost(t, workers(count)...)
			m := h.start()
			before := h.awaitRunning(count)
			h.ask("before the boot")
			m.kill()
			var decoys []*decoy
			for i, w := range before.Workers {
				h.killWorker(w.PID)
				d := h.decoy(0)
				decoys = append(decoys, d)
				h.edit(w.ID, func(w *records.Worker) {
					w.Instance.PID, w.Instance.StartTicks = d.pid(), born(t, d.pid())
					w.Instance.BootID = "00000000-0000-4000-8000-000000000000"
					w.History.BootID = w.Instance.BootID
					w.Status = []records.Status{
						records.StatusRunning, records.StatusStarting, records.StatusStopping,
					}[i]
				})
			}
			if tidy {
				if err := os.RemoveAll(filepath.Join(h.state, "run")); err != nil {
					t.Fatal(err)
				}
			}

			m = h.start()
			after := h.awaitRunning(count)
			for _, w := range after.Workers {
				if was := before.worker(t, w.ID); w.Incarnation != 2 || w.Token == was.Token ||
					w.Restarts != 0 || w.Adopted {
					t.Errorf("%+v, want it anew and at no cost", w)
				}
			}
			if after.ProcessedCount != 1 || after.MasterID != before.MasterID {
				t.Errorf("count and master id = %d, %s, want 1 and %s",
					after.ProcessedCount, after.MasterID, before.MasterID)
			}
			h.wantNoTwin(after)
			h.ask("after the boot")
			m.stop()
			for _, d := range decoys {
				d.wantUntouched()
			}
			h.wantNothingLeft()
		})
	}
}

// The directory counts, not its path.
func TestStateFolderIsTheSameByWhateverPathItIsReached(t *testing.T) {
	t.Parallel()
	h := newHost(t, workers(2)...)
	folder := h.state
	links := []string{filepath.Join(h.dir, "link"), filepath.Join(h.dir, "folders", "..", "other")}
	if err := os.MkdirAll(filepath.Join(h.dir, "folders"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(folder, 0o700); err != nil {
		t.Fatal(err)
	}
	for _, link := range links {
		if err := os.Symlink(filepath.Base(folder), filepath.Clean(link)); err != nil {
			t.Fatal(err)
		}
	}
	var want map[string]instance
	for _, path := range []string{links[0], folder, links[1], links[0]} {
		h.state = path
		m := h.start()
		d := h.awaitRunning(2)
		if want == nil {
			want = d.instances(t)
		} else if diff := cmp.Diff(want, d.instances(t)); diff != "" {
			t.Errorf("by %s the workers are not what they were (-before +after):\n%s", path, diff)
		}
		h.wantNoTwin(d)
		h.ask("by " + path)
		for _, other := range append(links, folder) {
			h.state = other
			if d := h.dump(); d.Source != "live" || d.MasterPID != m.pid {
				t.Errorf("asked by %s: %+v, want the answer of master %d", other, d, m.pid)
			}
		}
		h.state = folder
		port := h.port
		h.port = freePort(t)
		second := h.launch(h.program, nil)
		second.wantExit(4)
		h.port = port
		if !strings.Contains(second.log(), "another master") {
			t.Errorf("a second master said %q", second.log())
		}
		m.kill()
	}
	m := h.start()
	h.awaitRunning(2)
	m.stop()
	h.wantNothingLeft()
}
