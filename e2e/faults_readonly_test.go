//go:build e2e && linux

package e2e

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// A file system that finds itself damaged: it refuses all writes, also to open files.
func TestFileSystemThatTurnsReadOnly(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	disk := h.onExt4(16, "", "errors=remount-ro", "-O", "^has_journal")
	trigger := fmt.Sprintf("/sys/fs/ext4/%s/trigger_fs_error", filepath.Base(disk.loop.Name()))
	if _, err := os.Stat(trigger); err != nil {
		lacking(t, "this kernel has no way to ask for it: %v", err)
	}
	const reason = "read-only file system"
	h.flags = append(workers(steady), "--restart-budget", "1/5m")
	m := h.start()
	before := h.awaitSteady(running)
	load := h.startLoad(8)
	load.awaitMore(100)
	if err := os.WriteFile(trigger, []byte("test"), 0); err != nil {
		t.Fatal(err)
	}
	o := outage{reason: reason + ": mount its file system for writing, and service resumes by itself"}
	h.awaitRefusal(o.reason)
	h.wantOutage(load, o, before)
	// Newer kernels report success, but require that it is unmounted first.
	err := unix.Mount("", disk.dir, "", unix.MS_REMOUNT, "errors=remount-ro")
	writable := err == nil && os.WriteFile(disk.filler, nil, 0o600) == nil
	if writable {
		load.awaitMore(100)
	}
	load.stop()
	acked, sent := load.acked.Load(), load.sent.Load()
	m.kill()

	// The state can be read, but no master can start on it.
	if d := h.dump(); d.ProcessedCount < acked || d.ProcessedCount > sent {
		t.Errorf("processed_count = %d, want it between %d acknowledged and %d sent", d.ProcessedCount, acked, sent)
	}
	if !writable {
		m = h.launch(h.program, nil)
		m.wantExit(1)
		if log := m.log(); !strings.Contains(log, reason) ||
			!strings.Contains(log, "choose a state directory that can be written to") {
			t.Errorf("it said %q, want the reason and what to do", log)
		}
	}
	for _, w := range before.Workers {
		own(t, w.Port)
		h.killWorker(w.PID) // as an operator has to before unmounting
	}
	disk.unmount()
	disk.mount(disk.loop.Name(), "ext4", 0, "errors=remount-ro")
	m = h.start()
	d := h.awaitSteady(running)
	if d.ProcessedCount < acked || d.ProcessedCount > sent {
		t.Errorf("processed_count = %d, want it between %d acknowledged and %d sent", d.ProcessedCount, acked, sent)
	}
	h.ask("as if nothing had been")
	m.stop()
	h.wantNothingLeft()
}

// A state directory in which no file can be created or opened for writing any more, while open files remain
// writable: living workers serve, and dead ones wait for their restart.
func TestFolderThatTurnsReadOnly(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	disk := h.onTmpfs(8 << 10)
	h.flags = append(workers(steady), "--restart-budget", "1/5m")
	m := h.start()
	before := h.awaitSteady(running)
	load := h.startLoad(8)
	load.awaitMore(100)
	disk.mount(disk.dir, "", unix.MS_BIND, "")
	disk.mount("", "", unix.MS_REMOUNT|unix.MS_BIND|unix.MS_RDONLY, "")
	h.killWorker(before.Workers[0].PID)
	waitFor(t, "the worker cannot be started", func() error {
		w := h.dump().worker(t, before.Workers[0].ID)
		if w.Status != "backoff" || !strings.Contains(w.Reason, "read-only file system") {
			return fmt.Errorf("%+v", w)
		}
		return nil
	})
	load.awaitMore(100)
	disk.unmount()
	after := h.awaitSteady(running)
	h.wantOnlyRestarted(before, after, before.Workers[0].ID)
	load.awaitMore(100)
	load.stop()
	h.wantCounted(load)
	m.stop()
	h.wantNothingLeft()
}
