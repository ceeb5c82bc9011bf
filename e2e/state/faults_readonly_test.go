//go:build e2e && linux

package state

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/core-tools/hsu-master/e2e/harness"
)

// A file system that finds itself damaged: it refuses all writes, also to open files.
func TestFileSystemThatTurnsReadOnly(t *testing.T) {
	t.Parallel()
	h := harness.NewHost(t)
	disk := onExt4(h, 16, "", "errors=remount-ro", "-O", "^has_journal")
	trigger := fmt.Sprintf("/sys/fs/ext4/%s/trigger_fs_error", filepath.Base(disk.loop.Name()))
	if _, err := os.Stat(trigger); err != nil {
		harness.SkipOutsideCI(t, "this kernel has no way to ask for it: %v", err)
	}
	const reason = "read-only file system"
	h.Flags = append(harness.Workers(steady), "--restart-budget", "1/5m")
	m := h.Start()
	before := awaitSteady(h, harness.Worker.Running)
	load := h.StartLoad(8)
	load.AwaitMore(100)
	if err := os.WriteFile(trigger, []byte("test"), 0); err != nil {
		t.Fatal(err)
	}
	o := outage{reason: reason + ": mount its file system for writing, and service resumes by itself"}
	awaitRefusal(h, o.reason)
	wantOutage(h, load, o, before)
	// Newer kernels report success, but require that it is unmounted first.
	err := unix.Mount("", disk.dir, "", unix.MS_REMOUNT, "errors=remount-ro")
	writable := err == nil && os.WriteFile(disk.filler, nil, 0o600) == nil
	if writable {
		load.AwaitMore(100)
	}
	load.Stop()
	acked, sent := load.Acked.Load(), load.Sent.Load()
	m.Kill()

	// The state can be read, but no master can start on it.
	if d := h.Dump(); d.ProcessedCount < acked || d.ProcessedCount > sent {
		t.Errorf("processed_count = %d, want it between %d acknowledged and %d sent", d.ProcessedCount, acked, sent)
	}
	if !writable {
		m = h.Launch(h.Program, nil)
		m.WantExit(1)
		if log := m.Log(); !strings.Contains(log, reason) ||
			!strings.Contains(log, "choose a state directory that can be written to") {
			t.Errorf("it said %q, want the reason and what to do", log)
		}
	}
	for _, w := range before.Workers {
		harness.WorkerStatus(t, w.Port)
		h.KillWorker(w.PID) // as an operator has to before unmounting
	}
	disk.unmount()
	disk.mount(disk.loop.Name(), "ext4", 0, "errors=remount-ro")
	m = h.Start()
	d := awaitSteady(h, harness.Worker.Running)
	if d.ProcessedCount < acked || d.ProcessedCount > sent {
		t.Errorf("processed_count = %d, want it between %d acknowledged and %d sent", d.ProcessedCount, acked, sent)
	}
	h.Ask("as if nothing had been")
	m.Stop()
	h.WantNothingLeft()
}

// A state directory in which no file can be created or opened for writing any more, while open files remain
// writable: living workers serve, and dead ones wait for their restart.
func TestFolderThatTurnsReadOnly(t *testing.T) {
	t.Parallel()
	h := harness.NewHost(t)
	disk := onTmpfs(h, 8<<10)
	h.Flags = append(harness.Workers(steady), "--restart-budget", "1/5m")
	m := h.Start()
	before := awaitSteady(h, harness.Worker.Running)
	load := h.StartLoad(8)
	load.AwaitMore(100)
	disk.mount(disk.dir, "", unix.MS_BIND, "")
	disk.mount("", "", unix.MS_REMOUNT|unix.MS_BIND|unix.MS_RDONLY, "")
	h.KillWorker(before.Workers[0].PID)
	harness.WaitFor(t, "the worker cannot be started", func() error {
		w := h.Dump().Worker(t, before.Workers[0].ID)
		if w.Status != "backoff" || !strings.Contains(w.Reason, "read-only file system") {
			return fmt.Errorf("%+v", w)
		}
		return nil
	})
	load.AwaitMore(100)
	disk.unmount()
	after := awaitSteady(h, harness.Worker.Running)
	wantOnlyRestarted(h, before, after, before.Workers[0].ID)
	load.AwaitMore(100)
	load.Stop()
	wantCounted(h, load)
	m.Stop()
	h.WantNothingLeft()
}
