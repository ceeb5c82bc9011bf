//go:build e2e && linux

package world

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/core-tools/hsu-master/e2e/harness"
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
			h := harness.NewHost(t, harness.Workers(count)...)
			m := h.Start()
			before := h.AwaitRunning(count)
			h.Ask("before the boot")
			m.Kill()
			var decoys []*harness.Decoy
			for i, w := range before.Workers {
				h.KillWorker(w.PID)
				d := h.StartDecoy(0)
				decoys = append(decoys, d)
				h.EditRecord(w.ID, func(w *records.Worker) {
					w.Instance.PID, w.Instance.StartTicks = d.PID, harness.StartTicks(d.PID)
					w.Instance.BootID = "00000000-0000-4000-8000-000000000000"
					w.History.BootID = w.Instance.BootID
					w.Status = []records.Status{
						records.StatusRunning, records.StatusStarting, records.StatusStopping,
					}[i]
				})
			}
			if tidy {
				if err := os.RemoveAll(filepath.Join(h.State, "run")); err != nil {
					t.Fatal(err)
				}
			}

			m = h.Start()
			after := h.AwaitRunning(count)
			for _, w := range after.Workers {
				if was := before.Worker(t, w.ID); w.Incarnation != 2 || w.Token == was.Token ||
					w.Restarts != 0 || w.Adopted {
					t.Errorf("%+v, want it anew and at no cost", w)
				}
			}
			if after.ProcessedCount != 1 || after.MasterID != before.MasterID {
				t.Errorf("count and master id = %d, %s, want 1 and %s",
					after.ProcessedCount, after.MasterID, before.MasterID)
			}
			h.WantNoTwin(after)
			h.Ask("after the boot")
			m.Stop()
			for _, d := range decoys {
				d.WantUntouched(t)
			}
			h.WantNothingLeft()
		})
	}
}

// The directory counts, not its path.
func TestStateFolderIsTheSameByWhateverPathItIsReached(t *testing.T) {
	t.Parallel()
	h := harness.NewHost(t, harness.Workers(2)...)
	folder := h.State
	links := []string{filepath.Join(h.Dir, "link"), filepath.Join(h.Dir, "folders", "..", "other")}
	if err := os.MkdirAll(filepath.Join(h.Dir, "folders"), 0o700); err != nil {
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
	var want map[string]harness.Instance
	for _, path := range []string{links[0], folder, links[1], links[0]} {
		h.State = path
		m := h.Start()
		d := h.AwaitRunning(2)
		if want == nil {
			want = d.Instances()
		} else if diff := cmp.Diff(want, d.Instances()); diff != "" {
			t.Errorf("by %s the workers are not what they were (-before +after):\n%s", path, diff)
		}
		h.WantNoTwin(d)
		h.Ask("by " + path)
		for _, other := range append(links, folder) {
			h.State = other
			if d := h.Dump(); d.Source != "live" || d.MasterPID != m.PID {
				t.Errorf("asked by %s: %+v, want the answer of master %d", other, d, m.PID)
			}
		}
		h.State = folder
		port := h.Port
		h.Port = harness.FreePort(t)
		second := h.Launch(h.Program, nil)
		second.WantExit(4)
		h.Port = port
		if !strings.Contains(second.Log(), "another master") {
			t.Errorf("a second master said %q", second.Log())
		}
		m.Kill()
	}
	m := h.Start()
	h.AwaitRunning(2)
	m.Stop()
	h.WantNothingLeft()
}
