//go:build e2e && linux

package state

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/core-tools/hsu-master/e2e/harness"
)

// On a full disk everything continues: the count overwrites its earlier records, and the registry has reserved
// space to grow into.
func TestFullDiskStopsNothing(t *testing.T) {
	t.Parallel()
	for name, mount := range map[string]func(*harness.Host) *disk{
		"tmpfs": func(h *harness.Host) *disk { return onTmpfs(h, 8<<10) },
		"ext4":  func(h *harness.Host) *disk { return onExt4(h, 16, "", "") },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			h := harness.NewHost(t)
			disk := mount(h)
			h.Flags = restless(h)
			m := h.Start()
			before := awaitSteady(h, harness.Worker.Running)
			load := h.StartLoad(8)
			load.AwaitMore(100)
			disk.fill()
			load.AwaitMore(100)
			h.KillWorker(before.Workers[0].PID)
			after := awaitSteady(h, func(w harness.Worker) bool {
				return w.Running() && (w.ID != before.Workers[0].ID || w.Incarnation == 2)
			})
			wantOnlyRestarted(h, before, after, before.Workers[0].ID)
			awaitRestless(h)
			for failure, times := range load.TakeFailures() {
				if !strings.Contains(failure, "connection to the server lost") { // from the killed worker
					t.Errorf("%d callers got %q", times, failure)
				}
			}

			want := after.Instances()
			m.Kill()
			m = h.Start()
			awaitSteady(h, harness.Worker.Running).WantInstances(t, want)
			load.AwaitMore(100)
			m.Stop() // the same again after an orderly stop
			m = h.Start()
			awaitSteady(h, harness.Worker.Running)
			load.AwaitMore(100)
			awaitRestless(h)
			disk.free()
			load.AwaitMore(100)
			load.Stop()
			wantCounted(h, load)
			m.Stop()
			h.WantNothingLeft()
		})
	}
}

// awaitRestless returns when the restless workers have used up their budget.
func awaitRestless(h *harness.Host) {
	h.T.Helper()
	harness.WaitFor(h.T, "the restless workers have failed", func() error {
		d, err := h.TryDump()
		if err != nil {
			return err
		}
		for _, w := range d.Workers[steady:] {
			if w.Status != "failed" {
				return fmt.Errorf("%+v", w)
			}
		}
		return nil
	})
}

// A full file system that cannot reserve space for a file: ext4 with the features of ext2 and ext3.
func TestFullDiskWithoutASpaceThatIsKept(t *testing.T) {
	survive(t, func(h *harness.Host) outage {
		disk := onExt4(h, 16, "", "", "-O", "^extent,^64bit")
		h.Flags = restless(h)
		return outage{
			grows:  true,
			reason: "no space left on device: free some space there, and service resumes by itself",
			begin:  func(*harness.Master) { disk.fill() },
			end:    func() { disk.free() },
		}
	})
}

// A disk whose underlying storage is used up: writes succeed, and the data is lost when it is synced. (A thin
// volume; here a sparse file on a full file system.)
func TestDiskWhoseStorageIsUsedUp(t *testing.T) {
	survive(t, func(h *harness.Host) outage {
		storage := newDisk(h, "storage")
		storage.mount("tmpfs", "tmpfs", 0, "size=12m")
		thin := onExt4(h, 64, filepath.Join(storage.dir, "image"), "errors=continue", "-O", "^has_journal")
		h.Flags = harness.Workers(steady)
		return outage{
			grows:  true,
			reason: "no space left on device",
			begin: func(*harness.Master) {
				thin.trim() // otherwise a new file may fit into the space of an old one
				storage.fill()
			},
			end: func() { storage.free() },
		}
	})
}

// A disk that fails: reads and writes give EIO.
func TestDiskThatFailsForAWhile(t *testing.T) {
	survive(t, func(h *harness.Host) outage {
		const alive = 8 // MiB, including the file system's metadata
		disk := onExt4(h, 24, "", "errors=continue", "-J", "size=4")
		if err := os.WriteFile(filepath.Join(disk.dir, "low"), make([]byte, (alive+1)<<20), 0o600); err != nil {
			t.Fatal(err)
		}
		h.Flags = append(harness.Workers(steady), "--restart-budget", "1/5m")
		return outage{
			reason: "input/output error: look after the disk, and service resumes by itself",
			begin:  func(*harness.Master) { disk.cutOff(alive) },
			end:    func() { disk.cutOff(0) },
		}
	})
}
