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

// On a full disk everything continues: the count overwrites its earlier records, and the registry has reserved
// space to grow into.
func TestFullDiskStopsNothing(t *testing.T) {
	t.Parallel()
	for name, mount := range map[string]func(*host) *disk{
		"tmpfs": func(h *host) *disk { return h.onTmpfs(8 << 10) },
		"ext4":  func(h *host) *disk { return h.onExt4(16, "", "") },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			h := newHost(t)
			disk := mount(h)
			h.flags = h.restless()
			m := h.start()
			before := h.awaitSteady(running)
			load := h.startLoad(8)
			load.awaitMore(100)
			disk.fill()
			load.awaitMore(100)
			h.killWorker(before.Workers[0].PID)
			after := h.awaitSteady(func(d dump, w worker) bool {
				return running(d, w) && (w.ID != before.Workers[0].ID || w.Incarnation == 2)
			})
			h.wantOnlyRestarted(before, after, before.Workers[0].ID)
			h.awaitRestless()
			for failure, times := range load.takeFailures() {
				if !strings.Contains(failure, "connection to the server lost") { // from the killed worker
					t.Errorf("%d callers got %q", times, failure)
				}
			}

			want := after.instances(t)
			m.kill()
			m = h.start()
			if diff := cmp.Diff(want, h.awaitSteady(running).instances(t)); diff != "" {
				t.Errorf("the workers are not what they were (-before +after):\n%s", diff)
			}
			load.awaitMore(100)
			m.stop() // the same again after an orderly stop
			m = h.start()
			h.awaitSteady(running)
			load.awaitMore(100)
			h.awaitRestless()
			disk.free()
			load.awaitMore(100)
			load.stop()
			h.wantCounted(load)
			m.stop()
			h.wantNothingLeft()
		})
	}
}

// awaitRestless returns when the restless workers have used up their budget.
func (h *host) awaitRestless() {
	h.t.Helper()
	waitFor(h.t, "the restless workers have failed", func() error {
		d, err := h.tryDump()
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
	survive(t, func(h *host) outage {
		disk := h.onExt4(16, "", "", "-O", "^extent,^64bit")
		h.flags = h.restless()
		return outage{
			grows:  true,
			reason: "no space left on device: free some space there, and service resumes by itself",
			begin:  func(*master) { disk.fill() },
			end:    func() { disk.free() },
		}
	})
}

// A disk whose underlying storage is used up: writes succeed, and the data is lost when it is synced. (A thin
// volume; here a sparse file on a full file system.)
func TestDiskWhoseStorageIsUsedUp(t *testing.T) {
	survive(t, func(h *host) outage {
		storage := h.disk("storage")
		storage.mount("tmpfs", "tmpfs", 0, "size=12m")
		thin := h.onExt4(64, filepath.Join(storage.dir, "image"), "errors=continue", "-O", "^has_journal")
		h.flags = workers(steady)
		return outage{
			grows:  true,
			reason: "no space left on device",
			begin: func(*master) {
				thin.trim() // otherwise a new file may fit into the space of an old one
				storage.fill()
			},
			end: func() { storage.free() },
		}
	})
}

// A disk that fails: reads and writes give EIO.
func TestDiskThatFailsForAWhile(t *testing.T) {
	survive(t, func(h *host) outage {
		const alive = 8 // MiB, including the file system's metadata
		disk := h.onExt4(24, "", "errors=continue", "-J", "size=4")
		if err := os.WriteFile(filepath.Join(disk.dir, "low"), make([]byte, (alive+1)<<20), 0o600); err != nil {
			t.Fatal(err)
		}
		h.flags = append(workers(steady), "--restart-budget", "1/5m")
		return outage{
			reason: "input/output error: look after the disk, and service resumes by itself",
			begin:  func(*master) { disk.cutOff(alive) },
			end:    func() { disk.cutOff(0) },
		}
	})
}
