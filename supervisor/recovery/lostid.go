package recovery

import (
	"context"
	"fmt"
	"os"
	"path/filepath"

	"github.com/core-tools/hsu-master/store"
	"github.com/core-tools/hsu-master/supervisor/launcher"
	"github.com/core-tools/hsu-master/supervisor/process"
)

// LivingMasterID returns the ID of the master whose living workers belong to the state directory dir, or "" if
// there are none. It is for [store.Options].LostID: if every record of the ID is lost, only the workers still have
// it, and a master with another ID would never recognize them.
//
// The leases in runtimeDir, empty for "run" in dir, prove the workers that run as another user than the master.
func LivingMasterID(ctx context.Context, dir, runtimeDir string) (string, error) {
	if runtimeDir == "" {
		runtimeDir = filepath.Join(dir, "run")
	}
	id, err := store.DirID(dir)
	if err != nil {
		return "", fmt.Errorf("ask the living for their master's id: %w", err)
	}
	holders, err := process.Scan(ctx)
	if err != nil {
		return "", fmt.Errorf("ask the living for their master's id: %w", err)
	}
	return masterOf(holders, id.String(), func(h process.Holder) bool {
		if int(h.UID) == os.Geteuid() {
			return true
		}
		return filepath.Base(h.WorkerID) == h.WorkerID && // the process itself has set it
			process.HoldsLeaseFile(h.PID, launcher.LeasePath(runtimeDir, h.WorkerID))
	}), nil
}

// masterOf returns the ID that most of the workers name; among IDs named equally often, the ID of the first holder
// may win.
//
// Any user can set these variables, so trusted says of which processes they count. A session leader was started as a
// worker, or by one.
func masterOf(holders []process.Holder, stateDir string, trusted func(process.Holder) bool) string {
	votes := map[string]int{}
	best := ""
	for _, h := range holders {
		if h.StateDir != stateDir || h.MasterID == "" || h.PID != h.SID || !trusted(h) {
			continue
		}
		votes[h.MasterID]++
		if best == "" {
			best = h.MasterID
		}
	}
	for id, n := range votes {
		if n > votes[best] {
			best = id
		}
	}
	return best
}
