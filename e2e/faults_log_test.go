//go:build e2e && linux

package e2e

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"
)

// On a full disk, only logs are lost: the processes that write them continue, and write again when there is space.
func TestLogsOnAFullDisk(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	disk := h.onTmpfs(8 << 10)
	h.flags = append(workers(steady, "--log-level=debug"), "--log-level=debug", "--restart-budget", "1/5m")
	own := filepath.Join(disk.dir, "master.log")
	m := h.execute("/bin/sh", nil, append([]string{"-c", `exec "$0" "$@" 2>>` + own, h.program}, h.runArgs()...)...)
	m.logPath = own
	m.awaitServing()
	before := h.awaitSteady(running)
	load := h.startLoad(8)
	load.awaitMore(100)
	disk.fill()
	fillUp(t, own) // the rest of its last page
	load.awaitMore(100)
	h.killWorker(before.Workers[0].PID)
	after := h.awaitSteady(func(d dump, w worker) bool {
		return running(d, w) && (w.ID != before.Workers[0].ID || w.Incarnation == 2)
	})
	h.wantOnlyRestarted(before, after, before.Workers[0].ID)
	sizes := map[string]int64{}
	logs := []string{own}
	for _, w := range before.Workers {
		logs = append(logs, filepath.Join(h.state, "logs", w.ID+".log"))
	}
	for _, path := range logs {
		sizes[path] = fileSize(t, path)
	}
	load.awaitMore(100)
	disk.free()
	h.killWorker(before.Workers[1].PID) // the master logs this
	for _, path := range logs {
		waitFor(t, path+" grows again", func() error {
			if got := fileSize(t, path); got <= sizes[path] {
				return fmt.Errorf("it has %d bytes", got)
			}
			return nil
		})
	}
	load.stop()
	h.wantCounted(load)
	h.awaitSteady(running)
	m.stop()
	h.wantNothingLeft()
}

func fileSize(t *testing.T, path string) int64 {
	t.Helper()
	info, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	return info.Size()
}
