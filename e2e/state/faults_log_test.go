//go:build e2e && linux

package state

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"github.com/core-tools/hsu-master/e2e/harness"
)

// On a full disk, only logs are lost: the processes that write them continue, and write again when there is space.
func TestLogsOnAFullDisk(t *testing.T) {
	t.Parallel()
	h := harness.NewHost(t)
	disk := onTmpfs(h, 8<<10)
	h.Flags = append(harness.Workers(steady, "--log-level=debug"), "--log-level=debug", "--restart-budget", "1/5m")
	own := filepath.Join(disk.dir, "master.log")
	m := h.Exec("/bin/sh", nil, append([]string{"-c", `exec "$0" "$@" 2>>` + own, h.Program}, h.RunArgs()...)...)
	m.LogPath = own
	m.AwaitServing()
	before := awaitSteady(h, harness.Worker.Running)
	load := h.StartLoad(8)
	load.AwaitMore(100)
	disk.fill()
	fillUp(t, own) // the rest of its last page
	load.AwaitMore(100)
	h.KillWorker(before.Workers[0].PID)
	after := awaitSteady(h, func(w harness.Worker) bool {
		return w.Running() && (w.ID != before.Workers[0].ID || w.Incarnation == 2)
	})
	wantOnlyRestarted(h, before, after, before.Workers[0].ID)
	sizes := map[string]int64{}
	logs := []string{own}
	for _, w := range before.Workers {
		logs = append(logs, filepath.Join(h.State, "logs", w.ID+".log"))
	}
	for _, path := range logs {
		sizes[path] = fileSize(t, path)
	}
	load.AwaitMore(100)
	disk.free()
	h.KillWorker(before.Workers[1].PID) // the master logs this
	for _, path := range logs {
		harness.WaitFor(t, path+" grows again", func() error {
			if got := fileSize(t, path); got <= sizes[path] {
				return fmt.Errorf("it has %d bytes", got)
			}
			return nil
		})
	}
	load.Stop()
	wantCounted(h, load)
	awaitSteady(h, harness.Worker.Running)
	m.Stop()
	h.WantNothingLeft()
}

func fileSize(t *testing.T, path string) int64 {
	t.Helper()
	info, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	return info.Size()
}
